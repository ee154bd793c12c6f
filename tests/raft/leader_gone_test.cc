// When a follower campaigns that lost its connection to the leader.
#include <algorithm>
#include <chrono>
#include <memory>

#include <gtest/gtest.h>

#include "control/raft/core.h"

namespace outrider::raft {
namespace {

constexpr NodeId kLeader{1};
constexpr NodeId kSelf{2};
constexpr Instant kStart{std::chrono::seconds(100)};

class LeaderGoneTest : public testing::Test {
  protected:
    // A follower that has just heard the leader.
    std::unique_ptr<Core> follower(std::uint64_t seed) {
        Configuration founders;
        for (const std::uint64_t id : {1, 2, 3})
            founders.members.push_back({{id}, true, ""});
        const SnapshotMeta empty{{}, {}, std::make_shared<const Configuration>(founders)};
        auto core = std::make_unique<Core>(Start{kSelf, seed, options_, {}, empty, {}}, kStart);
        const Effects heard = core->step(kStart, Message{kLeader, kSelf, {1}, Heartbeat{}});
        core->step(kStart, Persisted{*heard.write});
        EXPECT_EQ(core->leader(), kLeader);
        return core;
    }
    Duration left(const Core& core) const { return *core.next_deadline() - kStart; }

    Options options_;
    const Duration t_ = options_.election_timeout;
};

TEST_F(LeaderGoneTest, ItCampaignsSoonAfterTheElectionTimeoutAndNeverBefore) {
    Duration least = 2 * t_;
    Duration most{};
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        const auto core = follower(seed);
        const Duration before = left(*core);
        core->step(kStart, LeaderGone{kLeader});
        EXPECT_LE(left(*core), before);
        least = std::min(least, left(*core));
        most = std::max(most, left(*core));
    }
    EXPECT_GT(least, t_);
    EXPECT_LT(most, t_ + t_ / 2);
    EXPECT_GT(most - least, t_ / 8);  // not all at once
}

TEST_F(LeaderGoneTest, OnlyTheLeaderOfAFollowerCanBeGone) {
    const auto core = follower(1);
    const Duration before = left(*core);
    core->step(kStart, LeaderGone{{3}});
    core->step(kStart, LeaderGone{});
    EXPECT_EQ(left(*core), before);
}

TEST_F(LeaderGoneTest, VotesAreRefusedUntilTheElectionTimeoutAllTheSame) {
    const auto core = follower(1);
    core->step(kStart, LeaderGone{kLeader});
    const Message ask{{3}, kSelf, {1}, VoteRequest{true, false, {}, {}}};
    EXPECT_TRUE(core->step(kStart + t_ - Duration(1), ask).send.empty());
    EXPECT_FALSE(core->step(kStart + t_, ask).send.empty());
}

TEST_F(LeaderGoneTest, TheLeadersNextWordTakesItBack) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        const auto core = follower(seed);
        core->step(kStart, LeaderGone{kLeader});
        const Instant later = kStart + t_ / 2;
        core->step(later, Message{kLeader, kSelf, {1}, Heartbeat{}});
        EXPECT_GE(*core->next_deadline(), later + t_);
        const Instant due = *core->next_deadline();
        core->step(due, Tick{});
        EXPECT_EQ(core->role(), Role::kPreCandidate);
        EXPECT_GE(*core->next_deadline(), due + t_);  // and asks again no sooner than others
    }
}

}  // namespace
}  // namespace outrider::raft
