// The state machine of one key: a test for each row of the contract's table, each policy value included.
#include "filters/policy/idempotency.h"

#include <string>
#include <utility>

#include <gtest/gtest.h>

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

const Instant t0{1000s};

Digest digest_of(std::uint8_t byte) {
    Digest digest;
    digest.bytes.fill(byte);
    return digest;
}

std::string name(UnknownWhy why) {
    switch (why) {
        case UnknownWhy::kCut:
            return "cut";
        case UnknownWhy::kLeasePassed:
            return "lease";
        case UnknownWhy::kRestart:
            return "restart";
    }
    return "?";
}

struct Namer {
    std::string operator()(const Forward& f) const {
        return (f.reexecution ? "reexecute " : "forward ") + std::to_string(f.owner.generation.value);
    }
    std::string operator()(const Replay& r) const {
        return "replay " + std::to_string(r.status) + " " + r.response->body;
    }
    std::string operator()(const Wait& w) const { return "wait " + std::to_string(millis_of(w.until - t0)); }
    std::string operator()(const Conflict& c) const {
        switch (c.why) {
            case ConflictWhy::kInFlight:
                return "409 in flight";
            case ConflictWhy::kWaitedTooLong:
                return "409 waited too long";
            case ConflictWhy::kDoneNotReplayable:
                return "409 done " + std::to_string(c.status);
        }
        return "?";
    }
    std::string operator()(const Mismatch&) const { return "422"; }
    std::string operator()(const OutcomeUnknown& u) const { return "409 unknown: " + name(u.why); }
    std::string operator()(const StoreFull&) const { return "full"; }
    std::string operator()(const StoreFailed&) const { return "503"; }
    std::string operator()(const Unprotected&) const { return "unprotected"; }
};

// One key, driven like a script; each request is a new exchange with its own token.
struct IdempotencyCase : testing::Test {
    IdempotencyPolicy policy{.window = 1h,
                             .lease = 30s,
                             .in_flight = InFlightPolicy::kWait,
                             .wait_timeout = 10s,
                             .on_unknown = OnUnknown::kReject,
                             .record = RecordAnswers::kAll};
    KeyState key;
    std::uint64_t arrivals = 0;
    Owner owner;  // of the last Forward
    Write written = Write::kNothing;

    std::string arrive_since(Duration came, Duration now, std::uint8_t payload = 1) {
        const Arrival arrival{digest_of(payload), {100 + ++arrivals}, t0 + came, t0 + now};
        const bool forwards = would_forward(key, arrival, policy);
        const ArrivalStep step = arrive(key, arrival, policy, {arrivals});
        const Forward* const forward = std::get_if<Forward>(&step.verdict);
        EXPECT_EQ(forwards, forward != nullptr);
        EXPECT_EQ(step.write, forwards ? Write::kState : Write::kNothing);
        if (forward != nullptr) {
            owner = forward->owner;
            EXPECT_EQ(key.phase, KeyPhase::kInFlight);
            EXPECT_EQ(key.owner, owner);
            EXPECT_EQ(forward->lease_end, arrival.now + policy.lease);
        }
        return std::visit(Namer{}, step.verdict);
    }
    std::string arrive_at(Duration now, std::uint8_t payload = 1) { return arrive_since(now, now, payload); }

    std::string settled(const OwnerStep& step) {
        written = step.write;
        EXPECT_EQ(step.wake, step.settled != Settled::kTooLate);
        switch (step.settled) {
            case Settled::kRecorded:
                return "recorded";
            case Settled::kRecordedWithoutAnswer:
                return "recorded without answer";
            case Settled::kReleased:
                return "released";
            case Settled::kUnknown:
                return "unknown";
            case Settled::kTooLate:
                EXPECT_EQ(step.write, Write::kNothing);
                return "too late";
        }
        return "?";
    }
    std::string answer(const Owner& who, Duration now, std::uint16_t status, std::string body) {
        auto response = std::make_shared<const StoredResponse>(StoredResponse{"h", std::move(body)});
        return settled(answered(key, who, {status, std::move(response)}, policy.record, t0 + now));
    }
    std::string answer_too_large(const Owner& who, Duration now, std::uint16_t status) {
        return settled(answered(key, who, {status, nullptr}, policy.record, t0 + now));
    }
    std::string release(const Owner& who, Duration now) { return settled(released(key, who, t0 + now)); }
    std::string cut_at(const Owner& who, Duration now) { return settled(cut(key, who, t0 + now)); }
};

// "first use | forwarded; response recorded, then sent"
TEST_F(IdempotencyCase, TheFirstUseIsForwardedOnceItsClaimIsWritten) {
    EXPECT_EQ(arrive_at(0s), "forward 1");
    EXPECT_EQ(owner, (Owner{{101}, {1}}));
    EXPECT_EQ(answer(owner, 1s, 201, "made"), "recorded");
    EXPECT_EQ(written, Write::kState);
    EXPECT_EQ(key.phase, KeyPhase::kDone);
}

// "same key and fingerprint, done | recorded status, headers, body"
TEST_F(IdempotencyCase, ADoneKeyIsReplayedUntilItsWindowIsOver) {
    arrive_at(0s);
    answer(owner, 1s, 201, "made");
    EXPECT_EQ(arrive_at(1s), "replay 201 made");
    EXPECT_EQ(arrive_at(1h - 1ns), "replay 201 made");
    EXPECT_EQ(arrive_at(1h), "forward 4");
}

// "5xx from the application are recorded like any other answer"
TEST_F(IdempotencyCase, EveryStatusIsRecordedByDefault) {
    for (const std::uint16_t status : {200, 204, 302, 400, 404, 429, 499, 500, 503, 599}) {
        key = {};
        arrive_at(0s);
        EXPECT_EQ(answer(owner, 1s, status, "x"), "recorded") << status;
        EXPECT_EQ(arrive_at(2s), "replay " + std::to_string(status) + " x");
    }
}

// "… unless record = "2xx-4xx""
TEST_F(IdempotencyCase, WithBelow500AServerErrorReleasesTheKey) {
    policy.record = RecordAnswers::kBelow500;
    arrive_at(0s);
    EXPECT_EQ(answer(owner, 1s, 500, "broken"), "released");
    EXPECT_EQ(written, Write::kReleased);
    EXPECT_EQ(arrive_at(2s), "forward 2");
    EXPECT_EQ(answer_too_large(owner, 3s, 503), "released");
    EXPECT_EQ(arrive_at(4s), "forward 3");
    EXPECT_EQ(answer(owner, 5s, 499, "no"), "recorded");
    EXPECT_EQ(arrive_at(6s), "replay 499 no");
}

// "same key, other fingerprint | 422"
TEST_F(IdempotencyCase, AnotherPayloadIsAMismatchInEveryState) {
    arrive_at(0s, 1);
    EXPECT_EQ(arrive_at(1s, 2), "422");
    const KeyState in_flight = key;

    answer(owner, 2s, 200, "x");
    EXPECT_EQ(arrive_at(3s, 2), "422");

    key = in_flight;
    answer_too_large(owner, 2s, 200);
    EXPECT_EQ(arrive_at(3s, 2), "422");

    for (const OnUnknown on_unknown : {OnUnknown::kReject, OnUnknown::kReexecute}) {
        policy.on_unknown = on_unknown;
        key = in_flight;
        EXPECT_EQ(arrive_at(31s, 2), "422");
        cut_at(owner, 2s);
        EXPECT_EQ(arrive_at(3s, 2), "422");
    }
    EXPECT_EQ(arrive_at(1h, 2).substr(0, 7), "forward");
}

// "same key in flight, wait | parked on a request waiting list; gets the same answer; 409 after wait_timeout"
TEST_F(IdempotencyCase, ADuplicateInFlightWaits) {
    arrive_at(0s);
    EXPECT_EQ(arrive_at(1s), "wait 11000");
    EXPECT_EQ(arrive_since(1s, 5s), "wait 11000");
    answer(owner, 6s, 200, "x");
    EXPECT_EQ(arrive_since(1s, 6s), "replay 200 x");
}

TEST_F(IdempotencyCase, ADuplicateThatWaitedTooLongIsAConflict) {
    arrive_at(0s);
    EXPECT_EQ(arrive_since(1s, 11s - 1ns), "wait 11000");
    EXPECT_EQ(arrive_since(1s, 11s), "409 waited too long");
    policy.wait_timeout = 0s;
    EXPECT_EQ(arrive_at(12s), "409 waited too long");
}

// "same key in flight, conflict | 409"
TEST_F(IdempotencyCase, ADuplicateInFlightIsAConflictWhenThePolicySaysSo) {
    policy.in_flight = InFlightPolicy::kConflict;
    arrive_at(0s);
    EXPECT_EQ(arrive_at(1s), "409 in flight");
    answer(owner, 6s, 200, "x");
    EXPECT_EQ(arrive_at(7s), "replay 200 x");
}

// "the first attempt never left | key released, error passed on, not recorded"
TEST_F(IdempotencyCase, ARequestThatNeverLeftReleasesItsKey) {
    arrive_at(0s);
    EXPECT_EQ(release(owner, 1s), "released");
    EXPECT_EQ(written, Write::kReleased);
    EXPECT_EQ(key.phase, KeyPhase::kAbsent);
    // Whoever waited asks again: the first runs, with any payload, and the next waits for it.
    EXPECT_EQ(arrive_since(0s, 1s, 2), "forward 2");
    EXPECT_EQ(arrive_since(0s, 1s, 2), "wait 10000");
}

// "outcome unknown (cut after the request left …) | reject = 409 until the key's window … ends"
TEST_F(IdempotencyCase, AnUnknownOutcomeIsRejectedUntilTheWindowIsOver) {
    arrive_at(0s);
    EXPECT_EQ(cut_at(owner, 1s), "unknown");
    EXPECT_EQ(written, Write::kState);
    EXPECT_EQ(arrive_at(2s), "409 unknown: cut");
    EXPECT_EQ(arrive_at(1h - 1ns), "409 unknown: cut");
    EXPECT_EQ(arrive_at(1h), "forward 4");
}

// "… or an operator's decision ends"
TEST_F(IdempotencyCase, AnOperatorMayForgetAnythingButWhatIsInFlight) {
    EXPECT_EQ(forget(key, t0), Forgotten::kAbsent);
    arrive_at(0s);
    EXPECT_EQ(forget(key, t0 + 1s), Forgotten::kInFlight);
    EXPECT_EQ(arrive_at(2s), "wait 12000");
    cut_at(owner, 3s);
    EXPECT_EQ(forget(key, t0 + 4s), Forgotten::kForgotten);
    EXPECT_EQ(arrive_at(5s), "forward 3");
    answer(owner, 6s, 200, "x");
    EXPECT_EQ(forget(key, t0 + 7s), Forgotten::kForgotten);
    EXPECT_EQ(arrive_at(8s), "forward 4");
    EXPECT_EQ(forget(key, t0 + 38s - 1ns), Forgotten::kInFlight);
    EXPECT_EQ(forget(key, t0 + 38s), Forgotten::kForgotten);
    EXPECT_EQ(arrive_at(39s), "forward 5");
    answer(owner, 40s, 200, "x");
    EXPECT_EQ(forget(key, t0 + 39s + 1h), Forgotten::kAbsent);
}

// "… reexecute = the next duplicate runs"
TEST_F(IdempotencyCase, WithReexecuteTheNextDuplicateRuns) {
    policy.on_unknown = OnUnknown::kReexecute;
    arrive_at(0s);
    cut_at(owner, 1s);
    EXPECT_EQ(arrive_at(2s), "reexecute 2");
    EXPECT_EQ(arrive_at(3s), "wait 13000");
    EXPECT_EQ(answer(owner, 4s, 200, "second"), "recorded");
    EXPECT_EQ(arrive_at(5s), "replay 200 second");
    EXPECT_EQ(key.expires, t0 + 2s + 1h);
}

TEST_F(IdempotencyCase, AReexecutionThatNeverLeftIsUnknownAgain) {
    policy.on_unknown = OnUnknown::kReexecute;
    arrive_at(0s);
    cut_at(owner, 1s);
    arrive_at(2s);
    EXPECT_EQ(release(owner, 3s), "released");
    EXPECT_EQ(written, Write::kNothing);
    EXPECT_EQ(arrive_at(4s), "reexecute 3");
    release(owner, 5s);
    policy.on_unknown = OnUnknown::kReject;
    EXPECT_EQ(arrive_at(6s), "409 unknown: cut");
}

TEST_F(IdempotencyCase, WhenItsLeaseHasPassedAKeyIsUnknown) {
    arrive_at(0s);
    EXPECT_EQ(arrive_at(30s - 1ns), "wait 39999");
    EXPECT_EQ(arrive_at(30s), "409 unknown: lease");
    EXPECT_FALSE(lapse(key, t0 + 30s - 1ns));
    EXPECT_TRUE(lapse(key, t0 + 30s));
    EXPECT_FALSE(lapse(key, t0 + 30s));
    EXPECT_EQ(key.phase, KeyPhase::kUnknown);
    EXPECT_EQ(arrive_at(30s), "409 unknown: lease");
    policy.on_unknown = OnUnknown::kReexecute;
    EXPECT_EQ(arrive_at(30s), "reexecute 5");
}

// "a late owner whose lease has passed cannot overwrite (generation compare)"
TEST_F(IdempotencyCase, ALateOwnerCannotOverwrite) {
    policy.on_unknown = OnUnknown::kReexecute;
    arrive_at(0s);
    const Owner late = owner;
    EXPECT_EQ(arrive_at(30s), "reexecute 2");
    EXPECT_EQ(answer(late, 31s, 200, "late"), "too late");
    EXPECT_EQ(release(late, 31s), "too late");
    EXPECT_EQ(cut_at(late, 31s), "too late");
    EXPECT_EQ(arrive_at(32s), "wait 42000");
    EXPECT_EQ(answer(owner, 33s, 200, "second"), "recorded");
    EXPECT_EQ(answer(late, 34s, 200, "late"), "too late");
    EXPECT_EQ(arrive_at(35s), "replay 200 second");
}

TEST_F(IdempotencyCase, ALateOwnerOfAForgottenOrExpiredKeyChangesNothing) {
    arrive_at(0s);
    const Owner late = owner;
    forget(key, t0 + 30s);
    EXPECT_EQ(answer(late, 31s, 200, "late"), "too late");
    EXPECT_EQ(arrive_at(32s), "forward 2");
    EXPECT_EQ(answer(late, 33s, 200, "late"), "too late");
    EXPECT_EQ(arrive_at(33s), "wait 43000");
    EXPECT_EQ(answer(owner, 32s + 1h, 200, "x"), "too late");
}

// Nobody took over, so nobody is overwritten, and what was unknown is known after all.
TEST_F(IdempotencyCase, ALateOwnerWhomNobodyFollowedSettlesItsKey) {
    for (const bool lapsed : {false, true}) {
        key = {};
        arrive_at(0s);
        const KeyState in_flight = key;
        if (lapsed) lapse(key, t0 + 30s);
        EXPECT_EQ(arrive_at(31s), "409 unknown: lease");
        EXPECT_EQ(answer(owner, 32s, 200, "late"), "recorded");
        EXPECT_EQ(arrive_at(33s), "replay 200 late");

        key = in_flight;
        if (lapsed) lapse(key, t0 + 30s);
        EXPECT_EQ(release(owner, 32s), "released");
        EXPECT_EQ(arrive_at(33s).substr(0, 7), "forward");
    }
}

TEST_F(IdempotencyCase, AnotherTokenOrGenerationIsNotTheOwner) {
    arrive_at(0s);
    for (const Owner& other : {Owner{owner.token, {owner.generation.value + 1}},
                               Owner{{owner.token.value + 1}, owner.generation}, Owner{}}) {
        EXPECT_EQ(answer(other, 1s, 200, "x"), "too late");
        EXPECT_EQ(release(other, 1s), "too late");
        EXPECT_EQ(cut_at(other, 1s), "too late");
    }
    EXPECT_EQ(arrive_at(2s), "wait 12000");
}

TEST_F(IdempotencyCase, WhatIsDoneStaysAsItIs) {
    arrive_at(0s);
    answer(owner, 1s, 200, "x");
    EXPECT_EQ(answer(owner, 2s, 500, "y"), "too late");
    EXPECT_EQ(release(owner, 2s), "too late");
    EXPECT_EQ(cut_at(owner, 2s), "too late");
    EXPECT_EQ(arrive_at(3s), "replay 200 x");
}

// "response above max_response | streamed; duplicates get 409 with a problem saying it was done"
TEST_F(IdempotencyCase, AnAnswerThatIsTooLargeIsDoneButNotReplayable) {
    arrive_at(0s);
    EXPECT_EQ(answer_too_large(owner, 1s, 207), "recorded without answer");
    EXPECT_EQ(written, Write::kState);
    EXPECT_EQ(arrive_at(2s), "409 done 207");
    policy.on_unknown = OnUnknown::kReexecute;
    EXPECT_EQ(arrive_at(1h - 1ns), "409 done 207");
    EXPECT_EQ(arrive_at(1h), "forward 4");
}

// "store down | on_store_error"
TEST_F(IdempotencyCase, WithoutAStoreThePolicyDecides) {
    EXPECT_EQ(std::visit(Namer{}, verdict_without_store(OnStoreError::kReject)), "503");
    EXPECT_EQ(std::visit(Namer{}, verdict_without_store(OnStoreError::kForward)), "unprotected");
}

TEST_F(IdempotencyCase, AKeyNeverExpiresInFlight) {
    policy.window = 5s;
    arrive_at(0s);
    EXPECT_EQ(key.expires, key.lease_end);
    EXPECT_EQ(arrive_at(29s), "wait 39000");
    answer(owner, 29s, 200, "x");
    EXPECT_EQ(arrive_at(30s - 1ns), "replay 200 x");
    EXPECT_EQ(arrive_at(30s), "forward 4");
}

}  // namespace
}  // namespace outrider::policy
