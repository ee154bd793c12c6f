#include "filters/policy/batch.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;
using Arrival = BatchQueue::Arrival;
using Left = BatchQueue::Left;

const Instant t0{1000s};

BatchQueue::Member member(std::uint64_t id, std::uint64_t bytes = 10, bool repeatable = true) {
    return {.id = MemberId{id}, .bytes = {bytes}, .repeatable = repeatable};
}
void arrive(BatchQueue& queue, std::uint64_t first, std::uint64_t last, Instant now = t0) {
    for (std::uint64_t id = first; id <= last; ++id) {
        ASSERT_EQ(queue.arrive(member(id), now), Arrival::kQueued);
    }
}

TEST(BatchQueue, WithNothingInFlightARequestLeavesAtOnce) {
    BatchQueue queue({});
    arrive(queue, 1, 1);
    EXPECT_EQ(queue.next_deadline(), t0);
    const auto call = queue.next(t0);
    ASSERT_TRUE(call);
    EXPECT_THAT(call->members, ElementsAre(MemberId{1}));
    EXPECT_FALSE(queue.next(t0));
}

TEST(BatchQueue, WhileACallIsInFlightTheNextOneFills) {
    BatchQueue queue({});
    arrive(queue, 1, 1);
    const auto first = queue.next(t0);
    arrive(queue, 2, 4);
    EXPECT_FALSE(queue.next(t0 + 1h));
    EXPECT_EQ(queue.next_deadline(), std::nullopt);
    queue.finished(first->id);
    EXPECT_THAT(queue.next(t0)->members, ElementsAre(MemberId{2}, MemberId{3}, MemberId{4}));
}

TEST(BatchQueue, LingerIsABoundedWaitFromTheFirstMember) {
    BatchQueue queue({.items_max = 3, .linger = 5ms});
    arrive(queue, 1, 1, t0);
    arrive(queue, 2, 2, t0 + 4ms);
    EXPECT_FALSE(queue.next(t0 + 4999us));
    EXPECT_EQ(queue.next_deadline(), t0 + 5ms);
    const auto call = queue.next(t0 + 5ms);
    EXPECT_EQ(call->members.size(), 2u);
    arrive(queue, 3, 4, t0 + 6ms);
    queue.finished(call->id);
    EXPECT_EQ(queue.next_deadline(), t0 + 11ms);
    arrive(queue, 5, 5, t0 + 7ms);
    EXPECT_EQ(queue.next_deadline(), std::nullopt) << "it is full";
    EXPECT_EQ(queue.next(t0 + 7ms)->members.size(), 3u);
}

TEST(BatchQueue, ACallIsBoundedByItemsAndByBytes) {
    BatchQueue queue({.items_max = 3, .bytes_max = {100}});
    EXPECT_EQ(queue.arrive(member(1, 101), t0), Arrival::kTooLarge);
    arrive(queue, 1, 5);
    const auto first = queue.next(t0);
    EXPECT_EQ(first->members.size(), 3u);
    queue.finished(first->id);
    queue.arrive(member(6, 81), t0);
    queue.arrive(member(7, 100), t0);
    const auto second = queue.next(t0);
    EXPECT_THAT(second->members, ElementsAre(MemberId{4}, MemberId{5})) << "6 would make it 101 bytes";
    queue.finished(second->id);
    const auto third = queue.next(t0);
    EXPECT_THAT(third->members, ElementsAre(MemberId{6}));
    queue.finished(third->id);
    EXPECT_THAT(queue.next(t0)->members, ElementsAre(MemberId{7}));
}

TEST(BatchQueue, OnlyFullCallsLeaveBesideAnother) {
    BatchQueue queue({.items_max = 2, .in_flight_max = 2});
    arrive(queue, 1, 1);
    EXPECT_TRUE(queue.next(t0));
    arrive(queue, 2, 2);
    EXPECT_FALSE(queue.next(t0 + 1h));
    arrive(queue, 3, 5);
    EXPECT_THAT(queue.next(t0)->members, ElementsAre(MemberId{2}, MemberId{3}));
    EXPECT_FALSE(queue.next(t0)) << "two are in flight";
}

TEST(BatchQueue, AtItsBoundItSaysNo) {
    BatchQueue queue({.waiting_max = 2});
    arrive(queue, 1, 2);
    EXPECT_EQ(queue.arrive(member(3), t0), Arrival::kFull);
    queue.leave(MemberId{1});
    EXPECT_EQ(queue.arrive(member(3), t0), Arrival::kQueued);
}

TEST(BatchQueue, WhoLeavesIsRemovedBeforeAndItsAnswerDroppedAfterItIsSent) {
    BatchQueue queue({});
    arrive(queue, 1, 2);
    EXPECT_EQ(queue.leave(MemberId{1}), Left::kRemoved);
    EXPECT_EQ(queue.leave(MemberId{1}), Left::kUnknown);
    arrive(queue, 3, 3);
    const auto call = queue.next(t0);
    EXPECT_THAT(call->members, ElementsAre(MemberId{2}, MemberId{3}));
    EXPECT_EQ(queue.leave(MemberId{2}), Left::kDropAnswer);
    EXPECT_EQ(queue.leave(MemberId{2}), Left::kUnknown);
    EXPECT_FALSE(queue.wants_answer(call->id, MemberId{2}));
    EXPECT_TRUE(queue.wants_answer(call->id, MemberId{3}));
    EXPECT_FALSE(queue.wants_answer(call->id, MemberId{1}));
}

TEST(BatchQueue, AFailedCallIsSplitIntoWhatMayBeRepeated) {
    for (const bool split_on_failure : {true, false}) {
        BatchQueue queue({});
        queue.arrive(member(1, 10, true), t0);
        queue.arrive(member(2, 10, false), t0);
        queue.arrive(member(3, 10, true), t0);
        queue.arrive(member(4, 10, true), t0);
        const auto call = queue.next(t0);
        queue.leave(MemberId{3});
        const auto split = queue.failed(call->id, split_on_failure);
        if (split_on_failure) {
            EXPECT_THAT(split.one_by_one, ElementsAre(MemberId{1}, MemberId{4}));
            EXPECT_THAT(split.failed, ElementsAre(MemberId{2}));
        } else {
            EXPECT_THAT(split.one_by_one, IsEmpty());
            EXPECT_THAT(split.failed, ElementsAre(MemberId{1}, MemberId{2}, MemberId{4}));
        }
        EXPECT_EQ(queue.calls_in_flight(), 0u);
    }
}

TEST(BatchQueue, ACallOfOneIsNotSplit) {
    BatchQueue queue({});
    arrive(queue, 1, 1);
    const auto split = queue.failed(queue.next(t0)->id, true);
    EXPECT_THAT(split.failed, ElementsAre(MemberId{1}));
}

TEST(BatchQueue, EachLeavesOnceInOrderWithinTheBounds) {
    for (std::uint64_t seed = 1; seed <= 50; ++seed) {
        SCOPED_TRACE(seed);
        Random random{seed};
        const BatchLimits limits{.items_max = 1 + random.below(8),
                                 .bytes_max = {200},
                                 .linger = Duration(random.below(3) * 1'000'000),
                                 .in_flight_max = 1 + random.below(3),
                                 .waiting_max = 30};
        BatchQueue queue(limits);
        std::map<MemberId, std::uint64_t> waiting;
        std::map<CallId, std::set<MemberId>> calls;
        std::uint64_t next_id = 1;
        MemberId last_sent{};
        Instant now = t0;
        for (int step = 0; step < 2'000; ++step) {
            now += Duration(random.below(500'000));
            const std::uint64_t what = random.below(10);
            if (what < 6) {
                const auto m = member(next_id++, random.below(210), random.below(2) == 0);
                const auto arrival = queue.arrive(m, now);
                EXPECT_EQ(arrival == Arrival::kTooLarge, m.bytes.value > 200);
                if (arrival == Arrival::kQueued) waiting[m.id] = m.bytes.value;
            } else if (what < 7 && !waiting.empty()) {
                EXPECT_EQ(queue.leave(waiting.begin()->first), Left::kRemoved);
                waiting.erase(waiting.begin());
            } else if (!calls.empty()) {
                const auto call = calls.begin();
                if (what < 9) {
                    queue.finished(call->first);
                } else {
                    const auto split = queue.failed(call->first, true);
                    EXPECT_EQ(split.failed.size() + split.one_by_one.size(), call->second.size());
                }
                calls.erase(call);
            }
            while (const auto call = queue.next(now)) {
                std::uint64_t bytes = 0;
                for (const MemberId id : call->members) {
                    ASSERT_GT(id, last_sent);
                    last_sent = id;
                    bytes += waiting.at(id);
                    waiting.erase(id);
                    calls[call->id].insert(id);
                }
                ASSERT_GE(call->members.size(), 1u);
                ASSERT_LE(call->members.size(), limits.items_max);
                ASSERT_LE(bytes, 200u);
            }
            ASSERT_EQ(queue.waiting(), waiting.size());
            ASSERT_LE(calls.size(), limits.in_flight_max);
            const auto deadline = queue.next_deadline();
            ASSERT_TRUE(!deadline || *deadline > now) << "what is due has left";
            ASSERT_TRUE(waiting.empty() || deadline || !calls.empty()) << "nobody waits for ever";
        }
    }
}

// Clients in a closed loop against an application that works on one call after the other.
struct Rate {
    double answers_per_second = 0;
    double p50_ms = 0;
};
Rate closed_loop(std::size_t clients, BatchLimits limits, Duration fixed, Duration each) {
    BatchQueue queue(limits);
    std::vector<Duration> asked(clients);
    std::vector<double> latencies;
    Duration now{};
    std::deque<std::pair<Duration, BatchQueue::Call>> running;
    Duration free_at{};
    const auto ask = [&](MemberId client) {
        asked[static_cast<std::size_t>(client)] = now;
        queue.arrive({.id = client, .bytes = {100}, .repeatable = true}, t0 + now);
    };
    const auto send = [&] {
        while (auto call = queue.next(t0 + now)) {
            free_at = std::max(free_at, now) + fixed + each * static_cast<int>(call->members.size());
            running.emplace_back(free_at, std::move(*call));
        }
    };
    for (std::size_t i = 0; i < clients; ++i) {
        ask(MemberId{i});
        send();
    }
    while (now < 10s) {
        now = running.front().first;
        const BatchQueue::Call call = std::move(running.front().second);
        running.pop_front();
        queue.finished(call.id);
        for (const MemberId client : call.members) {
            latencies.push_back(seconds_of(now - asked[static_cast<std::size_t>(client)]) * 1e3);
            ask(client);
        }
        send();
    }
    const auto middle = latencies.begin() + static_cast<std::ptrdiff_t>(latencies.size() / 2);
    std::nth_element(latencies.begin(), middle, latencies.end());
    return {.answers_per_second = static_cast<double>(latencies.size()) / seconds_of(now), .p50_ms = *middle};
}

TEST(BatchSimulation, ACallThatCostsAMillisecondIsSharedByMany) {
    const BatchLimits unbatched{.items_max = 1};
    for (const std::size_t clients : {std::size_t{1}, std::size_t{16}, std::size_t{256}}) {
        const Rate one = closed_loop(clients, unbatched, 1ms, 2us);
        const Rate many = closed_loop(clients, {}, 1ms, 2us);
        std::printf("%3zu clients: unbatched %7.0f/s p50 %6.2f ms   batched %7.0f/s p50 %6.2f ms\n", clients,
                    one.answers_per_second, one.p50_ms, many.answers_per_second, many.p50_ms);
        if (clients == 1) {
            EXPECT_LE(many.p50_ms, 1.05 * one.p50_ms);
        }
        if (clients == 256) {
            EXPECT_GE(many.answers_per_second, 10 * one.answers_per_second);
        }
    }
}

}  // namespace
}  // namespace outrider::policy
