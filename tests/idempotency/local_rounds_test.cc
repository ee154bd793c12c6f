// One round at a time, without a disk: what is answered, what is to be written, and what becomes of it when it cannot be.
#include "idempotency/local_rounds.h"

#include <gtest/gtest.h>

namespace outrider::idempotency {
namespace {
using namespace std::chrono_literals;
using policy::Conflict;
using policy::ConflictWhy;
using policy::Forward;
using policy::OutcomeUnknown;
using policy::Replay;
using policy::Settled;
using policy::StoreFailed;
using policy::Verdict;

constexpr Instant kStart{1000s};

policy::Digest digest(int number) {
    return policy::key_digest({}, "rounds", std::to_string(number));
}

std::shared_ptr<const policy::StoredResponse> response(std::string body) {
    return std::make_shared<const policy::StoredResponse>(
        policy::StoredResponse{"h: v\r\n", std::move(body)});
}

class LocalRoundsTest : public testing::Test {
  protected:
    RoundLimits limits_{.waiting_max = 3};
    LocalRounds rounds_{limits_, policy::ClockAnchor{kStart, {1'700'000'000'000'000}}, 7};
    policy::IdempotencyPolicy policy_{.window = 60s, .lease = 5s, .wait_timeout = 10s};
    Instant now_ = kStart;
    std::uint64_t position_ = 1;
    std::vector<Reply> replies_;

    void ask(std::uint32_t slot, int key, std::uint32_t client = 1) {
        rounds_.apply({{client, slot}, Ask{digest(key), digest(1000), policy_, {slot + 1}, now_}});
    }
    void tell(std::uint32_t slot, int key, const policy::Owner& owner, Report report) {
        rounds_.apply({{1, slot}, Tell{digest(key), owner, std::move(report)}});
    }
    void commit() {
        const std::size_t count = rounds_.records().size();
        rounds_.committed(position_);
        position_ += count;
        take();
    }
    void fail(bool maybe_written = false) {
        rounds_.failed(maybe_written);
        take();
    }
    void take() {
        replies_.clear();
        rounds_.take_replies(replies_);
    }
    const Reply* reply_to(std::uint32_t slot, std::uint32_t client = 1) {
        for (const Reply& reply : replies_)
            if (reply.ticket == Ticket{client, slot}) return &reply;
        return nullptr;
    }
    // Null: no reply, or another verdict.
    template <typename V>
    const V* verdict(std::uint32_t slot, std::uint32_t client = 1) {
        const Reply* reply = reply_to(slot, client);
        if (reply == nullptr) return nullptr;
        const auto* verdict = std::get_if<Verdict>(&reply->what);
        return verdict != nullptr ? std::get_if<V>(verdict) : nullptr;
    }
    policy::Owner claim(std::uint32_t slot, int key) {
        rounds_.begin(now_);
        ask(slot, key);
        commit();
        const auto* forward = verdict<Forward>(slot);
        EXPECT_NE(forward, nullptr);
        return forward != nullptr ? forward->owner : policy::Owner{};
    }
};

TEST_F(LocalRoundsTest, AClaimIsWrittenAndADuplicateInTheSameRoundWaits) {
    rounds_.begin(now_);
    ask(0, 1);
    ask(1, 1);
    EXPECT_EQ(rounds_.records().size(), 1u);
    commit();
    EXPECT_NE(verdict<Forward>(0), nullptr);
    EXPECT_EQ(reply_to(1), nullptr);
    EXPECT_EQ(replies_.size(), 1u);
}

TEST_F(LocalRoundsTest, AnAnswerReachesThoseWhoWaitInOneRoundAndSaysHowLongTheyWereParked) {
    const policy::Owner owner = claim(0, 1);
    rounds_.begin(now_);
    ask(1, 1);
    ask(2, 1, 2);
    commit();
    EXPECT_TRUE(replies_.empty());
    now_ += 2s;
    rounds_.begin(now_);
    tell(0, 1, owner, Answered{{201, response("made")}});
    EXPECT_EQ(rounds_.records().size(), 1u);
    commit();
    ASSERT_NE(reply_to(0), nullptr);
    EXPECT_EQ(std::get<SettledReply>(reply_to(0)->what).settled, Settled::kRecorded);
    ASSERT_NE(verdict<Replay>(1), nullptr);
    ASSERT_NE(verdict<Replay>(2, 2), nullptr);
    EXPECT_EQ(verdict<Replay>(1)->response->body, "made");
    EXPECT_EQ(reply_to(1)->parked, Duration(2s));
}

TEST_F(LocalRoundsTest, AReplayWritesNothing) {
    const policy::Owner owner = claim(0, 1);
    rounds_.begin(now_);
    tell(0, 1, owner, Answered{{200, response("x")}});
    commit();
    rounds_.begin(now_);
    ask(1, 1);
    EXPECT_TRUE(rounds_.records().empty());
    commit();
    EXPECT_NE(verdict<Replay>(1), nullptr);
}

TEST_F(LocalRoundsTest, WhenTheOwnerReleasesTheFirstInLineIsNextAndTheOthersWaitBehindIt) {
    const policy::Owner owner = claim(0, 1);
    rounds_.begin(now_);
    ask(1, 1);
    ask(2, 1);
    commit();
    rounds_.begin(now_);
    tell(0, 1, owner, Released{});
    ask(3, 1);
    commit();
    EXPECT_NE(verdict<Forward>(1), nullptr);
    EXPECT_EQ(reply_to(2), nullptr);
    EXPECT_EQ(reply_to(3), nullptr);
    rounds_.begin(now_);
    tell(1, 1, verdict<Forward>(1) != nullptr ? verdict<Forward>(1)->owner : policy::Owner{}, Released{});
    commit();
    EXPECT_NE(verdict<Forward>(2), nullptr) << "in the order of arrival";
}

TEST_F(LocalRoundsTest, NobodyIsForwardedWhoseClaimWasNotWritten) {
    rounds_.begin(now_);
    ask(0, 1);
    ask(1, 1);
    ask(2, 2);
    fail();
    EXPECT_NE(verdict<StoreFailed>(0), nullptr);
    EXPECT_NE(verdict<StoreFailed>(1), nullptr) << "who waited for it";
    EXPECT_NE(verdict<StoreFailed>(2), nullptr);
    EXPECT_EQ(rounds_.look(digest(1), now_).phase, policy::KeyPhase::kAbsent);
    EXPECT_EQ(rounds_.unwritten(), 0u) << "what is not in the log need not be voided";
    claim(3, 1);
}

TEST_F(LocalRoundsTest, AClaimThatMayBeInTheLogIsVoidedLater) {
    rounds_.begin(now_);
    ask(0, 1);
    fail(true);
    EXPECT_FALSE(rounds_.rewrite(now_, 0)) << "not at once";
    ASSERT_TRUE(rounds_.rewrite_due().has_value());
    ASSERT_TRUE(rounds_.rewrite(*rounds_.rewrite_due(), 0));
    ASSERT_EQ(rounds_.records().size(), 1u);
    const auto record = policy::decode_record(rounds_.records()[0]);
    ASSERT_TRUE(record.ok());
    EXPECT_TRUE(std::holds_alternative<policy::ReleasedRecord>(*record));
    commit();
    EXPECT_FALSE(rounds_.rewrite_due().has_value());
}

TEST_F(LocalRoundsTest, AnAnswerThatCouldNotBeWrittenIsToldAndWrittenLater) {
    const policy::Owner owner = claim(0, 1);
    rounds_.begin(now_);
    tell(0, 1, owner, Answered{{200, response("kept")}});
    fail();
    ASSERT_NE(reply_to(0), nullptr);
    EXPECT_FALSE(std::get<SettledReply>(reply_to(0)->what).durable);
    // It fails again, then not.
    for (const bool works : {false, true}) {
        now_ += 1s;
        ASSERT_TRUE(rounds_.rewrite(now_, 0));
        const auto record = policy::decode_record(rounds_.records().at(0));
        ASSERT_TRUE(record.ok());
        ASSERT_TRUE(std::holds_alternative<policy::DoneRecord>(*record));
        EXPECT_EQ(std::get<policy::DoneRecord>(*record).response->body, "kept");
        works ? commit() : fail();
    }
    EXPECT_EQ(rounds_.unwritten(), 0u);
}

TEST_F(LocalRoundsTest, WaitingEndsAtItsTimeout) {
    policy_.lease = 100s;
    claim(0, 1);
    rounds_.begin(now_);
    ask(1, 1);
    commit();
    ASSERT_EQ(rounds_.next_due(), now_ + 10s);
    now_ += 10s;
    rounds_.begin(now_);
    commit();
    ASSERT_NE(verdict<Conflict>(1), nullptr);
    EXPECT_EQ(verdict<Conflict>(1)->why, ConflictWhy::kWaitedTooLong);
}

TEST_F(LocalRoundsTest, ALeaseThatPassesWakesThoseWhoWait) {
    claim(0, 1);
    rounds_.begin(now_);
    ask(1, 1);
    commit();
    ASSERT_EQ(rounds_.next_due(), now_ + 5s);
    now_ += 5s;
    rounds_.begin(now_);
    EXPECT_TRUE(rounds_.records().empty());
    commit();
    ASSERT_NE(verdict<OutcomeUnknown>(1), nullptr);
}

TEST_F(LocalRoundsTest, WhoLeavesIsAnsweredOnceAndHoldsNoPlace) {
    const policy::Owner owner = claim(0, 1);
    rounds_.begin(now_);
    for (std::uint32_t slot = 1; slot <= 4; ++slot)
        ask(slot, 1);
    commit();
    ASSERT_NE(verdict<Conflict>(4), nullptr) << "three may wait";
    EXPECT_EQ(verdict<Conflict>(4)->why, ConflictWhy::kInFlight);
    rounds_.begin(now_);
    rounds_.apply({{1, 2}, Leave{}});
    rounds_.apply({{1, 2}, Leave{}});
    ask(4, 1);
    commit();
    EXPECT_NE(verdict<Conflict>(2), nullptr);
    EXPECT_EQ(replies_.size(), 1u);
    rounds_.begin(now_);
    tell(0, 1, owner, Answered{{200, response("x")}});
    commit();
    EXPECT_EQ(replies_.size(), 4u);
    EXPECT_EQ(reply_to(2), nullptr);
}

TEST_F(LocalRoundsTest, AClientThatIsGoneWaitsForNothing) {
    const policy::Owner owner = claim(0, 1);
    rounds_.begin(now_);
    ask(1, 1, 2);
    ask(2, 1, 3);
    rounds_.apply({{2, 0}, ClientGone{}});
    commit();
    rounds_.begin(now_);
    tell(0, 1, owner, Cut{});
    commit();
    EXPECT_EQ(reply_to(1, 2), nullptr);
    EXPECT_NE(reply_to(2, 3), nullptr);
}

TEST_F(LocalRoundsTest, AnAnswerThatNoRecordCanHoldIsDoneWithoutIt) {
    const policy::Owner owner = claim(0, 1);
    rounds_.begin(now_);
    tell(0, 1, owner, Answered{{200, response(std::string(std::size_t{16} << 20, 'x'))}});
    EXPECT_LT(rounds_.records().at(0).size(), 1000u);
    commit();
    EXPECT_EQ(std::get<SettledReply>(reply_to(0)->what).settled, Settled::kRecordedWithoutAnswer);
}

TEST_F(LocalRoundsTest, KeysAtTheLogsBeginningCanBeMoved) {
    claim(0, 1);
    claim(1, 2);
    claim(2, 3);
    EXPECT_EQ(rounds_.low_water(), 1u);
    ASSERT_TRUE(rounds_.rewrite(now_, 150));  // two of them
    EXPECT_EQ(rounds_.records().size(), 2u);
    commit();
    EXPECT_EQ(rounds_.low_water(), 3u);
    now_ += 61s;
    rounds_.begin(now_);
    commit();
    EXPECT_EQ(rounds_.low_water(), std::nullopt);
}

TEST_F(LocalRoundsTest, AForgottenKeyRunsAgainAndALookSaysWhatThereIs) {
    const policy::Owner owner = claim(0, 1);
    EXPECT_EQ(rounds_.look(digest(1), now_).phase, policy::KeyPhase::kInFlight);
    EXPECT_EQ(rounds_.forget(digest(1)), policy::Forgotten::kInFlight);
    tell(0, 1, owner, Answered{{204, response("")}});
    commit();
    const KeyView view = rounds_.look(digest(1), now_);
    EXPECT_EQ(view.phase, policy::KeyPhase::kDone);
    EXPECT_EQ(view.status, 204);
    EXPECT_EQ(view.expires.unix_micros - view.claimed.unix_micros, 60'000'000);
    EXPECT_EQ(rounds_.forget(digest(1)), policy::Forgotten::kForgotten);
    commit();
    claim(1, 1);
}

}  // namespace
}  // namespace outrider::idempotency
