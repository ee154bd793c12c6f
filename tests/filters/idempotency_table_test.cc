#include "filters/policy/idempotency_table.h"

#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

const Instant t0{1000s};
const ClockAnchor kAnchor{t0, {1'700'000'000'000'000}};

Digest digest_of(std::uint64_t number) {
    return key_digest({}, "test", std::to_string(number));
}

std::shared_ptr<const StoredResponse> body_of(std::size_t size) {
    return std::make_shared<const StoredResponse>(StoredResponse{"", std::string(size, 'x')});
}

struct IdempotencyTableCase : testing::Test {
    IdempotencyPolicy policy{.window = 1h, .lease = 30s};
    std::uint64_t tokens = 0;

    static TableLimits limits_for(std::uint64_t keys, std::uint64_t reserve) {
        return {.bytes_max = {keys * (IdempotencyTable::key_bytes() + reserve)}, .reserve = {reserve}};
    }
    ArrivalEffects arrive(IdempotencyTable& table, std::uint64_t key, Instant now) {
        return table.arrive(digest_of(key), {digest_of(0), {++tokens}, now, now}, policy);
    }
    Owner claim(IdempotencyTable& table, std::uint64_t key, Instant now) {
        const ArrivalEffects effects = arrive(table, key, now);
        const Forward* const forward = std::get_if<Forward>(&effects.verdict);
        EXPECT_NE(forward, nullptr) << key;
        return forward != nullptr ? forward->owner : Owner{};
    }
    Settled finish(IdempotencyTable& table, std::uint64_t key, const Owner& owner, std::size_t size,
                   Instant now) {
        return table.answered(digest_of(key), owner, {200, body_of(size)}, policy.record, now).settled;
    }
};

TEST_F(IdempotencyTableCase, AClaimIsToBePersistedAndNothingElseOfAnArrival) {
    IdempotencyTable table({}, kAnchor, 1);
    const ArrivalEffects first = arrive(table, 1, t0 + 5s);
    ASSERT_TRUE(std::holds_alternative<Forward>(first.verdict));
    ASSERT_TRUE(first.persist.has_value());
    const auto& record = std::get<InFlightRecord>(*first.persist);
    EXPECT_EQ(record.kept.key, digest_of(1));
    EXPECT_EQ(record.kept.fingerprint, digest_of(0));
    EXPECT_EQ(record.kept.generation, Generation{1});
    EXPECT_EQ(record.token, OwnerToken{1});
    EXPECT_EQ(record.kept.claimed.unix_micros, kAnchor.wall.unix_micros + 5'000'000);
    EXPECT_EQ(record.kept.expires.unix_micros, kAnchor.wall.unix_micros + 3'605'000'000);

    const ArrivalEffects second = arrive(table, 1, t0 + 6s);
    EXPECT_TRUE(std::holds_alternative<Wait>(second.verdict));
    EXPECT_FALSE(second.persist.has_value());
}

TEST_F(IdempotencyTableCase, EachOutcomeNamesItsRecord) {
    IdempotencyTable table({}, kAnchor, 1);
    const Owner done = claim(table, 1, t0);
    const Owner released = claim(table, 2, t0);
    const Owner cut = claim(table, 3, t0);

    const OwnerEffects recorded =
        table.answered(digest_of(1), done, {201, body_of(3)}, policy.record, t0 + 1s);
    EXPECT_EQ(std::get<DoneRecord>(*recorded.persist).response->body, "xxx");
    EXPECT_TRUE(recorded.wake);
    const OwnerEffects void_claim = table.released(digest_of(2), released, t0 + 1s);
    EXPECT_EQ(std::get<ReleasedRecord>(*void_claim.persist).generation, released.generation);
    const OwnerEffects unknown = table.cut(digest_of(3), cut, t0 + 1s);
    EXPECT_EQ(std::get<UnknownRecord>(*unknown.persist).why, UnknownWhy::kCut);
    const ForgetEffects forgotten = table.forget(digest_of(3), t0 + 2s);
    EXPECT_EQ(std::get<ForgottenRecord>(*forgotten.persist).key, digest_of(3));

    for (const OwnerEffects& late :
         {table.answered(digest_of(3), cut, {200, body_of(1)}, policy.record, t0),
          table.released(digest_of(2), released, t0), table.cut(digest_of(1), done, t0)}) {
        EXPECT_EQ(late.settled, Settled::kTooLate);
        EXPECT_FALSE(late.persist.has_value());
        EXPECT_FALSE(late.wake);
    }
    EXPECT_FALSE(table.forget(digest_of(9), t0).persist.has_value());
    EXPECT_EQ(table.counts().all(), 1u);
}

TEST_F(IdempotencyTableCase, GenerationsAreNotUsedAgainAfterAKeyIsGone) {
    IdempotencyTable table({}, kAnchor, 1);
    const Owner first = claim(table, 1, t0);
    table.released(digest_of(1), first, t0);
    const Owner second = claim(table, 1, t0);
    EXPECT_GT(second.generation, first.generation);
    table.cut(digest_of(1), second, t0);
    table.forget(digest_of(1), t0);
    const Owner third = claim(table, 1, t0);
    EXPECT_GT(third.generation, second.generation);
    EXPECT_EQ(finish(table, 1, {third.token, second.generation}, 1, t0), Settled::kTooLate);
    EXPECT_EQ(finish(table, 1, third, 1, t0), Settled::kRecorded);
}

TEST_F(IdempotencyTableCase, CountsByState) {
    IdempotencyTable table({}, kAnchor, 1);
    claim(table, 1, t0);
    finish(table, 2, claim(table, 2, t0), 1, t0);
    finish(table, 3, claim(table, 3, t0), 1, t0);
    table.cut(digest_of(4), claim(table, 4, t0), t0);
    table.released(digest_of(5), claim(table, 5, t0), t0);
    EXPECT_EQ(table.counts().in_flight, 1u);
    EXPECT_EQ(table.counts().done, 2u);
    EXPECT_EQ(table.counts().unknown, 1u);
    table.advance(t0 + 30s, 100);
    EXPECT_EQ(table.counts().in_flight, 0u);
    EXPECT_EQ(table.counts().unknown, 2u);
    table.advance(t0 + 1h, 100);
    EXPECT_EQ(table.counts().all(), 0u);
    EXPECT_EQ(table.bytes(), 0u);
}

TEST_F(IdempotencyTableCase, AdvanceNamesPassedLeasesAndDropsWhatIsExpiredInTheOrderOfTime) {
    IdempotencyTable table({}, kAnchor, 1);
    EXPECT_EQ(table.next_due(), std::nullopt);
    claim(table, 1, t0);
    claim(table, 2, t0 + 1s);
    EXPECT_EQ(table.next_due(), t0 + 30s);
    EXPECT_THAT(table.advance(t0 + 30s - 1ns, 100).lapsed, IsEmpty());
    EXPECT_THAT(table.advance(t0 + 30s, 100).lapsed, ElementsAre(digest_of(1)));
    EXPECT_EQ(table.next_due(), t0 + 31s);
    EXPECT_THAT(table.advance(t0 + 40s, 100).lapsed, ElementsAre(digest_of(2)));
    EXPECT_EQ(table.next_due(), t0 + 1h);
    EXPECT_EQ(table.advance(t0 + 1h, 100).expired, 1u);
    EXPECT_EQ(table.find(digest_of(1)), nullptr);
    EXPECT_NE(table.find(digest_of(2)), nullptr);
    EXPECT_EQ(table.advance(t0 + 2h, 100).expired, 1u);
    EXPECT_EQ(table.next_due(), std::nullopt);
}

TEST_F(IdempotencyTableCase, AdvanceStopsAfterItsStepsAndIsDueAtOnce) {
    IdempotencyTable table({}, kAnchor, 1);
    for (std::uint64_t key = 0; key < 10; ++key) {
        finish(table, key, claim(table, key, t0), 1, t0);
    }
    EXPECT_EQ(table.advance(t0 + 2h, 4).expired, 4u);
    EXPECT_LE(*table.next_due(), t0 + 2h);
    EXPECT_EQ(table.advance(t0 + 2h, 4).expired, 4u);
    EXPECT_EQ(table.advance(t0 + 2h, 4).expired, 2u);
}

TEST_F(IdempotencyTableCase, KeysOfShortAndLongWindowsExpireEachInTheirTime) {
    IdempotencyTable table({}, kAnchor, 1);
    Random random{5};
    std::map<std::uint64_t, Instant> expected;
    for (std::uint64_t key = 0; key < 2000; ++key) {
        policy.window = 40s + std::chrono::seconds(random.below(1000));
        finish(table, key, claim(table, key, t0), 1, t0);
        expected[key] = t0 + policy.window;
        if (key % 3 == 0) {
            table.forget(digest_of(key), t0);
            expected.erase(key);
        }
    }
    for (Instant now = t0; !expected.empty(); now += 7s) {
        table.advance(now, 5000);
        for (auto it = expected.begin(); it != expected.end();) {
            ASSERT_EQ(table.find(digest_of(it->first)) == nullptr, it->second <= now);
            it = it->second <= now ? expected.erase(it) : std::next(it);
        }
        ASSERT_EQ(table.counts().all(), expected.size());
    }
}

// Bounds
// ---------------------------------------------------------------------------------------------------------

TEST_F(IdempotencyTableCase, AtItsBoundNewKeysAreRefusedAndKnownOnesAreServed) {
    IdempotencyTable table(limits_for(2, 1000), kAnchor, 1);
    const Owner first = claim(table, 1, t0);
    claim(table, 2, t0 + 1s);
    const ArrivalEffects refused = arrive(table, 3, t0 + 2s);
    EXPECT_EQ(std::get<StoreFull>(refused.verdict).room_at, t0 + 30s);
    EXPECT_FALSE(refused.persist.has_value());
    EXPECT_EQ(table.find(digest_of(3)), nullptr);
    EXPECT_TRUE(std::holds_alternative<Wait>(arrive(table, 1, t0 + 2s).verdict));
    EXPECT_EQ(finish(table, 1, first, 600, t0 + 3s), Settled::kRecorded);
    EXPECT_TRUE(std::holds_alternative<Replay>(arrive(table, 1, t0 + 4s).verdict));
    EXPECT_TRUE(std::holds_alternative<StoreFull>(arrive(table, 3, t0 + 5s).verdict));
}

TEST_F(IdempotencyTableCase, AtItsBoundWhatIsExpiredGoesFirstAndNothingElse) {
    IdempotencyTable table(limits_for(3, 1000), kAnchor, 1);
    finish(table, 1, claim(table, 1, t0), 800, t0);
    finish(table, 2, claim(table, 2, t0 + 1s), 800, t0 + 1s);
    const Owner live = claim(table, 3, t0 + 1h - 10s);
    EXPECT_TRUE(std::holds_alternative<StoreFull>(arrive(table, 4, t0 + 1h - 1ns).verdict));
    EXPECT_TRUE(std::holds_alternative<Forward>(arrive(table, 4, t0 + 1h).verdict));
    EXPECT_EQ(table.find(digest_of(1)), nullptr);
    EXPECT_NE(table.find(digest_of(2)), nullptr);
    EXPECT_NE(table.find(digest_of(3)), nullptr);
    EXPECT_EQ(finish(table, 3, live, 800, t0 + 1h), Settled::kRecorded);
}

TEST_F(IdempotencyTableCase, MakingRoomForgetsNoPassedLease) {
    IdempotencyTable table(limits_for(1, 1000), kAnchor, 1);
    claim(table, 1, t0);
    // The reserve of 1 goes with its lease, but its key stays: there is no room for 2.
    EXPECT_TRUE(std::holds_alternative<StoreFull>(arrive(table, 2, t0 + 30s).verdict));
    EXPECT_EQ(table.counts().unknown, 1u);
    EXPECT_LE(*table.next_due(), t0 + 30s);
    EXPECT_THAT(table.advance(t0 + 30s, 100).lapsed, ElementsAre(digest_of(1)));
    EXPECT_EQ(*table.next_due(), t0 + 1h);
}

TEST_F(IdempotencyTableCase, AnAnswerWithoutRoomIsNotKeptButItsKeyIs) {
    IdempotencyTable table(limits_for(2, 1000), kAnchor, 1);
    const Owner first = claim(table, 1, t0);
    const Owner second = claim(table, 2, t0);
    const OwnerEffects effects = table.answered(digest_of(1), first, {200, body_of(2000)}, policy.record, t0);
    EXPECT_EQ(effects.settled, Settled::kRecordedWithoutAnswer);
    EXPECT_EQ(std::get<DoneRecord>(*effects.persist).response, nullptr);
    EXPECT_EQ(std::get<Conflict>(arrive(table, 1, t0).verdict).why, ConflictWhy::kDoneNotReplayable);
    // What the first did not need is there for the second.
    EXPECT_EQ(finish(table, 2, second, 1500, t0), Settled::kRecorded);
}

TEST_F(IdempotencyTableCase, AReexecutionNeedsRoomForItsAnswerToo) {
    policy.on_unknown = OnUnknown::kReexecute;
    IdempotencyTable table(limits_for(2, 1000), kAnchor, 1);
    table.cut(digest_of(1), claim(table, 1, t0), t0);
    finish(table, 2, claim(table, 2, t0), 1500, t0);
    EXPECT_TRUE(std::holds_alternative<StoreFull>(arrive(table, 1, t0 + 1s).verdict));
    EXPECT_EQ(table.find(digest_of(1))->phase, KeyPhase::kUnknown);
    table.forget(digest_of(2), t0 + 2s);
    EXPECT_TRUE(std::get<Forward>(arrive(table, 1, t0 + 3s).verdict).reexecution);
}

TEST_F(IdempotencyTableCase, BytesStayWithinTheBoundWhateverComes) {
    const TableLimits limits = limits_for(40, 500);
    IdempotencyTable table(limits, kAnchor, 1);
    Random random{11};
    std::vector<std::pair<std::uint64_t, Owner>> owners;
    Instant now = t0;
    std::size_t full = 0;
    policy.window = 60s;
    for (int step = 0; step < 50'000; ++step) {
        now += std::chrono::milliseconds(random.below(200));
        const std::uint64_t key = random.below(200);
        const ArrivalEffects effects = arrive(table, key, now);
        if (const Forward* forward = std::get_if<Forward>(&effects.verdict)) {
            owners.emplace_back(key, forward->owner);
        }
        full += std::holds_alternative<StoreFull>(effects.verdict);
        if (!owners.empty() && random.below(3) > 0) {
            const std::size_t pick = random.below(owners.size());
            const auto [owned, owner] = owners[pick];
            owners.erase(owners.begin() + static_cast<std::ptrdiff_t>(pick));
            if (random.below(4) == 0) {
                table.released(digest_of(owned), owner, now);
            } else {
                finish(table, owned, owner, random.below(2000), now);
            }
        }
        if (random.below(10) == 0) table.advance(now, 2);
        ASSERT_LE(table.bytes(), limits.bytes_max.value);
    }
    EXPECT_GT(full, 1000u);
    table.advance(now + 1h, 1000);
    EXPECT_EQ(table.bytes(), 0u);
}

// The log
// ---------------------------------------------------------------------------------------------------------

TEST_F(IdempotencyTableCase, TheOldestPositionIsOfTheOldestKeyThatIsStillNeeded) {
    IdempotencyTable table({}, kAnchor, 1);
    const auto oldest = [&] { return table.oldest() ? table.oldest()->position : 0; };
    EXPECT_EQ(table.oldest(), std::nullopt);
    const Owner a = claim(table, 1, t0);
    const Owner b = claim(table, 2, t0);
    EXPECT_EQ(oldest(), 0u);
    table.located(digest_of(1), a.generation, 10);
    table.located(digest_of(2), b.generation, 20);
    EXPECT_EQ(oldest(), 10u);
    EXPECT_EQ(table.oldest()->key, digest_of(1));
    // The claim is needed until the answer is durable too.
    finish(table, 1, a, 1, t0);
    EXPECT_EQ(oldest(), 10u);
    table.located(digest_of(1), a.generation, 30);
    EXPECT_EQ(oldest(), 20u);
    table.released(digest_of(2), b, t0);
    EXPECT_EQ(oldest(), 30u);
    // Of a key that has gone on since.
    table.located(digest_of(2), b.generation, 40);
    table.located(digest_of(1), {77}, 50);
    EXPECT_EQ(oldest(), 30u);
    table.advance(t0 + 1h, 10);
    EXPECT_EQ(table.oldest(), std::nullopt);
}

TEST_F(IdempotencyTableCase, KeysAreVisitedFromTheOldestPositionOn) {
    IdempotencyTable table({}, kAnchor, 1);
    for (std::uint64_t key = 1; key <= 4; ++key) {
        const Owner owner = claim(table, key, t0);
        if (key != 3) table.located(digest_of(key), owner.generation, key * 10);  // 3 is not in the log yet
        if (key == 1) {
            finish(table, key, owner, 1, t0);
            table.located(digest_of(key), owner.generation, 15);
        }
    }
    std::vector<Digest> visited;
    table.visit_oldest([&](const Digest& key, const KeyState& state) {
        EXPECT_EQ(state.phase, visited.empty() ? KeyPhase::kDone : KeyPhase::kInFlight);
        visited.push_back(key);
        return visited.size() < 2;
    });
    EXPECT_EQ(visited, (std::vector<Digest>{digest_of(1), digest_of(2)}));
}

TEST_F(IdempotencyTableCase, OfAReexecutedKeyTheOldRecordIsNeededUntilTheNewClaimIsDurable) {
    policy.on_unknown = OnUnknown::kReexecute;
    IdempotencyTable table({}, kAnchor, 1);
    const Owner first = claim(table, 1, t0);
    table.located(digest_of(1), first.generation, 10);
    table.cut(digest_of(1), first, t0);
    const Owner second = claim(table, 1, t0);
    table.located(digest_of(1), first.generation, 20);  // the cut, late
    EXPECT_EQ(table.oldest()->position, 10u);
    table.located(digest_of(1), second.generation, 30);
    EXPECT_EQ(table.oldest()->position, 30u);
}

TEST_F(IdempotencyTableCase, ARestartRebuildsTheTableFromTheLog) {
    policy.on_unknown = OnUnknown::kReexecute;
    IdempotencyTable before({}, kAnchor, 1);
    std::vector<Record> log;
    const auto keep = [&](const auto& effects) {
        if (effects.persist) log.push_back(*effects.persist);
    };
    std::map<std::uint64_t, Owner> owners;
    for (std::uint64_t key = 1; key <= 6; ++key) {
        const ArrivalEffects effects = arrive(before, key, t0);
        owners[key] = std::get<Forward>(effects.verdict).owner;
        keep(effects);
    }
    keep(before.answered(digest_of(1), owners[1], {201, body_of(5)}, policy.record, t0));
    keep(before.answered(digest_of(2), owners[2], {202, nullptr}, policy.record, t0));
    keep(before.released(digest_of(3), owners[3], t0));
    keep(before.cut(digest_of(4), owners[4], t0));
    keep(before.cut(digest_of(5), owners[5], t0));
    keep(before.forget(digest_of(5), t0));
    keep(arrive(before, 4, t0 + 1s));  // re-executed; 6 stays in flight

    const Instant later{7s};
    const ClockAnchor anchor{later, {kAnchor.wall.unix_micros + 60'000'000}};
    IdempotencyTable after({}, anchor, 2);
    for (std::size_t i = 0; i < log.size(); ++i) {
        after.recover(log[i], 100 + i, later);
    }
    EXPECT_EQ(after.counts().done, 2u);
    EXPECT_EQ(after.counts().unknown, 2u);
    EXPECT_EQ(after.counts().in_flight, 0u);
    EXPECT_EQ(after.oldest()->position, 105u);  // the claim of 6
    EXPECT_EQ(std::get<Replay>(arrive(after, 1, later).verdict).response->body, "xxxxx");
    EXPECT_EQ(std::get<Conflict>(arrive(after, 2, later).verdict).status, 202);
    policy.on_unknown = OnUnknown::kReject;
    EXPECT_EQ(std::get<OutcomeUnknown>(arrive(after, 4, later).verdict).why, UnknownWhy::kRestart);
    EXPECT_EQ(std::get<OutcomeUnknown>(arrive(after, 6, later).verdict).why, UnknownWhy::kRestart);
    const Forward fresh = std::get<Forward>(arrive(after, 3, later).verdict);
    EXPECT_EQ(fresh.owner.generation, Generation{8});
    EXPECT_TRUE(std::holds_alternative<Forward>(arrive(after, 5, later).verdict));
}

TEST_F(IdempotencyTableCase, RecoveryDropsWhatIsExpiredAndTakesMoreThanTheBound) {
    IdempotencyTable before({}, kAnchor, 1);
    std::vector<Record> log;
    for (std::uint64_t key = 0; key < 20; ++key) {
        const Instant now = t0 + std::chrono::minutes(key);
        log.push_back(
            *before.answered(digest_of(key), claim(before, key, now), {200, body_of(1)}, policy.record, now)
                 .persist);
    }
    const TableLimits small = limits_for(5, 0);
    const Instant now = t0 + 1h + 9min;  // ten windows are over
    IdempotencyTable after(small, kAnchor, 1);
    for (std::size_t i = 0; i < log.size(); ++i) {
        after.recover(log[i], i, now);
    }
    EXPECT_EQ(after.counts().done, 10u);
    EXPECT_EQ(after.oldest()->position, 10u);
    EXPECT_GT(after.bytes(), small.bytes_max.value);
    EXPECT_TRUE(std::holds_alternative<StoreFull>(arrive(after, 99, now).verdict));
    EXPECT_TRUE(std::holds_alternative<Replay>(arrive(after, 15, now).verdict));
    EXPECT_TRUE(std::holds_alternative<Forward>(arrive(after, 99, now + 9min).verdict));
}

TEST_F(IdempotencyTableCase, AnExpiredRecordVoidsWhatTheLogSaidBefore) {
    IdempotencyTable before({}, kAnchor, 1);
    policy.window = 2h;
    const ArrivalEffects long_claim = arrive(before, 1, t0);
    const Owner owner = std::get<Forward>(long_claim.verdict).owner;
    before.released(digest_of(1), owner, t0);
    policy.window = 1min;
    const ArrivalEffects short_claim = arrive(before, 1, t0);

    const Instant now = t0 + 10min;
    IdempotencyTable after({}, kAnchor, 1);
    after.recover(*long_claim.persist, 1, now);
    after.recover(*short_claim.persist, 2, now);
    EXPECT_EQ(after.find(digest_of(1)), nullptr);
    // A release of a claim that another followed.
    after.recover(*arrive(before, 2, now).persist, 3, now);
    after.recover(ReleasedRecord{digest_of(2), {1}}, 4, now);
    EXPECT_EQ(after.find(digest_of(2))->phase, KeyPhase::kUnknown);
}

}  // namespace
}  // namespace outrider::policy
