#include "filters/policy/idempotency.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace outrider::policy {
namespace {

// The phase that counts at `now`, whether or not somebody called lapse().
KeyPhase phase_at(const KeyState& key, Instant now) {
    if (key.phase == KeyPhase::kAbsent || key.expired(now)) return KeyPhase::kAbsent;
    return key.lease_passed(now) ? KeyPhase::kUnknown : key.phase;
}

// Of a key whose phase_at() is kUnknown.
UnknownWhy why_unknown(const KeyState& key) {
    return key.phase == KeyPhase::kInFlight ? UnknownWhy::kLeasePassed : key.why;
}

Verdict judge_in_flight(const Arrival& arrival, const IdempotencyPolicy& policy) {
    if (policy.in_flight == InFlightPolicy::kConflict) return Conflict{ConflictWhy::kInFlight, 0};
    const Instant until = arrival.arrived + policy.wait_timeout;
    if (arrival.now >= until) return Conflict{ConflictWhy::kWaitedTooLong, 0};
    return Wait{until};
}

// For a key that will not be claimed.
Verdict judge(const KeyState& key, KeyPhase phase, const Arrival& arrival, const IdempotencyPolicy& policy) {
    if (!(key.fingerprint == arrival.fingerprint)) return Mismatch{};
    if (phase == KeyPhase::kInFlight) return judge_in_flight(arrival, policy);
    if (phase == KeyPhase::kUnknown) {
        return OutcomeUnknown{why_unknown(key), key.expires};
    }
    if (key.response == nullptr) return Conflict{ConflictWhy::kDoneNotReplayable, key.status};
    return Replay{key.status, key.response};
}

// Only the owner of the present generation may change a key, and only while its outcome is open.
bool may_settle(const KeyState& key, const Owner& owner, Instant now) {
    const KeyPhase phase = phase_at(key, now);
    return (phase == KeyPhase::kInFlight || phase == KeyPhase::kUnknown) && key.owner == owner;
}

}  // namespace

bool would_forward(const KeyState& key, const Arrival& arrival, const IdempotencyPolicy& policy) {
    const KeyPhase phase = phase_at(key, arrival.now);
    if (phase == KeyPhase::kAbsent) return true;
    return phase == KeyPhase::kUnknown && policy.on_unknown == OnUnknown::kReexecute &&
           key.fingerprint == arrival.fingerprint;
}

ArrivalStep arrive(KeyState& key, const Arrival& arrival, const IdempotencyPolicy& policy, Generation next) {
    const KeyPhase phase = phase_at(key, arrival.now);
    if (!would_forward(key, arrival, policy)) {
        return {Write::kNothing, judge(key, phase, arrival, policy)};
    }
    require(next > key.owner.generation, "a claim's generation is above all before it");
    const bool reexecution = phase == KeyPhase::kUnknown;
    key = KeyState{.phase = KeyPhase::kInFlight,
                   .why = reexecution ? why_unknown(key) : UnknownWhy{},
                   .reexecution = reexecution,
                   .status = 0,
                   .fingerprint = arrival.fingerprint,
                   .owner = {arrival.token, next},
                   .claimed = arrival.now,
                   .lease_end = arrival.now + policy.lease,
                   .expires = arrival.now + std::max(policy.window, policy.lease),
                   .response = nullptr};
    return {Write::kState, Forward{key.owner, key.lease_end, reexecution}};
}

Verdict verdict_without_store(OnStoreError policy) {
    if (policy == OnStoreError::kForward) return Unprotected{};
    return StoreFailed{};
}

OwnerStep answered(KeyState& key, const Owner& owner, Answer answer, RecordAnswers record, Instant now) {
    if (!may_settle(key, owner, now)) return {};
    if (record == RecordAnswers::kBelow500 && answer.status >= 500) return released(key, owner, now);
    key.phase = KeyPhase::kDone;
    key.status = answer.status;
    key.response = std::move(answer.response);
    const bool kept = key.response != nullptr;
    return {Write::kState, kept ? Settled::kRecorded : Settled::kRecordedWithoutAnswer, true};
}

OwnerStep released(KeyState& key, const Owner& owner, Instant now) {
    if (!may_settle(key, owner, now)) return {};
    if (key.reexecution) {
        // Of an earlier execution nobody knows more than before. The log's in-flight record says the same.
        key.phase = KeyPhase::kUnknown;
        return {Write::kNothing, Settled::kReleased, true};
    }
    key = KeyState{};
    return {Write::kReleased, Settled::kReleased, true};
}

OwnerStep cut(KeyState& key, const Owner& owner, Instant now) {
    if (!may_settle(key, owner, now)) return {};
    key.phase = KeyPhase::kUnknown;
    key.why = UnknownWhy::kCut;
    return {Write::kState, Settled::kUnknown, true};
}

bool lapse(KeyState& key, Instant now) {
    if (!key.lease_passed(now)) return false;
    key.phase = KeyPhase::kUnknown;
    key.why = UnknownWhy::kLeasePassed;
    return true;
}

Forgotten forget(KeyState& key, Instant now) {
    const KeyPhase phase = phase_at(key, now);
    if (phase == KeyPhase::kInFlight) return Forgotten::kInFlight;
    if (phase == KeyPhase::kAbsent) return Forgotten::kAbsent;
    key = KeyState{};
    return Forgotten::kForgotten;
}

}  // namespace outrider::policy
