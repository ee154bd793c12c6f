#include "filters/policy/channel.h"

#include <map>
#include <set>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;
using Refusal = Channel::Refusal;

const Instant t0{1000s};
const ChannelLimits kLimits{.depth = 4, .stall_timeout = 1s};

void send(Channel& channel, std::uint64_t id, Instant now = t0, bool repeated = false) {
    channel.push(RideId{id}, repeated, now);
    channel.sending(RideId{id});
    channel.sent(RideId{id});
}
Return again(std::uint64_t id, bool repeated = true) {
    return {.id = RideId{id}, .repeated = repeated};
}
void answer(Channel& channel, Instant now = t0) {
    channel.response_head({});
    channel.response_end(now);
}

TEST(Channel, ResponsesBelongToRequestsInTheirOrder) {
    Channel channel(kLimits, Channel::Start::kTogether);
    send(channel, 1);
    send(channel, 2);
    EXPECT_EQ(channel.front(), RideId{1});
    EXPECT_EQ(channel.response_head({}).to, RideId{1});
    EXPECT_EQ(channel.response_end(t0).to, RideId{1});
    EXPECT_EQ(channel.response_head({}).to, RideId{2});
    EXPECT_EQ(channel.response_end(t0).to, RideId{2});
    EXPECT_EQ(channel.in_flight(), 0u);
    EXPECT_EQ(channel.answered(), 2u);
    EXPECT_EQ(channel.answered_pipelined(), 1u);
    EXPECT_FALSE(channel.ended());
}

TEST(Channel, OnlyWhatIsSafeToRepeatRides) {
    Channel channel(kLimits, Channel::Start::kTogether);
    EXPECT_EQ(channel.refusal(false, t0), Refusal::kNotRepeatable);
    EXPECT_EQ(channel.refusal(true, t0), Refusal::kNone);
}

TEST(Channel, AtItsDepthItIsFull) {
    Channel channel(kLimits, Channel::Start::kTogether);
    for (std::uint64_t i = 0; i < 4; ++i) {
        send(channel, i);
    }
    EXPECT_EQ(channel.refusal(true, t0), Refusal::kFull);
    answer(channel);
    EXPECT_EQ(channel.refusal(true, t0), Refusal::kNone);
}

// RFC 9112 section 9.3.2
TEST(Channel, AfterABreakTheFirstRequestGoesAloneUntilItIsAnsweredWhole) {
    Channel channel(kLimits, Channel::Start::kAlone);
    send(channel, 1);
    EXPECT_EQ(channel.refusal(true, t0), Refusal::kAlone);
    channel.response_head({});
    EXPECT_EQ(channel.refusal(true, t0), Refusal::kAlone);
    channel.response_end(t0);
    send(channel, 2);
    EXPECT_EQ(channel.refusal(true, t0), Refusal::kNone);
}

TEST(Channel, ASlowClientKeepsTheConnectionAndThoseBehindAreHandedBack) {
    Channel channel(kLimits, Channel::Start::kTogether);
    send(channel, 1);
    send(channel, 2);
    EXPECT_THAT(channel.release_behind().send_again, IsEmpty()) << "nobody is being answered";
    channel.response_head({});
    channel.push(RideId{3}, false, t0);
    const LeftBehind left = channel.release_behind();
    EXPECT_THAT(left.send_again, ElementsAre(again(2), again(3, false)));
    EXPECT_THAT(left.failed, IsEmpty());
    EXPECT_EQ(channel.refusal(true, t0), Refusal::kEnded);
    EXPECT_THAT(channel.release_behind().send_again, IsEmpty());
    EXPECT_EQ(channel.response_end(t0).to, RideId{1});
    EXPECT_EQ(channel.ended(), ChannelEnd::kGivenUp);
}

TEST(Channel, ABreakHandsBackTheUnansweredAndFailsWhatHadBegun) {
    Channel channel(kLimits, Channel::Start::kTogether);
    send(channel, 1);
    send(channel, 2);
    send(channel, 3);
    channel.push(RideId{4}, false, t0);  // of which no byte has left
    answer(channel);
    channel.response_head({});
    const LeftBehind left = channel.broke();
    EXPECT_THAT(left.failed, ElementsAre(RideId{2}));
    EXPECT_THAT(left.send_again, ElementsAre(again(3), again(4, false)));
    EXPECT_TRUE(left.start_alone);
    EXPECT_EQ(channel.ended(), ChannelEnd::kBroke);
    EXPECT_EQ(channel.refusal(true, t0), Refusal::kEnded);
    EXPECT_EQ(channel.unanswered(), 3u);
    EXPECT_THAT(channel.broke().send_again, IsEmpty()) << "an end is told once";
}

// RFC 9112 section 9.3.1: a failed automatic retry is not retried.
TEST(Channel, ARepetitionIsNotRepeated) {
    Channel channel(kLimits, Channel::Start::kTogether);
    send(channel, 1, t0, true);
    channel.push(RideId{2}, true, t0);
    send(channel, 3);
    const LeftBehind left = channel.broke();
    EXPECT_THAT(left.failed, ElementsAre(RideId{1}));
    EXPECT_THAT(left.send_again, ElementsAre(again(2, true), again(3))) << "2 never left this time";
}

TEST(Channel, AnIdleConnectionMayCloseWithoutNotice) {
    Channel channel(kLimits, Channel::Start::kTogether);
    send(channel, 1);
    answer(channel);
    const LeftBehind left = channel.broke();
    EXPECT_THAT(left.send_again, IsEmpty());
    EXPECT_FALSE(left.start_alone);
    EXPECT_EQ(channel.ended(), ChannelEnd::kIdle);
}

TEST(Channel, AResponseThatNobodyAskedForEndsTheChannelAndIsNobodys) {
    Channel idle(kLimits, Channel::Start::kTogether);
    EXPECT_EQ(idle.response_head({}).to, std::nullopt);
    EXPECT_EQ(idle.ended(), ChannelEnd::kUnasked);

    Channel early(kLimits, Channel::Start::kTogether);
    early.push(RideId{1}, false, t0);
    const Channel::Delivery delivery = early.response_head({});
    EXPECT_EQ(delivery.to, std::nullopt) << "no byte of the request had left";
    EXPECT_THAT(delivery.left.send_again, ElementsAre(again(1, false)));
    EXPECT_EQ(early.ended(), ChannelEnd::kUnasked);

    Channel more(kLimits, Channel::Start::kTogether);
    send(more, 1);
    answer(more);
    more.extra_bytes();
    EXPECT_EQ(more.ended(), ChannelEnd::kUnasked);
    EXPECT_EQ(more.response_head({}).to, std::nullopt);
    EXPECT_EQ(more.response_end(t0).to, std::nullopt);
}

TEST(Channel, AnAnswerBeforeTheRequestHasLeftWholeIsDeliveredAndIsTheLast) {
    Channel channel(kLimits, Channel::Start::kTogether);
    channel.push(RideId{1}, false, t0);
    channel.push(RideId{2}, false, t0);
    channel.sending(RideId{1});
    const Channel::Delivery head = channel.response_head({});
    EXPECT_EQ(head.to, RideId{1});
    EXPECT_THAT(head.left.send_again, ElementsAre(again(2, false)));
    channel.sent(RideId{1});  // too late to matter
    EXPECT_EQ(channel.refusal(true, t0), Refusal::kEnded);
    EXPECT_EQ(channel.response_end(t0).to, RideId{1});
    EXPECT_EQ(channel.ended(), ChannelEnd::kAnsweredEarly);
}

// RFC 9112 section 9.6
TEST(Channel, AResponseThatClosesHandsBackThoseBehindAtItsHead) {
    Channel channel(kLimits, Channel::Start::kTogether);
    send(channel, 1);
    send(channel, 2, t0, true);
    const Channel::Delivery head = channel.response_head({.version_minor = 1, .keep_alive = false});
    EXPECT_EQ(head.to, RideId{1});
    EXPECT_THAT(head.left.send_again, ElementsAre(again(2, true))) << "the upstream does not process it";
    EXPECT_FALSE(head.left.start_alone);
    EXPECT_EQ(channel.refusal(true, t0), Refusal::kEnded);
    EXPECT_FALSE(channel.ended()) << "its body is still to come";
    EXPECT_EQ(channel.response_end(t0).to, RideId{1});
    EXPECT_EQ(channel.ended(), ChannelEnd::kClosed);
}

TEST(Channel, AResponseThatClosesAndIsCutFails) {
    Channel channel(kLimits, Channel::Start::kTogether);
    send(channel, 1);
    send(channel, 2);
    channel.response_head({.version_minor = 0, .keep_alive = false});
    const LeftBehind left = channel.broke();
    EXPECT_THAT(left.failed, ElementsAre(RideId{1}));
    EXPECT_THAT(left.send_again, IsEmpty()) << "2 was handed back before";
}

TEST(Channel, AnAnswerInHttp10IsTheLast) {
    Channel channel(kLimits, Channel::Start::kTogether);
    send(channel, 1);
    channel.response_head({.version_minor = 0, .keep_alive = true});
    channel.response_end(t0);
    EXPECT_EQ(channel.ended(), ChannelEnd::kHttp10);
}

TEST(Channel, TheAnswerOfAClientThatHasLeftIsDropped) {
    Channel channel(kLimits, Channel::Start::kTogether);
    send(channel, 1);
    send(channel, 2);
    channel.push(RideId{3}, false, t0);
    EXPECT_TRUE(channel.leave(RideId{3})) << "it was not written";
    EXPECT_FALSE(channel.leave(RideId{1}));
    EXPECT_EQ(channel.in_flight(), 2u);
    EXPECT_EQ(channel.response_head({}).to, std::nullopt);
    EXPECT_FALSE(channel.ended());
    EXPECT_EQ(channel.response_end(t0).to, std::nullopt);
    EXPECT_EQ(channel.response_head({}).to, RideId{2});
    channel.leave(RideId{2});
    const LeftBehind left = channel.broke();
    EXPECT_THAT(left.failed, IsEmpty());
    EXPECT_THAT(left.send_again, IsEmpty());
}

TEST(Channel, AStallMovesNewRequestsAwayUntilTheFrontIsAnswered) {
    Channel channel(kLimits, Channel::Start::kTogether);
    EXPECT_EQ(channel.stalls_at(), std::nullopt);
    send(channel, 1, t0);
    send(channel, 2, t0 + 900ms);
    EXPECT_EQ(channel.stalls_at(), t0 + 1s);
    EXPECT_EQ(channel.refusal(true, t0 + 999ms), Refusal::kNone);
    EXPECT_EQ(channel.refusal(true, t0 + 1s), Refusal::kStalled);
    channel.response_head({});
    EXPECT_EQ(channel.refusal(true, t0 + 1s), Refusal::kStalled) << "its body may take as long";
    channel.response_end(t0 + 1100ms);
    EXPECT_EQ(channel.stalls_at(), t0 + 2100ms) << "2 is due only from now on";
    EXPECT_EQ(channel.refusal(true, t0 + 2s), Refusal::kNone);
    const LeftBehind left = channel.give_up();
    EXPECT_THAT(left.send_again, ElementsAre(again(2)));
}

// An upstream that answers `k` of what it is sent on a connection and then resets it, for every k: nothing is delivered
// to another exchange, what was answered is delivered once, and the rest is sent again once.
struct Cluster {
    explicit Cluster(std::uint64_t seed) : random(seed) {}
    Random random;
    std::map<std::uint64_t, int> delivered;
    std::map<std::uint64_t, int> executed;
    std::set<std::uint64_t> failed;
    std::vector<Return> waiting;
    std::set<std::uint64_t> repeated;

    // Sends what waits over one connection that is reset after k answers, in the middle of the next when `cut`.
    void connection(Channel::Start start, std::size_t k, bool cut) {
        Channel channel({.depth = 64, .stall_timeout = 1s}, start);
        std::deque<std::uint64_t> wire;
        std::size_t answered = 0;
        while (!channel.ended()) {
            while (!waiting.empty() && channel.refusal(true, t0) == Refusal::kNone) {
                const Return next = waiting.front();
                waiting.erase(waiting.begin());
                channel.push(next.id, next.repeated, t0);
                channel.sending(next.id);
                if (random.below(8) != 0 || start == Channel::Start::kAlone) channel.sent(next.id);
                wire.push_back(static_cast<std::uint64_t>(next.id));
            }
            if (wire.empty()) {
                take(channel.broke());
                return;
            }
            for (const std::uint64_t id : wire) {
                channel.sent(RideId{id});
            }
            if (answered == k) {
                if (random.below(2) == 0) ++executed[wire.front()];
                if (cut) {
                    ASSERT_EQ(channel.response_head({}).to, RideId{wire.front()});
                }
                take(channel.broke());
                return;
            }
            ++executed[wire.front()];
            ASSERT_EQ(channel.response_head({}).to, RideId{wire.front()});
            ASSERT_EQ(channel.response_end(t0).to, RideId{wire.front()});
            ++delivered[wire.front()];
            wire.pop_front();
            ++answered;
        }
    }
    void take(const LeftBehind& left) {
        for (const RideId id : left.failed) {
            EXPECT_TRUE(failed.insert(static_cast<std::uint64_t>(id)).second);
        }
        for (const Return& ride : left.send_again) {
            if (ride.repeated) {
                EXPECT_TRUE(repeated.insert(static_cast<std::uint64_t>(ride.id)).second) << "once only";
            }
        }
        waiting.insert(waiting.begin(), left.send_again.begin(), left.send_again.end());
    }
};

TEST(Channel, ResetAfterKOfNNeitherMixesNorRepeatsTwice) {
    for (std::size_t n = 1; n <= 24; ++n) {
        for (std::size_t k = 0; k <= n; ++k) {
            for (const bool cut : {false, true}) {
                SCOPED_TRACE(testing::Message() << k << " of " << n << (cut ? ", cut" : ""));
                Cluster cluster(n * 100 + k);
                for (std::uint64_t id = 0; id < n; ++id) {
                    cluster.waiting.push_back({.id = RideId{id}, .repeated = false});
                }
                cluster.connection(Channel::Start::kTogether, k, cut && k < n);
                EXPECT_EQ(cluster.delivered.size(), k);
                cluster.connection(Channel::Start::kAlone, n, false);
                EXPECT_THAT(cluster.waiting, IsEmpty());
                EXPECT_EQ(cluster.delivered.size() + cluster.failed.size(), n);
                EXPECT_EQ(cluster.failed.size(), cut && k < n ? 1u : 0u);
                for (const auto& [id, times] : cluster.delivered) {
                    EXPECT_EQ(times, 1) << id;
                    EXPECT_LE(cluster.executed[id], 2) << id;
                }
            }
        }
    }
}

TEST(Channel, WithResetsAgainAndAgainEachIsDeliveredOnceOrFails) {
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        SCOPED_TRACE(seed);
        Cluster cluster(seed);
        for (std::uint64_t id = 0; id < 40; ++id) {
            cluster.waiting.push_back({.id = RideId{id}, .repeated = false});
        }
        for (int connections = 0; !cluster.waiting.empty(); ++connections) {
            ASSERT_LT(connections, 100) << "each connection answers, fails or repeats something";
            cluster.connection(connections == 0 ? Channel::Start::kTogether : Channel::Start::kAlone,
                               cluster.random.below(6), cluster.random.below(2) == 0);
        }
        EXPECT_EQ(cluster.delivered.size() + cluster.failed.size(), 40u);
        for (const std::uint64_t id : cluster.failed) {
            EXPECT_EQ(cluster.delivered.count(id), 0u) << id;
        }
        for (const auto& [id, times] : cluster.executed) {
            EXPECT_LE(times, 2) << id;
        }
    }
}

// --- PipelineSupport --------------------------------------------------------------------------------------

using Unfit = PipelineSupport::Unfit;

// A channel that two requests were sent on and that broke after `answers`.
Channel broken_after(int answers, int in_flight = 2) {
    Channel channel({.depth = 64, .stall_timeout = 1s}, Channel::Start::kTogether);
    for (int i = 0; i < answers + in_flight; ++i) {
        send(channel, static_cast<std::uint64_t>(i));
    }
    for (int i = 0; i < answers; ++i) {
        answer(channel);
    }
    channel.broke();
    return channel;
}
Channel closed_at_once() {
    Channel channel(kLimits, Channel::Start::kAlone);
    send(channel, 1);
    channel.response_head({.version_minor = 1, .keep_alive = false});
    channel.response_end(t0);
    return channel;
}

TEST(PipelineSupport, AnUnknownUpstreamIsTriedAlone) {
    PipelineSupport support;
    EXPECT_TRUE(support.may_pipeline(t0));
    EXPECT_EQ(support.start(false), Channel::Start::kAlone);
    support.proved();
    EXPECT_EQ(support.start(false), Channel::Start::kTogether);
    EXPECT_EQ(support.start(true), Channel::Start::kAlone);
}

TEST(PipelineSupport, Http10FallsBackAtOnceAndIsTriedAgainLater) {
    PipelineSupport support;
    Channel channel(kLimits, Channel::Start::kAlone);
    send(channel, 1);
    channel.response_head({.version_minor = 0, .keep_alive = false});
    channel.response_end(t0);
    EXPECT_EQ(support.ended(channel, t0), Unfit::kHttp10);
    EXPECT_FALSE(support.may_pipeline(t0 + 5min - 1ns));
    EXPECT_TRUE(support.may_pipeline(t0 + 5min));
    EXPECT_EQ(support.start(false), Channel::Start::kAlone);
    EXPECT_EQ(support.ended(channel, t0 + 5min), Unfit::kHttp10);
    EXPECT_FALSE(support.may_pipeline(t0 + 15min - 1ns)) << "the pause doubles";
    support.proved();
    EXPECT_TRUE(support.may_pipeline(t0 + 6min));
    EXPECT_EQ(support.unfit(), std::nullopt);
}

TEST(PipelineSupport, ThreeBreaksInARowWhilePipelinedFallBack) {
    PipelineSupport support;
    EXPECT_EQ(support.ended(broken_after(0), t0), std::nullopt);
    EXPECT_EQ(support.ended(broken_after(0), t0 + 50ms), std::nullopt) << "the same restart";
    EXPECT_EQ(support.ended(broken_after(1), t0 + 1s), std::nullopt);
    EXPECT_EQ(support.ended(broken_after(20), t0 + 2s), std::nullopt) << "it answered enough";
    EXPECT_EQ(support.ended(broken_after(0, 1), t0 + 3s), std::nullopt) << "it was not pipelined to";
    EXPECT_EQ(support.ended(broken_after(2), t0 + 4s), Unfit::kBreaks);
    EXPECT_EQ(support.ended(broken_after(2), t0 + 5s), std::nullopt) << "said once";
}

TEST(PipelineSupport, AnUpstreamThatClosesAfterEachResponseFallsBack) {
    PipelineSupport support;
    EXPECT_EQ(support.ended(closed_at_once(), t0), std::nullopt);
    support.proved();
    EXPECT_EQ(support.ended(closed_at_once(), t0 + 1s), std::nullopt);
    EXPECT_EQ(support.ended(closed_at_once(), t0 + 2s), std::nullopt);
    EXPECT_EQ(support.ended(closed_at_once(), t0 + 3s), Unfit::kCloses) << "three since it had proved fit";
}

TEST(PipelineSupport, A408ToAnIdleConnectionIsNoConfusionAnExtraResponseIs) {
    PipelineSupport support;
    Channel idle(kLimits, Channel::Start::kTogether);
    idle.response_head({});
    EXPECT_EQ(support.ended(idle, t0), std::nullopt);
    Channel confused(kLimits, Channel::Start::kTogether);
    send(confused, 1);
    confused.extra_bytes();
    EXPECT_EQ(support.ended(confused, t0), Unfit::kUnasked);
}

}  // namespace
}  // namespace outrider::policy
