#include "control/agent/lease_keeper.h"

#include <algorithm>

namespace outrider::agent {

LeaseKeeper::LeaseKeeper(Instant grant_sent, Duration ttl)
    : ttl_(ttl), newest_sent_(grant_sent), expires_(grant_sent + ttl), renew_at_(grant_sent + ttl / 3) {}

LeaseKeeper::State LeaseKeeper::observe(Instant now) {
    if (state_ == State::kHeld && now >= expires_) state_ = State::kExpired;
    return state_;
}

Instant LeaseKeeper::next_renewal() const {
    return state_ == State::kHeld ? renew_at_ : Instant::max();
}

Instant LeaseKeeper::next_action() const {
    return state_ == State::kHeld ? std::min(renew_at_, expires_) : Instant::max();
}

void LeaseKeeper::renewal_sent(Instant now) {
    renew_at_ = now + ttl_ / 3;
}

void LeaseKeeper::renewal_answered(Instant sent, Duration ttl, Instant now) {
    if (observe(now) != State::kHeld) return;
    if (ttl <= Duration(0)) {
        state_ = State::kGone;
        return;
    }
    if (sent < newest_sent_) return;
    newest_sent_ = sent;
    ttl_ = ttl;
    expires_ = sent + ttl;
    renew_at_ = std::max(sent + ttl / 3, now + std::min(ttl / 9, kRetryMin));
}

void LeaseKeeper::renewal_failed(Instant now) {
    renew_at_ = now + std::max(ttl_ / 9, kRetryMin);
}

}  // namespace outrider::agent
