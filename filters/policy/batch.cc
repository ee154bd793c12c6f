#include "filters/policy/batch.h"

#include <algorithm>

#include "base/check.h"

namespace outrider::policy {

BatchQueue::Arrival BatchQueue::arrive(const Member& member, Instant now) {
    if (member.bytes > limits_.bytes_max) return Arrival::kTooLarge;
    if (waiting_.size() >= limits_.waiting_max) return Arrival::kFull;
    waiting_.push_back({.member = member, .since = now});
    waiting_bytes_ += member.bytes.value;
    return Arrival::kQueued;
}

bool BatchQueue::full() const {
    return waiting_.size() >= limits_.items_max || waiting_bytes_ >= limits_.bytes_max.value;
}

std::optional<Instant> BatchQueue::next_deadline() const {
    if (waiting_.empty() || !in_flight_.empty() || full()) return std::nullopt;
    return waiting_.front().since + limits_.linger;
}

std::optional<BatchQueue::Call> BatchQueue::next(Instant now) {
    if (waiting_.empty() || in_flight_.size() >= limits_.in_flight_max) return std::nullopt;
    if (!full()) {
        const auto deadline = next_deadline();
        if (!deadline || now < *deadline) return std::nullopt;
    }
    Call call{.id = CallId{next_call_++}, .members = {}};
    std::vector<Sent>& sent = in_flight_[call.id];
    std::uint64_t bytes = 0;
    while (!waiting_.empty() && sent.size() < limits_.items_max) {
        const Member& member = waiting_.front().member;
        // The first goes in any case: limits may have become smaller while it waited.
        if (!sent.empty() && bytes + member.bytes.value > limits_.bytes_max.value) break;
        bytes += member.bytes.value;
        waiting_bytes_ -= member.bytes.value;
        sent.push_back({.id = member.id, .repeatable = member.repeatable});
        call.members.push_back(member.id);
        waiting_.pop_front();
    }
    return call;
}

BatchQueue::Left BatchQueue::leave(MemberId id) {
    const auto waits =
        std::find_if(waiting_.begin(), waiting_.end(), [id](const Waiting& w) { return w.member.id == id; });
    if (waits != waiting_.end()) {
        waiting_bytes_ -= waits->member.bytes.value;
        waiting_.erase(waits);
        return Left::kRemoved;
    }
    for (auto& [call, members] : in_flight_) {
        for (Sent& sent : members) {
            if (sent.id != id || sent.left) continue;
            sent.left = true;
            return Left::kDropAnswer;
        }
    }
    return Left::kUnknown;
}

bool BatchQueue::wants_answer(CallId call, MemberId id) const {
    const auto found = in_flight_.find(call);
    if (found == in_flight_.end()) return false;
    return std::any_of(found->second.begin(), found->second.end(),
                       [id](const Sent& sent) { return sent.id == id && !sent.left; });
}

void BatchQueue::finished(CallId call) {
    require(in_flight_.erase(call) == 1, "a call ends once");
}

BatchQueue::Split BatchQueue::failed(CallId call, bool split_on_failure) {
    const auto found = in_flight_.find(call);
    require(found != in_flight_.end(), "a call ends once");
    Split split;
    const bool may_split = split_on_failure && found->second.size() > 1;
    for (const Sent& sent : found->second) {
        if (sent.left) continue;
        (may_split && sent.repeatable ? split.one_by_one : split.failed).push_back(sent.id);
    }
    in_flight_.erase(found);
    return split;
}

}  // namespace outrider::policy
