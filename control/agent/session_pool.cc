#include "control/agent/session_pool.h"

namespace outrider::agent {

std::optional<SessionPool::Boarding> SessionPool::next() {
    if (line_.empty() || free_.empty()) return std::nullopt;
    Boarding boarding{*line_.begin(), free_.back()};
    ++boarding.ticket.sequence;
    line_.erase(line_.begin());
    free_.pop_back();
    busy_.emplace(boarding.write, boarding.ticket);
    return boarding;
}

void SessionPool::leave(CallId write) {
    line_.erase(write);
    const auto it = busy_.find(write);
    if (it == busy_.end()) return;
    free_.push_back(it->second);
    busy_.erase(it);
}

void SessionPool::lost(CallId write) {
    if (busy_.erase(write) == 0) return;
    free_.clear();
    line_.insert(write);
}

bool SessionPool::wants_session(Instant now) const {
    if (opening_ || line_.empty() || !free_.empty() || sessions() >= sessions_max_) return false;
    return busy_.empty() || now >= refused_until_;
}

void SessionPool::opened(std::uint64_t session) {
    opening_ = false;
    free_.push_back({session, 0});
}

std::vector<CallId> SessionPool::refused(Instant now) {
    opening_ = false;
    refused_until_ = now + kRefusedRest;
    if (sessions() != 0) return {};
    std::vector<CallId> all(line_.begin(), line_.end());
    line_.clear();
    return all;
}

std::vector<std::uint64_t> SessionPool::take_free() {
    std::vector<std::uint64_t> names;
    for (const Ticket& ticket : free_)
        names.push_back(ticket.session);
    free_.clear();
    return names;
}

}  // namespace outrider::agent
