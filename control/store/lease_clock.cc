#include "control/store/lease_clock.h"

#include <algorithm>

#include "control/store/bugs.h"

namespace outrider::store {
namespace {

// A TTL may be nine billion seconds; a century is as good as for ever, and can be added to any instant.
Duration duration_of(std::int64_t ttl_seconds) {
    constexpr std::int64_t kCentury = std::int64_t{100} * 365 * 24 * 3600;
    return std::chrono::seconds(std::min(ttl_seconds, kCentury));
}

}  // namespace

void LeaseClock::set_deadline(LeaseId id, Entry& entry, Instant deadline) {
    by_deadline_.erase({entry.deadline, id});
    entry.deadline = deadline;
    by_deadline_.emplace(deadline, id);
}

void LeaseClock::lead(Instant now, const LeaseTable& leases, Duration election_timeout) {
    step_down();
    for (const auto& [id, lease] : leases.all()) {
        if (bug(Bug::kLeaderKeepsDeadlines) && leases_.contains(id)) continue;
        granted(now, id, lease.ttl_seconds);
        Entry& entry = leases_[id];
        set_deadline(id, entry, entry.deadline + election_timeout);
    }
}

void LeaseClock::step_down() {
    if (bug(Bug::kLeaderKeepsDeadlines)) return;
    leases_.clear();
    by_deadline_.clear();
}

void LeaseClock::granted(Instant now, LeaseId id, std::int64_t ttl_seconds) {
    Entry& entry = leases_[id];
    entry.ttl_seconds = ttl_seconds;
    entry.expired = false;
    set_deadline(id, entry, now + duration_of(ttl_seconds));
}

void LeaseClock::revoked(LeaseId id) {
    const auto it = leases_.find(id);
    if (it == leases_.end()) return;
    by_deadline_.erase({it->second.deadline, id});
    leases_.erase(it);
}

std::optional<std::int64_t> LeaseClock::keep_alive(Instant now, LeaseId id) {
    const auto it = leases_.find(id);
    // Past its deadline it has expired, also when expired() has not been asked yet.
    if (it == leases_.end()) return std::nullopt;
    const bool expired = it->second.expired || it->second.deadline <= now;
    if (expired && !bug(Bug::kExpiredIsRenewed)) return std::nullopt;
    set_deadline(id, it->second, now + duration_of(it->second.ttl_seconds));
    return it->second.ttl_seconds;
}

std::int64_t LeaseClock::seconds_left(Instant now, LeaseId id) const {
    const auto it = leases_.find(id);
    if (it == leases_.end() || it->second.expired || it->second.deadline <= now) return -1;
    return std::chrono::duration_cast<std::chrono::seconds>(it->second.deadline - now).count();
}

std::vector<LeaseId> LeaseClock::expired(Instant now, std::size_t max) {
    std::vector<LeaseId> due;
    for (auto it = by_deadline_.begin(); it != by_deadline_.end() && it->first <= now && due.size() < max;
         ++it)
        due.push_back(it->second);
    for (const LeaseId id : due) {
        Entry& entry = leases_[id];
        entry.expired = true;
        set_deadline(id, entry, now + kRetryAfter);
    }
    return due;
}

std::optional<Instant> LeaseClock::next_deadline() const {
    if (by_deadline_.empty()) return std::nullopt;
    return by_deadline_.begin()->first;
}

}  // namespace outrider::store
