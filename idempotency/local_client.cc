#include "idempotency/local_client.h"

#include <utility>

#include "base/check.h"
#include "base/uv/acceptor.h"

namespace outrider::idempotency {

LocalClient::LocalClient(LocalStore& store, std::shared_ptr<LocalStore::End> end, uv::Loop& loop,
                         const StoreCells& cells)
    : store_(store), end_(std::move(end)), loop_(loop), cells_(cells), random_(uv::random_seed()) {
    end_->client = this;
}

LocalClient::~LocalClient() {
    close();
}

void LocalClient::arrive(Call& call, const policy::Digest& key, const policy::Digest& fingerprint,
                         const policy::IdempotencyPolicy& policy, Instant arrived) {
    const bool full = outstanding_ >= store_.questions_max_;
    const Ticket ticket = take_slot(call);
    if (full) return refuse({ticket, {}, policy::Verdict(policy::StoreFailed{}), false});
    loop_.add_turn_end(*this);
    questions_.push_back({ticket, Ask{key, fingerprint, policy, {random_.next()}, arrived}});
}

void LocalClient::leave(Call& call) {
    if (call.store_slot == nullptr) return;
    const Slot& slot = *static_cast<Slot*>(call.store_slot);
    loop_.add_turn_end(*this);
    questions_.push_back({{end_->id, slot.index}, Leave{}});
}

void LocalClient::settle(Call& call, const policy::Digest& key, const policy::Owner& owner, Report report) {
    const bool full = outstanding_ >= 2 * store_.questions_max_;
    const Ticket ticket = take_slot(call);
    if (full) return refuse({ticket, {}, SettledReply{policy::Settled::kTooLate, false}, false});
    loop_.add_turn_end(*this);
    questions_.push_back({ticket, Tell{key, owner, std::move(report)}});
}

void LocalClient::close() {
    if (end_->client == nullptr) return;
    end_->client = nullptr;
    {
        const std::lock_guard lock(end_->mutex);
        end_->loop = nullptr;
    }
    questions_.push_back({{end_->id, 0}, ClientGone{}});  // behind the reports of this turn
    on_turn_end();
}

Ticket LocalClient::take_slot(Call& call) {
    require(end_->client != nullptr, "a client of a store that is closed is not used");
    require(call.store_slot == nullptr, "a call has one question outstanding");
    if (free_.empty()) {
        free_.push_back(static_cast<std::uint32_t>(slots_.size()));
        slots_.push_back({free_.back()});
    }
    Slot& slot = slots_[free_.back()];
    free_.pop_back();
    slot.call = &call;
    slot.asked = loop_.now();
    call.store_slot = &slot;
    ++outstanding_;
    return {end_->id, slot.index};
}

Call& LocalClient::free_slot(Slot& slot) {
    require(slot.call != nullptr, "a question is answered once");
    Call& call = *std::exchange(slot.call, nullptr);
    call.store_slot = nullptr;
    free_.push_back(slot.index);
    --outstanding_;
    return call;
}

void LocalClient::refuse(Reply reply) {
    if (cells_.errors != nullptr) cells_.errors->add();
    refused_.push_back(std::move(reply));
    if (refused_.size() > 1) return;
    loop_.post([end = end_] {
        if (end->client != nullptr) end->client->deliver(std::exchange(end->client->refused_, {}));
    });
}

// A callback may ask, settle, or close this client.
void LocalClient::deliver(const std::vector<Reply>& replies) {
    const std::shared_ptr<LocalStore::End> end = end_;
    const Instant now = loop_.now();
    for (const Reply& reply : replies) {
        if (end->client == nullptr) return;
        Slot& slot = slots_[reply.ticket.slot];
        if (cells_.seconds != nullptr) cells_.seconds->observe(now - slot.asked - reply.parked);
        Call& call = free_slot(slot);
        if (const auto* verdict = std::get_if<policy::Verdict>(&reply.what)) {
            if (std::holds_alternative<policy::StoreFull>(*verdict) && cells_.errors != nullptr)
                cells_.errors->add();
            call.waited = reply.waited;
            call.on_verdict(*verdict);
        } else {
            const auto& settled = std::get<SettledReply>(reply.what);
            call.on_settled(settled.settled, settled.durable);
        }
    }
}

void LocalClient::on_turn_end() {
    if (!questions_.empty()) store_.hand_over(questions_);
}

}  // namespace outrider::idempotency
