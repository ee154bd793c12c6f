// Elections when every write takes longer than an election timeout: a leader that is elected late is better than none.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "tests/raft/shell.h"

namespace outrider::raft {
namespace {

constexpr Instant kStart{std::chrono::seconds(100)};

class Nothing : public StateMachine {
  public:
    std::string apply(const Entry&) override { return {}; }
    std::string query(std::string_view) const override { return {}; }
    std::string snapshot() const override { return {}; }
    void restore(std::string_view) override {}
};

// A message takes 1 ms, and what is written while a sync runs waits for the next one.
class SlowDisks : public Shell::World {
  public:
    // One sync time for each node.
    SlowDisks(std::uint64_t seed, std::vector<Duration> syncs) : sync_(std::move(syncs)) {
        Configuration founders;
        for (std::uint64_t id = 1; id <= sync_.size(); ++id)
            founders.members.push_back({{id}, true, ""});
        const auto shared = std::make_shared<const Configuration>(founders);
        for (std::size_t i = 0; i < sync_.size(); ++i) {
            disks_.push_back(std::make_unique<Disk>(shared));
            shells_.push_back(std::make_unique<Shell>(*this, NodeId{i + 1}, Options{},
                                                      seed * sync_.size() + i, *disks_[i],
                                                      std::make_unique<Nothing>(), 16, now_));
        }
        syncs_.resize(sync_.size());
    }

    // When a leader has committed an entry; nothing when there was none until then.
    std::optional<Instant> leads_before(Instant end) {
        while (now_ < end) {
            for (const auto& shell : shells_) {
                const bool leads = shell->core().role() == Role::kLeader;
                if (leads && shell->core().commit_index() > LogIndex{}) return now_;
            }
            next_event();
        }
        return std::nullopt;
    }
    Term highest_term() const {
        Term highest;
        for (const auto& shell : shells_)
            highest = std::max(highest, shell->core().term());
        return highest;
    }

  private:
    struct Sync {
        Instant done;
        WriteId last;
    };

    void send(Message message) override {
        network_.emplace(now_ + std::chrono::milliseconds(1), std::move(message));
    }
    void stepped(Shell&, const Effects&) override {}
    void applied(Shell&, const Entry&, std::string) override {}
    void read(Shell&, std::uint64_t) override {}
    void read_refused(Shell&, std::uint64_t) override {}

    void next_event() {
        for (std::size_t i = 0; i < sync_.size(); ++i) {
            if (!syncs_[i] && disks_[i]->pending())
                syncs_[i] = Sync{now_ + sync_[i], disks_[i]->last_written()};
        }
        Instant next = network_.empty() ? Instant::max() : network_.begin()->first;
        for (std::size_t i = 0; i < sync_.size(); ++i) {
            if (syncs_[i]) next = std::min(next, syncs_[i]->done);
            next = std::min(next, shells_[i]->core().next_deadline().value_or(Instant::max()));
        }
        now_ = std::max(now_, next);
        for (std::size_t i = 0; i < sync_.size(); ++i) {
            if (syncs_[i] && syncs_[i]->done <= now_) {
                const WriteId last = syncs_[i]->last;
                syncs_[i].reset();
                shells_[i]->synced(now_, last);
            }
            if (shells_[i]->core().next_deadline().value_or(Instant::max()) <= now_)
                shells_[i]->step(now_, Tick{});
        }
        while (!network_.empty() && network_.begin()->first <= now_) {
            Message message = std::move(network_.begin()->second);
            network_.erase(network_.begin());
            shells_[message.to.value - 1]->step(now_, std::move(message));
        }
    }

    const std::vector<Duration> sync_;
    Instant now_ = kStart;
    std::vector<std::unique_ptr<Disk>> disks_;
    std::vector<std::unique_ptr<Shell>> shells_;
    std::vector<std::optional<Sync>> syncs_;
    std::multimap<Instant, Message> network_;
};

TEST(SlowDisk, ALeaderIsElectedThoughEverySyncTakesLongerThanAnElectionTimeout) {
    const Duration t = Options{}.election_timeout;
    for (const Duration sync : {t + t / 4, 3 * t, 10 * t}) {
        for (std::uint64_t seed = 1; seed <= 100; ++seed) {
            SlowDisks cluster(seed, std::vector<Duration>(2 + seed % 4, sync));
            EXPECT_TRUE(cluster.leads_before(kStart + 2 * t + 8 * sync))
                << seconds_of(sync) << " s, seed " << seed << ": term " << cluster.highest_term().value;
        }
    }
}

TEST(SlowDisk, ALeaderIsElectedThoughSomeDisksAreAThousandTimesAsSlowAsOthers) {
    const Duration t = Options{}.election_timeout;
    Random random(1);
    for (std::uint64_t seed = 1; seed <= 300; ++seed) {
        std::vector<Duration> syncs(3 + seed % 3);
        Duration slowest = t;
        for (Duration& sync : syncs) {
            const double slow = 10 * random.unit();
            sync =
                t / 100 + (random.below(2) == 0
                               ? Duration{}
                               : Duration(static_cast<std::int64_t>(slow * static_cast<double>(t.count()))));
            slowest = std::max(slowest, sync);
        }
        SlowDisks cluster(seed, syncs);
        EXPECT_TRUE(cluster.leads_before(kStart + 2 * t + 20 * slowest))
            << "seed " << seed << ": term " << cluster.highest_term().value;
    }
}

// Node 1 of 3.
class SlowVotes : public testing::Test {
  protected:
    SlowVotes() {
        Configuration founders;
        for (const std::uint64_t id : {1, 2, 3})
            founders.members.push_back({{id}, true, ""});
        const SnapshotMeta empty{{}, {}, std::make_shared<const Configuration>(founders)};
        core_.emplace(Start{{1}, 1, Options{}, {}, empty, {}}, now_);
    }
    Effects tick() {
        now_ = *core_->next_deadline();
        return core_->step(now_, Tick{});
    }
    Effects get(std::uint64_t from, std::uint64_t term, Body body) {
        return core_->step(now_, Message{{from}, {1}, {term}, std::move(body)});
    }
    Effects grant(std::uint64_t from, bool pre, std::uint64_t asked) {
        return get(from, pre ? asked - 1 : asked, VoteResponse{pre, true, {asked}});
    }
    // What asks for the votes of the next term leaves when the write that comes back is durable.
    WriteId campaign() {
        tick();
        const Effects asked = grant(2, true, core_->term().value + 1);
        EXPECT_EQ(core_->role(), Role::kCandidate);
        return *asked.write;
    }
    // A candidate whose own vote is durable.
    void stand() {
        const WriteId vote = campaign();
        core_->step(now_, Persisted{vote});
    }

    const Duration t_ = Options{}.election_timeout;
    Instant now_ = kStart;
    std::optional<Core> core_;
};

TEST_F(SlowVotes, ALateVoteCountsThoughItsCandidateAsksForPreVotesAlready) {
    stand();
    for (int again = 0; again < 3; ++again) {
        tick();
        ASSERT_EQ(core_->role(), Role::kPreCandidate);
    }
    grant(3, false, 1);
    EXPECT_EQ(core_->role(), Role::kLeader);
    EXPECT_EQ(core_->term(), Term{1});
}

TEST_F(SlowVotes, AVoteCountsInNoLaterTerm) {
    stand();
    stand();
    ASSERT_EQ(core_->term(), Term{2});
    grant(3, false, 1);
    EXPECT_EQ(core_->role(), Role::kCandidate);
    tick();
    grant(3, false, 1);
    EXPECT_EQ(core_->role(), Role::kPreCandidate);
}

TEST_F(SlowVotes, AVoteDoesNotCountAnyMoreWhenAnotherLeadsItsTerm) {
    stand();
    get(2, 1, Heartbeat{});
    grant(3, false, 1);
    EXPECT_EQ(core_->role(), Role::kFollower);
    tick();
    grant(3, false, 1);
    EXPECT_EQ(core_->role(), Role::kPreCandidate);
}

TEST_F(SlowVotes, ACandidateWaitsAsLongAgainAsItsOwnVoteTook) {
    const WriteId vote = campaign();
    now_ += 10 * t_;
    core_->step(now_, Persisted{vote});
    EXPECT_GE(*core_->next_deadline(), now_ + 11 * t_);
}

// It may be the only one with a log that others vote for.
TEST_F(SlowVotes, ACandidateWhoseVoteHungForMinutesDoesNotWaitForMinutesMore) {
    const WriteId vote = campaign();
    now_ += 300 * t_;
    core_->step(now_, Persisted{vote});
    EXPECT_GE(*core_->next_deadline(), now_ + 17 * t_);
    EXPECT_LE(*core_->next_deadline(), now_ + 18 * t_);
}

TEST_F(SlowVotes, AVoterDoesNotCampaignBeforeItsVoteHasLeft) {
    now_ += t_;
    const Effects voted = get(2, 1, VoteRequest{false, false, {}, {}});
    ASSERT_EQ(core_->vote(), NodeId{2});
    EXPECT_FALSE(core_->next_deadline());
    now_ += 10 * t_;
    core_->step(now_, Tick{});
    EXPECT_EQ(core_->role(), Role::kFollower);
    core_->step(now_, Persisted{*voted.write});
    EXPECT_GE(*core_->next_deadline(), now_ + t_);
}

TEST_F(SlowVotes, CampaignsAreSpreadMoreWidelyAfterTermsWithoutALeader) {
    const auto longest = [this] {
        Duration most{};
        for (int i = 0; i < 50; ++i) {
            const Instant before = now_;
            tick();
            most = std::max(most, now_ - before);
        }
        return most;
    };
    EXPECT_LT(longest(), 2 * t_);
    for (int term = 1; term <= 4; ++term)
        stand();
    EXPECT_GT(longest(), 3 * t_);
    get(2, 4, Heartbeat{});
    EXPECT_LT(longest(), 2 * t_);
}

// As long as it pleases: the write of its own vote is not a reason to begin anew.
TEST_F(SlowVotes, ACandidateDoesNotCampaignAgainWhileItsOwnVoteIsBeingWritten) {
    const WriteId vote = campaign();
    EXPECT_FALSE(core_->next_deadline());
    now_ += 10 * t_;
    core_->step(now_, Tick{});
    EXPECT_EQ(core_->role(), Role::kCandidate);
    EXPECT_EQ(core_->term(), Term{1});
    core_->step(now_, Persisted{vote});
    tick();
    EXPECT_EQ(core_->role(), Role::kPreCandidate);
}

}  // namespace
}  // namespace outrider::raft
