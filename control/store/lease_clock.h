// How much time each lease has left: the leader's own knowledge, beside the leases that all members agree on.
//
// Only the leader runs one, from the moment in which it has applied an entry of its own term (so every grant and revoke of
// leaders before it is known) until it steps down. It starts every lease anew with its whole TTL and one
// election timeout more, since a keepalive that the last leader answered is not in the log. A lease whose deadline has
// passed is handed out to be revoked by a command and is no longer renewed: a client that was told "expired" stays so, and
// a client that was told "alive" had TTL left. Keepalives are answered by the leader only while it is known to lead.
//
// Invariants
//   * No lease is handed out before its deadline on this clock.
//   * next_deadline() has a value exactly when a lease is known.
//   * One that was handed out comes again after kRetryAfter until revoked() (its command may have been lost).
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/time.h"
#include "control/store/leases.h"

namespace outrider::store {

class LeaseClock {
  public:
    static constexpr Duration kRetryAfter = std::chrono::seconds(3);

    // This member leads now.
    void lead(Instant now, const LeaseTable& leases, Duration election_timeout);
    // It does no more: nothing expires here.
    void step_down();

    // After the command has been applied.
    void granted(Instant now, LeaseId id, std::int64_t ttl_seconds);
    void revoked(LeaseId id);

    // The TTL that the lease has again; nothing when it is unknown or has expired.
    std::optional<std::int64_t> keep_alive(Instant now, LeaseId id);
    // Whole seconds left, rounded down as etcd does; -1 when it is unknown or has expired.
    std::int64_t seconds_left(Instant now, LeaseId id) const;

    // To be revoked, at most `max` of them, the longest overdue first.
    std::vector<LeaseId> expired(Instant now, std::size_t max);
    std::optional<Instant> next_deadline() const;
    std::size_t size() const { return leases_.size(); }

  private:
    struct Entry {
        Instant deadline;  // when expired: when it is handed out again
        std::int64_t ttl_seconds = 0;
        bool expired = false;
    };
    struct Hash {
        std::size_t operator()(LeaseId id) const { return std::hash<std::int64_t>()(id.value); }
    };

    void set_deadline(LeaseId id, Entry& entry, Instant deadline);

    std::unordered_map<LeaseId, Entry, Hash> leases_;
    std::set<std::pair<Instant, LeaseId>> by_deadline_;
};

}  // namespace outrider::store
