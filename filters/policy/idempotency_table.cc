#include "filters/policy/idempotency_table.h"

#include <algorithm>
#include <variant>

#include "base/check.h"

namespace outrider::policy {

// Besides the entry: the map's link, cached hash and bucket, the place in the heap, the allocator's header.
std::uint64_t IdempotencyTable::key_bytes() {
    return sizeof(Entry) + 3 * sizeof(void*) + sizeof(Entry*) + 2 * sizeof(void*);
}

// Besides the bytes: the shared pointer's counts and three allocations' headers.
std::uint64_t IdempotencyTable::answer_bytes(const StoredResponse& response) {
    return sizeof(StoredResponse) + 8 * sizeof(void*) + response.headers.capacity() +
           response.body.capacity();
}

IdempotencyTable::IdempotencyTable(TableLimits limits, ClockAnchor anchor, std::uint64_t secret)
    : limits_(limits), anchor_(anchor), entries_(limits.keys_expected, DigestHash{secret}) {
    require(limits.bytes_max.value >= key_bytes() + limits.reserve.value,
            "an idempotency table has room for one key");
}

// Requests and owners
// ---------------------------------------------------------------------------------------------------------

ArrivalEffects IdempotencyTable::arrive(const Digest& key, const Arrival& arrival,
                                        const IdempotencyPolicy& policy) {
    Entry* entry = lookup(key);
    if (entry != nullptr && entry->second.state.expired(arrival.now)) {
        erase(*entry);
        entry = nullptr;
    }
    KeyState absent;
    const Generation next{last_generation_.value + 1};
    if (entry != nullptr && !would_forward(entry->second.state, arrival, policy)) {
        return {std::nullopt, outrider::policy::arrive(entry->second.state, arrival, policy, next).verdict};
    }
    const std::uint64_t held = entry != nullptr ? key_bytes() + held_bytes(entry->second.state) : 0;
    if (!make_room(key_bytes() + limits_.reserve.value - held, arrival.now)) {
        return {std::nullopt, StoreFull{std::max(arrival.now, *next_due())}};
    }
    if (entry == nullptr) {
        entry = &*entries_.try_emplace(key).first;
        bytes_ += key_bytes();
        entry->second.state.expires = arrival.now;
        due_add(*entry);
    }
    count(entry->second.state, false);
    const ArrivalStep step = outrider::policy::arrive(entry->second.state, arrival, policy, next);
    reinsert(*entry);
    last_generation_ = next;
    return {record_of(key, entry->second.state, anchor_), step.verdict};
}

OwnerEffects IdempotencyTable::answered(const Digest& key, const Owner& owner, Answer answer,
                                        RecordAnswers record, Instant now) {
    Entry* const entry = lookup(key);
    if (entry == nullptr || entry->second.state.expired(now)) return {};
    if (answer.response != nullptr) {
        const std::uint64_t needed = answer_bytes(*answer.response);
        const std::uint64_t held = held_bytes(entry->second.state);
        if (needed > held && !make_room(needed - held, now)) answer.response.reset();
    }
    count(entry->second.state, false);
    return settle(*entry, owner,
                  outrider::policy::answered(entry->second.state, owner, std::move(answer), record, now));
}

OwnerEffects IdempotencyTable::released(const Digest& key, const Owner& owner, Instant now) {
    Entry* const entry = lookup(key);
    if (entry == nullptr) return {};
    count(entry->second.state, false);
    return settle(*entry, owner, outrider::policy::released(entry->second.state, owner, now));
}

OwnerEffects IdempotencyTable::cut(const Digest& key, const Owner& owner, Instant now) {
    Entry* const entry = lookup(key);
    if (entry == nullptr) return {};
    count(entry->second.state, false);
    return settle(*entry, owner, outrider::policy::cut(entry->second.state, owner, now));
}

OwnerEffects IdempotencyTable::settle(Entry& entry, const Owner& owner, OwnerStep step) {
    OwnerEffects effects{std::nullopt, step.settled, step.wake};
    if (step.write == Write::kState) effects.persist = record_of(entry.first, entry.second.state, anchor_);
    if (step.write == Write::kReleased) effects.persist = ReleasedRecord{entry.first, owner.generation};
    reinsert(entry);
    return effects;
}

ForgetEffects IdempotencyTable::forget(const Digest& key, Instant now) {
    Entry* const entry = lookup(key);
    if (entry == nullptr) return {std::nullopt, Forgotten::kAbsent};
    count(entry->second.state, false);
    const Forgotten forgotten = outrider::policy::forget(entry->second.state, now);
    reinsert(*entry);
    if (forgotten != Forgotten::kForgotten) return {std::nullopt, forgotten};
    return {ForgottenRecord{key}, forgotten};
}

// Time
// ---------------------------------------------------------------------------------------------------------

Advanced IdempotencyTable::advance(Instant now, std::size_t steps_max) {
    Advanced advanced;
    for (std::size_t i = 0; i < steps_max && step_due(now, advanced.expired); ++i) {
    }
    advanced.lapsed.swap(lapsed_);
    return advanced;
}

std::optional<Instant> IdempotencyTable::next_due() const {
    if (!lapsed_.empty()) return Instant::min();
    if (due_.empty()) return std::nullopt;
    return due_.front()->second.state.due();
}

// One lease that has passed or one window that is over; false when there is none.
bool IdempotencyTable::step_due(Instant now, std::size_t& expired) {
    if (due_.empty() || due_.front()->second.state.due() > now) return false;
    Entry& entry = *due_.front();
    if (!entry.second.state.lease_passed(now)) {
        erase(entry);
        ++expired;
        return true;
    }
    count(entry.second.state, false);
    lapse(entry.second.state, now);
    lapsed_.push_back(entry.first);
    reinsert(entry);
    return true;
}

bool IdempotencyTable::make_room(std::uint64_t bytes, Instant now) {
    std::size_t expired = 0;
    while (bytes_ + bytes > limits_.bytes_max.value) {
        if (!step_due(now, expired)) return false;
    }
    return true;
}

// The log
// ---------------------------------------------------------------------------------------------------------

void IdempotencyTable::located(const Digest& key, Generation generation, std::uint64_t position) {
    Entry* const entry = lookup(key);
    if (entry == nullptr || entry->second.state.owner.generation != generation) return;
    link_newest(*entry, position);
}

std::optional<OldestKey> IdempotencyTable::oldest() const {
    if (oldest_ == nullptr) return std::nullopt;
    const Node& node = oldest_->second;
    return OldestKey{oldest_->first, node.position, node.state.claimed};
}

void IdempotencyTable::visit_oldest(
    const std::function<bool(const Digest& key, const KeyState& state)>& visit) const {
    for (const Entry* entry = oldest_; entry != nullptr; entry = entry->second.newer) {
        if (!visit(entry->first, entry->second.state)) return;
    }
}

void IdempotencyTable::recover(const Record& record, std::uint64_t position, Instant now) {
    const Digest& key = key_of(record);
    Entry* entry = lookup(key);
    KeyState state = state_after_restart(record, anchor_, now);
    const ReleasedRecord* const released = std::get_if<ReleasedRecord>(&record);
    if (released != nullptr) last_generation_ = std::max(last_generation_, released->generation);
    last_generation_ = std::max(last_generation_, state.owner.generation);
    if (state.phase == KeyPhase::kAbsent) {
        const bool others = released != nullptr && entry != nullptr &&
                            entry->second.state.owner.generation != released->generation;
        if (entry != nullptr && !others) erase(*entry);
        return;
    }
    if (entry == nullptr) {
        entry = &*entries_.try_emplace(key).first;
        bytes_ += key_bytes();
        due_add(*entry);
    }
    count(entry->second.state, false);
    entry->second.state = std::move(state);
    reinsert(*entry);
    link_newest(*entry, position);
}

// A list by position: what is located last is always the newest, so nothing is ever searched.
void IdempotencyTable::link_newest(Entry& entry, std::uint64_t position) {
    require(newest_ == nullptr || position >= newest_->second.position,
            "keys are located in the log's order");
    unlink(entry);
    Node& node = entry.second;
    node.position = position;
    node.located = true;
    node.older = newest_;
    (newest_ != nullptr ? newest_->second.newer : oldest_) = &entry;
    newest_ = &entry;
}

void IdempotencyTable::unlink(Entry& entry) {
    Node& node = entry.second;
    if (!node.located) return;
    (node.older != nullptr ? node.older->second.newer : oldest_) = node.newer;
    (node.newer != nullptr ? node.newer->second.older : newest_) = node.older;
    node.older = node.newer = nullptr;
    node.located = false;
}

// Entries
// ---------------------------------------------------------------------------------------------------------

IdempotencyTable::Entry* IdempotencyTable::lookup(const Digest& key) {
    const auto found = entries_.find(key);
    return found == entries_.end() ? nullptr : &*found;
}

const KeyState* IdempotencyTable::find(const Digest& key) const {
    const auto found = entries_.find(key);
    return found == entries_.end() ? nullptr : &found->second.state;
}

std::uint64_t IdempotencyTable::held_bytes(const KeyState& state) const {
    if (state.phase == KeyPhase::kInFlight) return limits_.reserve.value;
    return state.response != nullptr ? answer_bytes(*state.response) : 0;
}

void IdempotencyTable::count(const KeyState& state, bool in) {
    const std::uint64_t held = held_bytes(state);
    bytes_ = in ? bytes_ + held : bytes_ - held;
    const auto step = [in](std::size_t& number) { number = in ? number + 1 : number - 1; };
    if (state.phase == KeyPhase::kInFlight) step(counts_.in_flight);
    if (state.phase == KeyPhase::kDone) step(counts_.done);
    if (state.phase == KeyPhase::kUnknown) step(counts_.unknown);
}

void IdempotencyTable::reinsert(Entry& entry) {
    count(entry.second.state, true);
    if (entry.second.state.phase == KeyPhase::kAbsent) {
        erase(entry);
    } else {
        due_moved(entry);
    }
}

void IdempotencyTable::erase(Entry& entry) {
    count(entry.second.state, false);
    bytes_ -= key_bytes();
    unlink(entry);
    due_remove(entry);
    entries_.erase(Digest(entry.first));  // a copy: the map may read it after the entry is gone
}

// The heap
// ---------------------------------------------------------------------------------------------------------

void IdempotencyTable::due_place(std::size_t index, Entry* entry) {
    due_[index] = entry;
    entry->second.due_index = index;
}

void IdempotencyTable::due_up(std::size_t index) {
    Entry* const entry = due_[index];
    while (index > 0) {
        const std::size_t parent = (index - 1) / 2;
        if (due_[parent]->second.state.due() <= entry->second.state.due()) break;
        due_place(index, due_[parent]);
        index = parent;
    }
    due_place(index, entry);
}

void IdempotencyTable::due_down(std::size_t index) {
    Entry* const entry = due_[index];
    for (;;) {
        std::size_t child = 2 * index + 1;
        if (child >= due_.size()) break;
        const std::size_t right = child + 1;
        if (right < due_.size() && due_[right]->second.state.due() < due_[child]->second.state.due())
            child = right;
        if (entry->second.state.due() <= due_[child]->second.state.due()) break;
        due_place(index, due_[child]);
        index = child;
    }
    due_place(index, entry);
}

void IdempotencyTable::due_add(Entry& entry) {
    due_.push_back(&entry);
    due_up(due_.size() - 1);
}

void IdempotencyTable::due_moved(Entry& entry) {
    due_up(entry.second.due_index);
    due_down(entry.second.due_index);
}

void IdempotencyTable::due_remove(Entry& entry) {
    const std::size_t index = entry.second.due_index;
    Entry* const last = due_.back();
    due_.pop_back();
    if (last == &entry) return;
    due_place(index, last);
    due_moved(*last);
}

}  // namespace outrider::policy
