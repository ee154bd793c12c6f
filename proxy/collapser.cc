#include "proxy/collapser.h"

#include <algorithm>

#include "base/check.h"
#include "base/http/kept_head.h"
#include "proxy/exchange.h"
#include "proxy/worker.h"

namespace outrider::proxy {

using policy::CollapseExchange;
using policy::CollapseTable;
using Role = CollapseSeat::Role;

namespace {

// Readers that lag by this are waited for, when all do.
constexpr std::uint64_t kAhead = 64 * 1024;

// What hits the leader alone: its own time, or what its own request says. The others may fare better.
bool is_the_leaders_own(Failure failure) {
    return failure == Failure::kRouteTimeout || failure == Failure::kDeadlinePassed ||
           failure == Failure::kLoop;
}

}  // namespace

SharedAnswer::~SharedAnswer() {
    worker.give_back_bytes(held);
}

void Collapser::arrive(Exchange& exchange) {
    CollapseSeat& seat = *exchange.seat_;
    seat.id = CollapseExchange{next_id_++};
    const CollapseTable::Place place = table_.arrive(std::string(exchange.context_.collapse_key), seat.id);
    seat.group = place.group;
    if (place.role == CollapseTable::Place::Role::kApart) return;
    by_id_.emplace(seat.id, &exchange);
    const bool leads = place.role == CollapseTable::Place::Role::kLead;
    seat.role = leads ? Role::kLeads : Role::kWaits;
    if (leads) calls_.emplace(seat.group, &exchange);
}

Exchange* Collapser::find(CollapseExchange id) const {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : found->second;
}

void Collapser::drop_reader(SharedAnswer& answer, CollapseExchange id) {
    std::erase(answer.readers, id);
}

void Collapser::leave(Exchange& exchange) {
    CollapseSeat& seat = *exchange.seat_;
    const Ref<SharedAnswer> answer = seat.answer;
    by_id_.erase(seat.id);
    if (answer) drop_reader(*answer, seat.id);
    const CollapseTable::Left left = table_.leave(seat.id);
    const bool led = seat.role == Role::kLeads;
    const bool goes_on = left == CollapseTable::Left::kGoesOn;
    if (led && goes_on) {
        seat.absent = true;
    } else {
        seat.role = Role::kNone;
        seat.answer.reset();
    }
    if (left == CollapseTable::Left::kGiveUp) {
        const auto call = calls_.find(seat.group);
        Exchange* const leader = call->second;
        calls_.erase(call);
        if (!led) leader->give_up_call();
    } else if (goes_on && answer) {
        trim(*answer);
        pace(*answer);
    }
}

Ref<SharedAnswer> Collapser::head_came(Exchange& leader, http::ResponseHead& head,
                                       http::ServerExchange::Body body) {
    CollapseSeat& seat = *leader.seat_;
    std::vector<policy::FieldView> fields;
    fields.reserve(head.all().size());
    for (const http::FieldRef& f : head.all())
        fields.push_back({head.name(f), head.value(f)});
    const bool fits = body != http::ServerExchange::Body::kLength || head.content_length <= kKeptMax;
    const bool shared =
        fits && policy::why_not_shared({head.status, fields}, vary_) == policy::NotShared::kNone;
    CollapseTable::Sharing sharing = table_.head(seat.group, shared);
    for (const CollapseExchange id : sharing.own_way)
        await({.id = id, .fate = Fate::kOwnWay});
    const bool alone = sharing.share.empty() || (sharing.share.size() == 1 && !seat.absent);
    if (alone) {
        if (!sharing.give_up) table_.end(seat.group);
        by_id_.erase(seat.id);
        calls_.erase(seat.group);
        seat.role = Role::kNone;
        return {};
    }
    Ref<SharedAnswer> answer(new SharedAnswer(worker_));
    answer->call = &leader;
    // The field only announces trailers, and a kept head has none that says how a message is framed.
    std::vector<http::FieldRef*> announced;
    for (http::FieldRef& f : head.all()) {
        if (f.id == http::FieldId::kTrailer && !f.dropped) announced.push_back(&f);
    }
    for (http::FieldRef* f : announced)
        f->dropped = true;
    answer->head = http::kept_head(head);
    for (http::FieldRef* f : announced)
        f->dropped = false;
    answer->status = head.status;
    answer->framing = body;
    answer->length = head.content_length;
    answer->readers = std::move(sharing.share);
    return answer;
}

void Collapser::begin_reading(const Ref<SharedAnswer>& answer) {
    // Heads are only written: nobody leaves meanwhile.
    for (const CollapseExchange id : answer->readers) {
        Exchange* const reader = find(id);
        if (reader != nullptr && reader != answer->call) reader->begin_shared(answer);
    }
}

void Collapser::body_came(const Ref<SharedAnswer>& answer, std::span<const std::string_view> slices) {
    for (const std::string_view s : slices)
        answer->body.append(s);
    for (const CollapseExchange id : answer->readers) {
        if (Exchange* const reader = find(id)) reader->read_shared();
    }
    trim(*answer);
    pace(*answer);
}

void Collapser::answer_ended(Exchange& leader, std::span<const http::Field> trailers) {
    const Ref<Collapser> self(this);
    CollapseSeat& seat = *leader.seat_;
    const Ref<SharedAnswer> answer = seat.answer;
    answer->ended = true;
    answer->call = nullptr;
    for (const http::Field& f : trailers)
        answer->trailers.emplace_back(f.name, f.value);
    table_.end(seat.group);
    calls_.erase(seat.group);
    const CollapseExchange leader_id = seat.id;
    const bool detached = leader.detached_;
    seat.role = seat.absent ? Role::kNone : Role::kReads;
    // Whoever is done may begin something else on its connection, and so may others: by their ids.
    const std::vector<CollapseExchange> readers = answer->readers;
    for (const CollapseExchange id : readers) {
        if (id == leader_id) continue;
        if (Exchange* const reader = find(id)) reader->read_shared();
    }
    if (detached) {
        leader.end_detached();
    } else if (Exchange* const own = find(leader_id)) {
        own->read_shared();
    }
}

void Collapser::failed(Exchange& leader, Failure failure, std::string_view detail, Duration retry_after) {
    CollapseSeat& seat = *leader.seat_;
    const Ref<SharedAnswer> answer = seat.answer;
    by_id_.erase(seat.id);
    calls_.erase(seat.group);
    seat.role = Role::kNone;
    seat.answer.reset();
    CollapseTable::Sharing sharing;
    if (answer) {
        answer->call = nullptr;
        sharing.share = std::move(answer->readers);
        answer->readers.clear();
        table_.end(seat.group);
    } else {
        sharing = table_.failed(seat.group, !is_the_leaders_own(failure));
    }
    for (const CollapseExchange id : sharing.share) {
        if (id != seat.id)
            await({.id = id,
                   .fate = Fate::kFail,
                   .failure = failure,
                   .detail = std::string(detail),
                   .retry_after = retry_after});
    }
    for (const CollapseExchange id : sharing.own_way)
        await({.id = id, .fate = Fate::kAgain});
}

void Collapser::done(Exchange& reader) {
    CollapseSeat& seat = *reader.seat_;
    by_id_.erase(seat.id);
    drop_reader(*seat.answer, seat.id);
    trim(*seat.answer);
    seat.role = Role::kNone;
    seat.answer.reset();
}

void Collapser::hold(SharedAnswer& answer) {
    const std::size_t size = answer.body.size();
    if (size <= answer.held) {
        answer.worker.give_back_bytes(answer.held - size);
        answer.held = size;
    } else if (answer.worker.hold_bytes(size - answer.held)) {
        answer.held = size;
    }
}

void Collapser::trim(SharedAnswer& answer) {
    std::uint64_t taken = answer.body.end();
    for (const CollapseExchange id : answer.readers) {
        if (const Exchange* const reader = find(id)) taken = std::min(taken, reader->seat_->position);
    }
    answer.body.drop_before(taken);
    hold(answer);
    const bool no_room = answer.body.size() > answer.held;
    if (answer.body.size() <= kKeptMax && !no_room) return;
    answer.body.drop_before(no_room ? answer.body.end() : answer.body.end() - kKeptMax);
    hold(answer);
    std::vector<CollapseExchange> left;
    for (const CollapseExchange id : answer.readers) {
        const Exchange* const reader = find(id);
        if (reader == nullptr) continue;
        if (reader->seat_->position >= answer.body.begin()) {
            left.push_back(id);
        } else {
            await({.id = id, .fate = Fate::kBehind});
        }
    }
    answer.readers = std::move(left);
}

void Collapser::pace(SharedAnswer& answer) {
    Exchange* const call = answer.call;
    if (call == nullptr || call->winner_ == nullptr || !call->winner_->active()) return;
    const bool behind = !answer.readers.empty() &&
                        std::all_of(answer.readers.begin(), answer.readers.end(), [&](CollapseExchange id) {
                            const Exchange* const reader = find(id);
                            return reader == nullptr || answer.body.end() - reader->seat_->position >= kAhead;
                        });
    if (behind == answer.paused) return;
    answer.paused = behind;
    behind ? call->winner_->pause_response() : call->winner_->resume_response();
}

void Collapser::await(Pending pending) {
    pending_.push_back(std::move(pending));
    if (!meeting_) worker_.loop().add_turn_end(*this);
}

void Collapser::on_turn_end() {
    const Ref<Collapser> self(this);
    meeting_ = true;
    while (!pending_.empty()) {
        const std::vector<Pending> round = std::move(pending_);
        pending_.clear();
        for (const Pending& pending : round) {
            if (Exchange* const exchange = find(pending.id)) meet(*exchange, pending);
        }
    }
    meeting_ = false;
}

void Collapser::meet(Exchange& exchange, const Pending& pending) {
    if (pending.fate == Fate::kBehind) {
        exchange.cut_behind();
        return;
    }
    by_id_.erase(pending.id);
    exchange.seat_->role = Role::kNone;
    exchange.seat_->answer.reset();
    switch (pending.fate) {
        case Fate::kOwnWay:
            exchange.run_filters();
            break;
        case Fate::kAgain:
            exchange.join();
            break;
        case Fate::kFail:
            exchange.count_collapsed();
            exchange.fail(pending.failure, pending.detail, pending.retry_after);
            break;
        case Fate::kBehind:
            break;
    }
}

}  // namespace outrider::proxy
