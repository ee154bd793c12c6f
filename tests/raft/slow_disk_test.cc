// Elections when every write takes longer than an election timeout: a leader that is elected late is better than none.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

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

// Three nodes; a message takes 1 ms, and what is written while a sync runs waits for the next one.
class SlowDisks : public Shell::World {
  public:
    SlowDisks(std::uint64_t seed, Duration sync) : sync_(sync) {
        Configuration founders;
        for (const std::uint64_t id : {1, 2, 3})
            founders.members.push_back({{id}, true, ""});
        const auto shared = std::make_shared<const Configuration>(founders);
        for (std::size_t i = 0; i < kNodes; ++i) {
            disks_.push_back(std::make_unique<Disk>(shared));
            shells_.push_back(std::make_unique<Shell>(*this, NodeId{i + 1}, Options{}, seed * kNodes + i,
                                                      *disks_[i], std::make_unique<Nothing>(), 16, now_));
        }
        syncs_.resize(kNodes);
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
    static constexpr std::size_t kNodes = 3;
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
        for (std::size_t i = 0; i < kNodes; ++i) {
            if (!syncs_[i] && disks_[i]->pending()) syncs_[i] = Sync{now_ + sync_, disks_[i]->last_written()};
        }
        Instant next = network_.empty() ? Instant::max() : network_.begin()->first;
        for (std::size_t i = 0; i < kNodes; ++i) {
            if (syncs_[i]) next = std::min(next, syncs_[i]->done);
            next = std::min(next, shells_[i]->core().next_deadline().value_or(Instant::max()));
        }
        now_ = std::max(now_, next);
        for (std::size_t i = 0; i < kNodes; ++i) {
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

    const Duration sync_;
    Instant now_ = kStart;
    std::vector<std::unique_ptr<Disk>> disks_;
    std::vector<std::unique_ptr<Shell>> shells_;
    std::vector<std::optional<Sync>> syncs_;
    std::multimap<Instant, Message> network_;
};

TEST(SlowDisk, ALeaderIsElectedThoughEverySyncTakesLongerThanAnElectionTimeout) {
    const Duration t = Options{}.election_timeout;
    for (std::uint64_t seed = 1; seed <= 100; ++seed) {
        SlowDisks cluster(seed, t + t / 4);
        EXPECT_TRUE(cluster.leads_before(kStart + 100 * t))
            << "seed " << seed << ": term " << cluster.highest_term().value;
    }
}

// As long as it pleases: the write of its own vote is not a reason to begin anew.
TEST(SlowDisk, ACandidateDoesNotCampaignAgainWhileItsOwnVoteIsBeingWritten) {
    Configuration founders;
    for (const std::uint64_t id : {1, 2, 3})
        founders.members.push_back({{id}, true, ""});
    const SnapshotMeta empty{{}, {}, std::make_shared<const Configuration>(founders)};
    Core core(Start{{1}, 1, Options{}, {}, empty, {}}, kStart);
    Instant now = *core.next_deadline();
    core.step(now, Tick{});
    const Effects asked = core.step(now, Message{{2}, {1}, {}, VoteResponse{true, true, {1}}});
    ASSERT_EQ(core.role(), Role::kCandidate);
    EXPECT_FALSE(core.next_deadline());

    now += 10 * Options{}.election_timeout;
    core.step(now, Tick{});
    EXPECT_EQ(core.role(), Role::kCandidate);
    EXPECT_EQ(core.term(), Term{1});

    core.step(now, Persisted{*asked.write});
    ASSERT_TRUE(core.next_deadline());
    EXPECT_GE(*core.next_deadline(), now + Options{}.election_timeout);
    core.step(*core.next_deadline(), Tick{});
    EXPECT_EQ(core.role(), Role::kPreCandidate);
}

}  // namespace
}  // namespace outrider::raft
