// When to renew a lease, and until when to believe in it. Pure.
//
// The server counts from when it handled the request, which is after the request was sent: so what is believed counts from
// before the sending, and ends no later than the server's, whatever the network did. Clock rates may differ: whoever guards
// writes stops earlier by its own bound (leadership's clock_uncertainty).
//
// Invariants
//   * expires() is (sending of the newest grant or renewal that was answered) + its TTL; answers that overtook each other change nothing
//   * renewals are due a third of the TTL after the sending of the last one that was answered; while one is out, the
//     next is due a third after its sending; after a failure, a ninth later, at least kRetryMin
//   * once observed as expired or gone it stays so: an answer that comes later does not bring it back
#pragma once

#include "base/time.h"

namespace outrider::agent {

class LeaseKeeper {
  public:
    enum class State : std::uint8_t {
        kHeld,
        kExpired,  // no renewal was answered in time
        kGone,     // the server says so
    };
    static constexpr Duration kRetryMin = std::chrono::milliseconds(100);

    LeaseKeeper(Instant grant_sent, Duration ttl);

    State observe(Instant now);
    Instant expires() const { return expires_; }
    Duration ttl() const { return ttl_; }
    // When to send the next renewal; Instant::max() when it is no longer held.
    Instant next_renewal() const;
    // When to observe() or renew next, whichever is first.
    Instant next_action() const;

    void renewal_sent(Instant now);
    void renewal_answered(Instant sent, Duration ttl,
                          Instant now);  // ttl 0: the server does not know the lease
    void renewal_failed(Instant now);

  private:
    Duration ttl_;
    Instant newest_sent_;  // of those answered
    Instant expires_;
    Instant renew_at_;
    State state_ = State::kHeld;
};

}  // namespace outrider::agent
