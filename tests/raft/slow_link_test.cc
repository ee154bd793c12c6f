// What a leader sends again, and when: answers that are late say nothing about what left after their questions.
#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "control/raft/core.h"

namespace outrider::raft {
namespace {

constexpr NodeId kSelf{1};
constexpr NodeId kNear{2};
constexpr NodeId kFar{3};
constexpr Term kTerm{1};

class SlowLinkTest : public testing::Test {
  protected:
    SlowLinkTest() {
        Configuration founders;
        for (const std::uint64_t id : {1, 2, 3})
            founders.members.push_back({{id}, true, ""});
        const SnapshotMeta empty{{}, {}, std::make_shared<const Configuration>(founders)};
        core_ = std::make_unique<Core>(Start{kSelf, 1, Options{}, {}, empty, {}}, now_);
        now_ = *core_->next_deadline();
        step(Tick{});
        tell(kNear, VoteResponse{true, true, kTerm});
        tell(kNear, VoteResponse{false, true, kTerm});
        EXPECT_EQ(core_->role(), Role::kLeader);
        tell(kNear, AppendResponse{.index = {1}});
        tell(kFar, AppendResponse{.index = {1}});
    }

    // What goes to kFar because of it; the disk is fast.
    std::vector<Body> step(Event event) {
        std::vector<Body> sent;
        Effects effects = core_->step(now_, std::move(event));
        for (;;) {
            for (const Message& message : effects.send) {
                if (const auto* heartbeat = std::get_if<Heartbeat>(&message.body)) {
                    round_ = heartbeat->round;
                } else if (message.to == kFar) {
                    sent.push_back(message.body);
                }
            }
            if (!effects.write) return sent;
            effects = core_->step(now_, Persisted{*effects.write});
        }
    }
    std::vector<Body> tell(NodeId from, Body body) {
        return step(Message{from, kSelf, core_->term(), std::move(body)});
    }

    // One more entry is committed without kFar.
    void commit() {
        Propose propose;
        propose.commands.push_back({0, 0, std::make_shared<const std::string>("x")});
        step(std::move(propose));
        tell(kNear, AppendResponse{.index = core_->log().last_index()});
        EXPECT_EQ(core_->applied_index(), core_->log().last_index());
    }
    void compact(std::uint64_t kept) {
        const LogIndex last = core_->applied_index();
        step(Compact{last, last + 1 - kept});
    }
    // The number of the next round.
    std::uint64_t beat() {
        now_ += Options{}.heartbeat;
        step(Tick{});
        tell(kNear, HeartbeatResponse{round_, now_});
        return round_;
    }
    std::vector<Body> hear_far(std::uint64_t round) { return tell(kFar, HeartbeatResponse{round, now_}); }
    // kFar lacks entry 2, and the leader has it no more.
    void begin_transfer() {
        tell(kFar, AppendResponse{true, {5}, {1}, kTerm});
        EXPECT_EQ(far().state(), Progress::State::kSnapshot);
    }
    Progress far() const { return core_->peers().back(); }
    static const SnapshotChunk* only_chunk(const std::vector<Body>& sent) {
        return sent.size() == 1 ? std::get_if<SnapshotChunk>(&sent.front()) : nullptr;
    }

    Instant now_{std::chrono::seconds(100)};
    std::unique_ptr<Core> core_;
    std::uint64_t round_ = 0;
};

class SlowTransferTest : public SlowLinkTest {
  protected:
    SlowTransferTest() {
        for (int i = 0; i < 4; ++i)
            commit();
        compact(0);
        for (int i = 0; i < 3; ++i)
            beat();
        begin_transfer();
    }
};

TEST_F(SlowTransferTest, AHeartbeatFromBeforeTheChunkDoesNotBringItAgain) {
    for (std::uint64_t round = 1; round <= 3; ++round)
        EXPECT_TRUE(hear_far(round).empty()) << round;

    beat();
    beat();
    ASSERT_NE(only_chunk(hear_far(4)), nullptr);
    EXPECT_TRUE(hear_far(5).empty());  // it left before the chunk that was sent again
    const auto next = tell(kFar, SnapshotResponse{{5}, 1000});
    ASSERT_NE(only_chunk(next), nullptr);
    EXPECT_EQ(only_chunk(next)->offset, 1000u);
    EXPECT_TRUE(hear_far(5).empty());
    EXPECT_NE(only_chunk(hear_far(beat())), nullptr);
}

TEST_F(SlowTransferTest, ANewerSnapshotDoesNotEndATransferThatIsAnswered) {
    commit();
    compact(0);
    for (std::uint64_t offset = 1000; offset <= 5000; offset += 1000) {
        const auto again = hear_far(beat());  // a chunk was lost
        ASSERT_NE(only_chunk(again), nullptr);
        EXPECT_EQ(only_chunk(again)->meta.index, LogIndex{5});
        const auto next = tell(kFar, SnapshotResponse{{5}, offset});
        ASSERT_NE(only_chunk(next), nullptr);
        EXPECT_EQ(only_chunk(next)->offset, offset);
    }
    // While the last one is being installed.
    for (int i = 0; i < 3; ++i) {
        const auto again = hear_far(beat());
        ASSERT_NE(only_chunk(again), nullptr);
        EXPECT_EQ(only_chunk(again)->meta.index, LogIndex{5});
        EXPECT_TRUE(tell(kFar, SnapshotResponse{{5}, 5000}).empty());
    }
}

TEST_F(SlowTransferTest, ASnapshotThatTheShellHasNoMoreIsGivenUpForTheNewest) {
    tell(kFar, SnapshotResponse{{5}, 1000});
    commit();
    compact(0);
    hear_far(beat());
    const auto newest = hear_far(beat());
    ASSERT_NE(only_chunk(newest), nullptr);
    EXPECT_EQ(only_chunk(newest)->meta.index, LogIndex{6});
    EXPECT_EQ(only_chunk(newest)->offset, 0u);
}

// It has installed the one before: else it would be sent snapshot after snapshot while there are writes.
TEST_F(SlowTransferTest, APeerThatTheLogReachesIsSentEntriesThoughANewerSnapshotIsUnderWay) {
    commit();
    compact(1);  // 6, and its entry stays
    hear_far(beat());
    hear_far(beat());
    ASSERT_EQ(far().snapshot()->meta.index, LogIndex{6});

    const auto sent = tell(kFar, AppendResponse{.index = {5}});
    EXPECT_EQ(far().state(), Progress::State::kReplicate);
    ASSERT_EQ(sent.size(), 1u);
    const auto* append = std::get_if<AppendRequest>(&sent.front());
    ASSERT_NE(append, nullptr);
    EXPECT_EQ(append->prev_index, LogIndex{5});
    EXPECT_EQ(append->entries.size(), 1u);
}

TEST_F(SlowTransferTest, AnOldAnswerDoesNotEndTheTransfer) {
    EXPECT_TRUE(tell(kFar, AppendResponse{.index = {1}}).empty());
    EXPECT_EQ(far().state(), Progress::State::kSnapshot);
}

TEST(SlowInstall, AFollowerAnswersAChunkThatComesAgainWhileItsDiskWorks) {
    Configuration founders;
    for (const std::uint64_t id : {1, 2, 3})
        founders.members.push_back({{id}, true, ""});
    const auto members = std::make_shared<const Configuration>(founders);
    const Instant now{std::chrono::seconds(100)};
    Core core(Start{kFar, 1, Options{}, {}, {{}, {}, members}, {}}, now);
    const SnapshotChunk all{{{5}, kTerm, members}, 0, std::make_shared<const std::string>("state"), true};
    const Effects installs = core.step(now, Message{kSelf, kFar, kTerm, all});
    ASSERT_TRUE(installs.install);

    const Effects again = core.step(now, Message{kSelf, kFar, kTerm, all});
    ASSERT_EQ(again.send.size(), 1u);
    const auto* answer = std::get_if<SnapshotResponse>(&again.send.front().body);
    ASSERT_NE(answer, nullptr);
    EXPECT_EQ(answer->index, LogIndex{5});
    EXPECT_EQ(answer->offset, all.offset);  // nothing new is asked for

    const Effects durable = core.step(now, Persisted{*installs.write});
    ASSERT_EQ(durable.send.size(), 1u);
    EXPECT_NE(std::get_if<AppendResponse>(&durable.send.front().body), nullptr);
}

// It has lost its disk, and refuses whatever there is to send.
TEST_F(SlowLinkTest, APeerThatRefusesWhatItHadAcceptedIsTriedOnceAHeartbeat) {
    for (int i = 0; i < 4; ++i)
        commit();
    tell(kFar, AppendResponse{.index = {5}});
    commit();
    ASSERT_EQ(tell(kFar, AppendResponse{true, {6}, {0}, {0}}).size(), 1u);
    ASSERT_EQ(far().state(), Progress::State::kProbe);
    for (int i = 0; i < 3; ++i) {
        EXPECT_TRUE(tell(kFar, AppendResponse{true, {5}, {0}, {0}}).empty());
        EXPECT_EQ(hear_far(beat()).size(), 1u);
    }
}

TEST_F(SlowLinkTest, AProbeIsNotSentAgainForAHeartbeatFromBeforeIt) {
    for (int i = 0; i < 4; ++i)
        commit();
    beat();
    beat();
    ASSERT_EQ(tell(kFar, AppendResponse{true, {5}, {3}, kTerm}).size(), 1u);
    ASSERT_EQ(far().state(), Progress::State::kProbe);
    EXPECT_TRUE(hear_far(1).empty());
    EXPECT_TRUE(hear_far(2).empty());
    EXPECT_EQ(hear_far(beat()).size(), 1u);
}

}  // namespace
}  // namespace outrider::raft
