#include "idempotency/local_rounds.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"
#include "base/wal/format.h"

namespace outrider::idempotency {
namespace {

using policy::Conflict;
using policy::ConflictWhy;
using policy::KeyPhase;
using policy::StoreFailed;
using policy::Verdict;

constexpr std::size_t kEncodedKept = std::size_t{1} << 20;  // of the buffer between rounds
// Of a done record besides headers and body; generous.
constexpr std::size_t kRecordRoom = 256;

template <typename... F>
struct Overloaded : F... {
    using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

std::uint64_t number(policy::WaiterId id) {
    return static_cast<std::uint64_t>(id);
}

bool is_state(const policy::Record& record) {
    return !std::holds_alternative<policy::ReleasedRecord>(record) &&
           !std::holds_alternative<policy::ForgottenRecord>(record);
}

}  // namespace

LocalRounds::LocalRounds(const RoundLimits& limits, policy::ClockAnchor anchor, std::uint64_t secret)
    : limits_(limits), anchor_(anchor), table_(limits.table, anchor, secret), waiting_(limits.waiting_max) {}

Result<void> LocalRounds::recover(std::string_view bytes, std::uint64_t position, Instant now) {
    const Result<policy::Record> record = policy::decode_record(bytes);
    if (!record) return Error{record.error()};
    table_.recover(*record, position, now);
    return {};
}

void LocalRounds::begin(Instant now) {
    now_ = now;
    for (const policy::Digest& key : table_.advance(now, kStepsMax).lapsed)
        wake(key);
    // Asked again, they hear what holds now: mostly that they waited too long.
    for (const policy::WaiterId id : waiting_.time_out(now)) {
        Parked parked = take_parked(id);
        ask(parked.ticket, std::move(parked.ask), parked.since);
    }
}

void LocalRounds::apply(Question question) {
    const Ticket ticket = question.ticket;
    std::visit(Overloaded{[&](Ask& q) { ask(ticket, std::move(q), std::nullopt); },
                          [&](Leave&) { leave(ticket); }, [&](Tell& q) { tell(ticket, std::move(q)); },
                          [&](ClientGone&) { client_gone(ticket.client); }},
               question.what);
}

// Questions
// ---------------------------------------------------------------------------------------------------------

void LocalRounds::ask(Ticket ticket, Ask ask, std::optional<Instant> parked_since) {
    const policy::Arrival arrival{ask.fingerprint, ask.token, ask.arrived, now_};
    const policy::ArrivalEffects effects = table_.arrive(ask.key, arrival, ask.policy);
    if (std::holds_alternative<policy::StoreFull>(effects.verdict)) memory_full_ = true;
    if (const auto* forward = std::get_if<policy::Forward>(&effects.verdict)) {
        memory_full_ = false;
        claims_.push_back({ask.key, forward->owner, replies_.size()});
        write(*effects.persist, forward->owner.generation);
        notes_.back().claim = true;
    }
    if (const auto* wait = std::get_if<policy::Wait>(&effects.verdict)) {
        const auto id = waiting_.park(ask.key, wait->until);
        if (!id) return reply(ticket, parked_since, Conflict{ConflictWhy::kInFlight, 0});
        waiter_of_.emplace(ticket, *id);
        parked_.emplace(number(*id), Parked{ticket, std::move(ask), parked_since.value_or(now_)});
        return;
    }
    reply(ticket, parked_since, effects.verdict);
}

void LocalRounds::leave(Ticket ticket) {
    const auto found = waiter_of_.find(ticket);
    if (found == waiter_of_.end()) return;  // answered already
    waiting_.leave(found->second);
    const Parked parked = take_parked(found->second);
    reply(ticket, parked.since, Conflict{ConflictWhy::kInFlight, 0});
}

void LocalRounds::client_gone(std::uint32_t client) {
    auto it = waiter_of_.lower_bound({client, 0});
    while (it != waiter_of_.end() && it->first.client == client) {
        waiting_.leave(it->second);
        parked_.erase(number(it->second));
        it = waiter_of_.erase(it);
    }
}

policy::OwnerEffects LocalRounds::settle(Tell& tell) {
    if (auto* answered = std::get_if<Answered>(&tell.report)) {
        const auto& response = answered->answer.response;
        // A record that the log would refuse spoils its whole batch.
        if (response != nullptr &&
            response->headers.size() + response->body.size() + kRecordRoom > wal::kPayloadBytesMax)
            answered->answer.response.reset();
        return table_.answered(tell.key, tell.owner, std::move(answered->answer), answered->record, now_);
    }
    if (std::holds_alternative<Released>(tell.report)) return table_.released(tell.key, tell.owner, now_);
    return table_.cut(tell.key, tell.owner, now_);
}

void LocalRounds::tell(Ticket ticket, Tell tell) {
    const policy::OwnerEffects effects = settle(tell);
    if (effects.persist) {
        told_.push_back(replies_.size());
        write(*effects.persist, tell.owner.generation);
    }
    replies_.push_back({ticket, Duration{}, SettledReply{effects.settled, true}});
    if (effects.wake) wake(tell.key);
}

policy::Forgotten LocalRounds::forget(const policy::Digest& key) {
    const policy::KeyState* const state = table_.find(key);
    const policy::Generation generation = state != nullptr ? state->owner.generation : policy::Generation{};
    const policy::ForgetEffects effects = table_.forget(key, now_);
    if (effects.persist) write(*effects.persist, generation);
    return effects.forgotten;
}

// Those who wait
// ---------------------------------------------------------------------------------------------------------

// In their order, before any question that came later: the first may become the next owner, the others park behind it.
void LocalRounds::wake(const policy::Digest& key) {
    for (const policy::WaiterId id : waiting_.wake(key)) {
        Parked parked = take_parked(id);
        ask(parked.ticket, std::move(parked.ask), parked.since);
    }
}

LocalRounds::Parked LocalRounds::take_parked(policy::WaiterId id) {
    const auto found = parked_.find(number(id));
    require(found != parked_.end(), "every waiter is parked");
    Parked parked = std::move(found->second);
    parked_.erase(found);
    waiter_of_.erase(parked.ticket);
    return parked;
}

void LocalRounds::reply(Ticket ticket, std::optional<Instant> parked_since, Verdict verdict) {
    const Duration parked = parked_since ? now_ - *parked_since : Duration{};
    replies_.push_back({ticket, parked, std::move(verdict), parked_since.has_value()});
}

// Records
// ---------------------------------------------------------------------------------------------------------

void LocalRounds::write(const policy::Record& record, policy::Generation generation) {
    const std::size_t before = encoded_.size();
    if (limits_.log) policy::append_record(encoded_, record);
    notes_.push_back(
        {{policy::key_of(record), generation}, is_state(record), false, encoded_.size() - before});
}

std::vector<std::string_view> LocalRounds::records() const {
    std::vector<std::string_view> records;
    if (!limits_.log) return records;
    records.reserve(notes_.size());
    std::size_t at = 0;
    for (const Note& note : notes_) {
        records.push_back(std::string_view(encoded_).substr(at, note.size));
        at += note.size;
    }
    return records;
}

void LocalRounds::committed(std::uint64_t first_position) {
    std::uint64_t position = first_position;
    for (const Note& note : notes_) {
        if (note.state) table_.located(note.of.key, note.of.generation, position);
        ++position;
    }
    end_round();
}

void LocalRounds::failed(bool maybe_written) {
    for (const Claim& claim : claims_) {
        replies_[claim.reply].what = Verdict(StoreFailed{});
        table_.released(claim.key, claim.owner, now_);
        for (const policy::WaiterId id : waiting_.wake(claim.key)) {
            const Parked parked = take_parked(id);
            reply(parked.ticket, parked.since, StoreFailed{});
        }
    }
    for (const std::size_t told : told_)
        std::get<SettledReply>(replies_[told].what).durable = false;
    for (const Note& note : notes_) {
        // A claim that is not in the log needs no record that it is void.
        if (!note.claim || maybe_written) remember_unwritten(note.of);
    }
    end_round();
}

void LocalRounds::end_round() {
    if (encoded_.capacity() > kEncodedKept) encoded_ = {};
    encoded_.clear();
    notes_.clear();
    claims_.clear();
    told_.clear();
}

void LocalRounds::take_replies(std::vector<Reply>& out) {
    std::move(replies_.begin(), replies_.end(), std::back_inserter(out));
    replies_.clear();
}

void LocalRounds::remember_unwritten(const KeyGeneration& of) {
    if (unwritten_.size() >= kUnwrittenMax) return;  // a restart makes "unknown" of it
    unwritten_.push_back(of);
    if (!rewrite_at_ || *rewrite_at_ <= now_) rewrite_at_ = now_ + kRewriteAfter;
}

bool LocalRounds::rewrite(Instant now, std::size_t move_bytes) {
    now_ = now;
    if (rewrite_at_ && *rewrite_at_ <= now) {
        std::size_t written = 0;
        while (written < unwritten_.size() && !full())
            rewrite_key(unwritten_[written++]);
        unwritten_.erase(unwritten_.begin(), unwritten_.begin() + static_cast<std::ptrdiff_t>(written));
        if (unwritten_.empty()) rewrite_at_.reset();
    }
    if (move_bytes != 0) {
        const std::size_t end = encoded_.size() + move_bytes;
        table_.visit_oldest([&](const policy::Digest& key, const policy::KeyState& state) {
            write(policy::record_of(key, state, anchor_), state.owner.generation);
            return encoded_.size() < end;
        });
    }
    return !notes_.empty();
}

// What holds of the key now; if that is another generation, a later record says so already.
void LocalRounds::rewrite_key(const KeyGeneration& of) {
    const policy::KeyState* const state = table_.find(of.key);
    if (state == nullptr) return write(policy::ReleasedRecord{of.key, of.generation}, of.generation);
    if (state->owner.generation == of.generation)
        write(policy::record_of(of.key, *state, anchor_), of.generation);
}

// Time and views
// ---------------------------------------------------------------------------------------------------------

std::optional<Instant> LocalRounds::next_due() const {
    std::optional<Instant> due = table_.next_due();
    const std::optional<Instant> deadline = waiting_.next_deadline();
    return deadline && (!due || *deadline < *due) ? deadline : due;
}

std::optional<std::uint64_t> LocalRounds::low_water() const {
    const auto oldest = table_.oldest();
    if (!oldest) return std::nullopt;
    return oldest->position;
}

WallTime LocalRounds::wall_of(Instant t) const {
    const auto since = std::chrono::duration_cast<std::chrono::microseconds>(t - anchor_.instant);
    return {anchor_.wall.unix_micros + since.count()};
}

KeyView LocalRounds::look(const policy::Digest& key, Instant now) const {
    const policy::KeyState* const state = table_.find(key);
    if (state == nullptr || state->expired(now)) return {};
    KeyView view;
    view.phase = state->phase;
    view.why = state->why;
    if (state->lease_passed(now)) {
        view.phase = KeyPhase::kUnknown;
        view.why = policy::UnknownWhy::kLeasePassed;
    }
    view.generation = state->owner.generation.value;
    view.claimed = wall_of(state->claimed);
    view.expires = wall_of(state->expires);
    if (view.phase == KeyPhase::kInFlight) view.lease_end = wall_of(state->lease_end);
    if (view.phase != KeyPhase::kDone) return view;
    view.status = state->status;
    view.replayable = state->response != nullptr;
    if (view.replayable) view.answer_bytes = state->response->headers.size() + state->response->body.size();
    return view;
}

void LocalRounds::describe(StoreStatus& status) const {
    status.counted = true;
    status.in_flight = table_.counts().in_flight;
    status.done = table_.counts().done;
    status.unknown = table_.counts().unknown;
    status.waiting = waiting_.waiting();
    status.memory_bytes = table_.bytes();
    status.memory_bytes_max = limits_.table.bytes_max.value;
    if (const auto oldest = table_.oldest()) status.oldest = wall_of(oldest->claimed);
}

}  // namespace outrider::idempotency
