// The request waiting list: duplicates that are parked until the first request with their key is settled. Pure: the
// caller owns the requests and arms one timer for next_deadline(). One per worker; not safe from two threads at once.
//
// A woken request asks again (arrive() with the instant at which it first came) instead of being handed an outcome:
// then it is judged like any other, after a released or unknown key the first in line may become the next owner, and
// the others park again behind it in their order.
//
// Invariants
//   * At most `waiting_max` wait; at the bound park() says no, and the caller answers 409 as with in_flight =
//     "conflict".
//   * wake() returns those of a key in the order in which they were parked.
//   * Each parked request is returned exactly once, by wake() or time_out(), unless it left.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/time.h"
#include "filters/policy/idempotency_key.h"

namespace outrider::policy {

// Never used twice.
enum class WaiterId : std::uint64_t {};

class WaitingList {
  public:
    explicit WaitingList(std::size_t waiting_max) : waiting_max_(waiting_max) {}

    // Nothing: full.
    std::optional<WaiterId> park(const Digest& key, Instant until);
    // Its client went away. False: it does not wait (any more).
    bool leave(WaiterId id);
    // Those who wait for `key`, first come first; they wait no more.
    std::vector<WaiterId> wake(const Digest& key);
    // Those whose time is up, the earliest first; they wait no more.
    std::vector<WaiterId> time_out(Instant now);

    std::optional<Instant> next_deadline() const;
    std::size_t waiting() const { return waiters_.size(); }

  private:
    struct Waiter {
        Digest key;
        Instant until{};
    };
    void erase(WaiterId id, const Waiter& waiter);

    std::size_t waiting_max_;
    std::uint64_t next_id_ = 1;
    std::map<WaiterId, Waiter> waiters_;
    std::set<std::pair<Digest, WaiterId>> by_key_;
    std::set<std::pair<Instant, WaiterId>> by_time_;
};

}  // namespace outrider::policy
