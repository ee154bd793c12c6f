#include "proxy/batcher.h"

#include <algorithm>

#include "base/check.h"
#include "proxy/exchange.h"
#include "proxy/worker.h"

namespace outrider::proxy {

using policy::BatchQueue;
using policy::MemberId;
using Stage = BatchSeat::Stage;

namespace {

policy::BatchFormat format_of(config::BatchFormat format) {
    switch (format) {
        case config::BatchFormat::kJsonArray:
            return policy::BatchFormat::kJsonArray;
        case config::BatchFormat::kNdjson:
            return policy::BatchFormat::kNdjson;
        case config::BatchFormat::kJsonRpc:
            return policy::BatchFormat::kJsonRpc;
    }
    return policy::BatchFormat::kJsonArray;
}

policy::FormatLimits limits_of(const config::BatchSettings& settings) {
    policy::FormatLimits limits;
    limits.member_bytes_max = settings.max_bytes;
    limits.answer_bytes_max = Bytes{Batcher::kAnswerMax};
    return limits;
}

policy::BatchLimits queue_limits(const config::BatchSettings& settings) {
    policy::BatchLimits limits;
    limits.items_max = settings.max_items;
    limits.bytes_max = settings.max_bytes;
    limits.linger = settings.linger;
    limits.waiting_max = Batcher::kWaitingMax;
    return limits;
}

std::vector<const policy::BatchItem*> items_of(const BatchCall& call) {
    std::vector<const policy::BatchItem*> items;
    for (const BatchCall::Part& part : call.parts)
        items.push_back(&part.item);
    return items;
}

}  // namespace

Batcher::Batcher(Worker& worker, const config::BatchSettings& settings, const std::vector<BatchCells>& cells)
    : worker_(worker),
      settings_(settings),
      format_(format_of(settings.format)),
      cells_(cells[worker.index()]),
      admission_(limits_of(settings)),
      splitter_(limits_of(settings)) {}

Batcher::~Batcher() {
    worker_.loop().cancel(*this);
}

Exchange* Batcher::find(MemberId id) const {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : found->second;
}

Result<policy::BatchSplitter::Parts> Batcher::split(const BatchCall& call) {
    return splitter_.split(format_, settings_.envelope, items_of(call), call.answer);
}

// ---- members ----------------------------------------------------------------------------------------------------------

Batcher::Arrival Batcher::arrive(Exchange& member, bool repeatable) {
    BatchSeat& seat = *member.batch_;
    const std::string group(member.context_.batch_group);
    auto found = groups_.find(group);
    if (found == groups_.end()) {
        if (groups_.size() >= kGroupsMax) return Arrival::kApart;
        found = groups_.emplace(group, BatchQueue(queue_limits(settings_))).first;
    }
    seat.id = MemberId{next_id_++};
    const auto arrival =
        found->second.arrive({seat.id, seat.item.bytes_in_call(), repeatable}, worker_.loop().now());
    changed(group);  // also to forget a queue that stays empty
    if (arrival == BatchQueue::Arrival::kTooLarge) return Arrival::kTooLarge;
    if (arrival == BatchQueue::Arrival::kFull) return Arrival::kFull;
    seat.stage = Stage::kWaits;
    cells_.waiting->add(1);
    by_id_.emplace(seat.id, &member);
    return Arrival::kQueued;
}

void Batcher::leave(Exchange& member) {
    BatchSeat& seat = *member.batch_;
    const std::string group(member.context_.batch_group);
    by_id_.erase(seat.id);
    if (const auto found = groups_.find(group); found != groups_.end()) {
        if (found->second.leave(seat.id) == BatchQueue::Left::kRemoved) cells_.waiting->add(-1);
        changed(group);
    }
}

// ---- calls ------------------------------------------------------------------------------------------------------------

void Batcher::changed(const std::string& group) {
    if (std::find(changed_.begin(), changed_.end(), group) == changed_.end()) changed_.push_back(group);
    if (!working_) worker_.loop().add_turn_end(*this);
}

void Batcher::await(Pending pending) {
    pending_.push_back(std::move(pending));
    if (!working_) worker_.loop().add_turn_end(*this);
}

void Batcher::on_turn_end() {
    const Ref<Batcher> self(this);
    working_ = true;
    while (!pending_.empty() || !changed_.empty()) {
        std::vector<Pending> pending = std::move(pending_);
        pending_.clear();
        for (Pending& one : pending) {
            if (Exchange* const member = find(one.id)) meet(*member, one);
        }
        const std::vector<std::string> groups = std::move(changed_);
        changed_.clear();
        for (const std::string& group : groups)
            pump(group);
    }
    working_ = false;
    arm();
}

void Batcher::on_timeout(Instant) {
    const uv::Loop::Event event(worker_.loop());
    for (const auto& [group, queue] : groups_)
        changed(group);
}

void Batcher::arm() {
    if (settings_.linger == Duration(0)) return;  // nobody is left waiting for a deadline
    std::optional<Instant> first;
    for (const auto& [group, queue] : groups_) {
        const std::optional<Instant> deadline = queue.next_deadline();
        if (deadline && (!first || *deadline < *first)) first = deadline;
    }
    if (first) {
        worker_.loop().timers().schedule(*this, *first);
    } else {
        worker_.loop().cancel(*this);
    }
}

void Batcher::pump(const std::string& group) {
    const auto found = groups_.find(group);
    if (found == groups_.end()) return;
    BatchQueue& queue = found->second;
    while (const auto call = queue.next(worker_.loop().now()))
        start(group, *call);
    if (queue.waiting() == 0 && queue.calls_in_flight() == 0) groups_.erase(group);
}

void Batcher::start(const std::string& group, const BatchQueue::Call& queued) {
    auto call = std::make_unique<BatchCall>();
    call->id = queued.id;
    call->group = group;
    call->queued = true;
    cells_.waiting->add(-static_cast<std::int64_t>(queued.members.size()));
    std::vector<Exchange*> members;
    for (const MemberId id : queued.members) {
        Exchange* const member = find(id);
        require(member != nullptr, "who leaves a queue tells it");
        call->parts.push_back({.id = id, .item = std::move(member->batch_->item)});
        members.push_back(member);
    }
    send(std::move(call), members);
}

void Batcher::send(std::unique_ptr<BatchCall> call, const std::vector<Exchange*>& members) {
    cells_.size->observe(members.size());
    Exchange* carrier = members.front();
    call->repeatable = true;
    for (Exchange* member : members) {
        call->repeatable &= member->owns_key();
        if (member->ends_by() > carrier->ends_by()) carrier = member;
    }
    for (Exchange* member : members) {
        member->batch_->stage = Stage::kInCall;
        member->batch_->carrier = carrier;
        member->context_.flags.set(filters::Flag::kBT);
    }
    carrier->carry(std::move(call));
}

void Batcher::let_go(const BatchCall& call) {
    for (const BatchCall::Part& part : call.parts) {
        Exchange* const member = part.left ? nullptr : find(part.id);
        if (member != nullptr) member->batch_->carrier = nullptr;
    }
}

void Batcher::answered(const BatchCall& call) {
    if (!call.queued) return;
    groups_.at(call.group).finished(call.id);
    changed(call.group);
}

void Batcher::given_up(const BatchCall& call) {
    if (!call.queued) return;
    (void)groups_.at(call.group).failed(call.id, false);
    changed(call.group);
}

void Batcher::fail(BatchCall& call, Failure failure, std::string_view detail, Duration retry_after) {
    given_up(call);
    for (const BatchCall::Part& part : call.parts) {
        if (part.left) continue;
        await({.id = part.id, .failure = failure, .detail = std::string(detail), .retry_after = retry_after});
    }
}

std::vector<MemberId> Batcher::refused(BatchCall& call, bool split) {
    std::vector<MemberId> told;
    if (!call.queued) {
        told.push_back(call.parts.front().id);
        return told;
    }
    const BatchQueue::Split parts = groups_.at(call.group).failed(call.id, split);
    changed(call.group);
    for (const MemberId id : parts.one_by_one) {
        const auto part = std::find_if(call.parts.begin(), call.parts.end(),
                                       [id](const BatchCall::Part& p) { return p.id == id; });
        await({.id = id, .alone = true, .item = std::move(part->item)});
    }
    return parts.failed;
}

void Batcher::meet(Exchange& member, Pending& pending) {
    if (!pending.alone) {
        by_id_.erase(pending.id);
        member.batch_->stage = Stage::kNone;
        member.fail(pending.failure, pending.detail, pending.retry_after);
        return;
    }
    auto call = std::make_unique<BatchCall>();
    call->group = std::string(member.context_.batch_group);
    call->parts.push_back({.id = pending.id, .item = std::move(pending.item)});
    send(std::move(call), {&member});
}

}  // namespace outrider::proxy
