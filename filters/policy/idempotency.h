// What becomes of a request with an idempotency key, from the state of that ONE key. Pure: time, owners and outcomes
// come in, verdicts go out, and what must be durable first is said beside the verdict.
//
//     absent --arrives--> in flight --answered--> done
//                             |  \----never left------------------> absent; a re-execution: unknown
//                             |------cut, lease passed, restart---> unknown --answered by the same owner--> done
//                                                                      \--arrives, kReexecute--> in flight (next
//                                                                                                generation)
//     any but in flight --window over, or an operator forgets it--> absent
//
// An owner is the exchange that was told to forward; its lease says from when on another may be told to take over, the
// generation says whether one has been. So an answer that comes after the lease is still recorded if nobody took over
// (the outcome is known after all), and one of a former owner changes nothing. Generations grow with each claim
// of any key, so that none is used again while an owner of it may be left, also not after a key was forgotten.
//
// The window is counted from the claim and does not move with the answer: "remembered for `window` after the first
// request". If the lease is longer, the window is as long as the lease: a key never expires in flight.
//
// Invariants
//   * At most one owner can record: the one whose token and generation the key holds.
//   * kForward is answered for an absent or expired key, or, with OnUnknown::kReexecute, for an unknown one; for
//     nothing else. A caller that makes each claim durable first forwards a key at most once in its window.
//   * Another fingerprint is a mismatch in every state.
//   * A verdict depends on `now` only through lease_end, expires and wait_timeout: it does not matter whether somebody
//     called lapse() in time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>

#include "base/time.h"
#include "filters/policy/idempotency_key.h"

namespace outrider::policy {

// Policy of a route
// ---------------------------------------------------------------------------------------------------------

enum class InFlightPolicy : std::uint8_t { kWait, kConflict };
enum class OnUnknown : std::uint8_t { kReject, kReexecute };
enum class OnStoreError : std::uint8_t { kReject, kForward };
// Which final answers are recorded. kBelow500 ("2xx-4xx"): a 5xx is passed on and its key released, so the next
// duplicate runs; only for applications whose 5xx mean that nothing took effect.
enum class RecordAnswers : std::uint8_t { kAll, kBelow500 };

struct IdempotencyPolicy {
    Duration window = std::chrono::hours(24);
    // Longer than the route's whole exchange may take, so that it passes only if the owner is lost.
    Duration lease = std::chrono::seconds(30);
    InFlightPolicy in_flight = InFlightPolicy::kWait;
    Duration wait_timeout = std::chrono::seconds(10);
    OnUnknown on_unknown = OnUnknown::kReject;
    RecordAnswers record = RecordAnswers::kAll;
};

// The key
// ---------------------------------------------------------------------------------------------------------

// Names one exchange. Unique among those alive in all processes on the store; drawn at random.
struct OwnerToken {
    std::uint64_t value = 0;
    friend auto operator<=>(const OwnerToken&, const OwnerToken&) = default;
};
struct Generation {
    std::uint64_t value = 0;  // 0: none
    friend auto operator<=>(const Generation&, const Generation&) = default;
};
struct Owner {
    OwnerToken token;
    Generation generation;
    friend bool operator==(const Owner&, const Owner&) = default;
};

// An answer to be given again. Immutable, so that it can be handed to any thread.
struct StoredResponse {
    std::string headers;  // in the shell's own form
    std::string body;
    friend bool operator==(const StoredResponse&, const StoredResponse&) = default;
};

enum class KeyPhase : std::uint8_t { kAbsent, kInFlight, kDone, kUnknown };
enum class UnknownWhy : std::uint8_t { kCut, kLeasePassed, kRestart };  // stored: the values stay

struct KeyState {
    KeyPhase phase = KeyPhase::kAbsent;  // when absent, nothing else counts
    UnknownWhy why{};                    // unknown, or reexecution: what it was
    bool reexecution = false;            // in flight: the key was unknown before
    std::uint16_t status = 0;            // done
    Digest fingerprint;
    Owner owner;
    Instant claimed{};
    Instant lease_end{};  // in flight
    Instant expires{};    // never before lease_end
    // Done; null if it cannot be given again.
    std::shared_ptr<const StoredResponse> response;

    bool expired(Instant now) const { return now >= expires; }
    bool lease_passed(Instant now) const { return phase == KeyPhase::kInFlight && now >= lease_end; }
    // When lapse() or the end of the window is due. Not for an absent key.
    Instant due() const { return phase == KeyPhase::kInFlight ? lease_end : expires; }
};

// A request arrives
// ---------------------------------------------------------------------------------------------------------

struct Arrival {
    Digest fingerprint;
    OwnerToken token;   // who will own the key if this request is forwarded
    Instant arrived{};  // when it came; when it waited and asks again, still that
    Instant now{};
};

// Send it, then report exactly one of answered(), released(), cut(). Its own exchange may repeat and hedge it. No byte
// leaves at or after lease_end: by then another may have been told the same (released() instead, if none left before).
struct Forward {
    Owner owner;
    Instant lease_end{};
    bool reexecution = false;  // an earlier one may have taken effect
};
// Give the recorded answer.
struct Replay {
    std::uint16_t status = 0;
    std::shared_ptr<const StoredResponse> response;  // not null
};
// Park it; ask again with the same `arrived` when the key changes, at the latest at `until`.
struct Wait {
    Instant until{};
};
enum class ConflictWhy : std::uint8_t {
    kInFlight,           // the first one is not answered yet, and the policy says not to wait
    kWaitedTooLong,      // … and wait_timeout is over
    kDoneNotReplayable,  // done, but its answer was not kept
};
struct Conflict {  // 409
    ConflictWhy why{};
    std::uint16_t status = 0;  // kDoneNotReplayable: of the answer
};
struct Mismatch {};      // 422
struct OutcomeUnknown {  // 409: it may have taken effect or not
    UnknownWhy why{};
    Instant until{};  // the end of its window
};
// The store has no place for a new key. As with StoreFailed, the policy says whether it then goes unprotected.
struct StoreFull {
    Instant room_at{};  // when the next key expires; not before `now`
};
struct StoreFailed {};  // 503
struct Unprotected {};  // forward it as if it had no key: not recorded, not safe to repeat

using Verdict = std::variant<Forward, Replay, Wait, Conflict, Mismatch, OutcomeUnknown, StoreFull,
                             StoreFailed, Unprotected>;

// What is to be written. Nothing that follows from the step may leave the process before it is durable.
enum class Write : std::uint8_t {
    kNothing,
    kState,      // the key's new state
    kReleased,   // that this generation is void
    kForgotten,  // that the key is
};

struct ArrivalStep {
    Write write = Write::kNothing;  // kState with Forward, else kNothing
    Verdict verdict;
};

// Whether arrive() would answer Forward.
bool would_forward(const KeyState& key, const Arrival& arrival, const IdempotencyPolicy& policy);

// `next`: above every generation that any key had before.
ArrivalStep arrive(KeyState& key, const Arrival& arrival, const IdempotencyPolicy& policy, Generation next);

// When the store could not be asked, or did not make the claim durable. Never for a request that was forwarded.
Verdict verdict_without_store(OnStoreError policy);

// The owner reports
// ---------------------------------------------------------------------------------------------------------

enum class Settled : std::uint8_t {
    kRecorded,               // pass the answer on when this is durable
    kRecordedWithoutAnswer,  // … duplicates get Conflict
    kReleased,               // pass the answer or error on; the next duplicate runs
    kUnknown,                // pass the error on
    kTooLate,                // another took over, or the key is gone: nothing changed. Pass on what there is
};

struct OwnerStep {
    Write write = Write::kNothing;
    Settled settled = Settled::kTooLate;
    bool wake = false;  // requests that wait for this key ask again
};

struct Answer {
    std::uint16_t status = 0;
    // Whole; null if it is above max_response.
    std::shared_ptr<const StoredResponse> response;
};

// A whole final answer came.
OwnerStep answered(KeyState& key, const Owner& owner, Answer answer, RecordAnswers record, Instant now);
// No byte of the request left (connect refused, shed, circuit open, rate limit, claim not durable).
OwnerStep released(KeyState& key, const Owner& owner, Instant now);
// It left, and no whole answer came.
OwnerStep cut(KeyState& key, const Owner& owner, Instant now);

// Time passes, operators decide
// ---------------------------------------------------------------------------------------------------------

// In flight with its lease passed: becomes unknown, and true (wake those who wait). Nothing is written: an in-flight
// record is read as unknown anyway.
bool lapse(KeyState& key, Instant now);

enum class Forgotten : std::uint8_t {
    kForgotten,
    kAbsent,
    kInFlight,  // refused: somebody is executing it. Possible once its lease has passed
};
Forgotten forget(KeyState& key, Instant now);

}  // namespace outrider::policy
