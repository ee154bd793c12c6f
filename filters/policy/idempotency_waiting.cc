#include "filters/policy/idempotency_waiting.h"

namespace outrider::policy {

std::optional<WaiterId> WaitingList::park(const Digest& key, Instant until) {
    if (waiters_.size() >= waiting_max_) return std::nullopt;
    const WaiterId id{next_id_++};
    waiters_.emplace(id, Waiter{key, until});
    by_key_.emplace(key, id);
    by_time_.emplace(until, id);
    return id;
}

bool WaitingList::leave(WaiterId id) {
    const auto found = waiters_.find(id);
    if (found == waiters_.end()) return false;
    const Waiter waiter = found->second;
    erase(id, waiter);
    return true;
}

std::vector<WaiterId> WaitingList::wake(const Digest& key) {
    std::vector<WaiterId> woken;
    for (auto it = by_key_.lower_bound({key, WaiterId{0}}); it != by_key_.end() && it->first == key; ++it) {
        woken.push_back(it->second);
    }
    for (const WaiterId id : woken) {
        leave(id);
    }
    return woken;
}

std::vector<WaiterId> WaitingList::time_out(Instant now) {
    std::vector<WaiterId> over;
    while (!by_time_.empty() && by_time_.begin()->first <= now) {
        over.push_back(by_time_.begin()->second);
        leave(over.back());
    }
    return over;
}

std::optional<Instant> WaitingList::next_deadline() const {
    if (by_time_.empty()) return std::nullopt;
    return by_time_.begin()->first;
}

void WaitingList::erase(WaiterId id, const Waiter& waiter) {
    by_key_.erase({waiter.key, id});
    by_time_.erase({waiter.until, id});
    waiters_.erase(id);
}

}  // namespace outrider::policy
