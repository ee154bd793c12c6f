#include "control/agent/endpoints.h"

#include <gtest/gtest.h>

namespace outrider::agent {
namespace {

using namespace std::chrono_literals;
const Instant t0 = Instant() + 1h;
constexpr BackoffOptions kBackoff{.first = 100ms, .max = 1s};

TEST(EndpointChoice, StaysWithTheOneThatWorks) {
    EndpointChoice choice(3, kBackoff, 1);
    const std::size_t first = choice.pick(t0).index;
    for (int i = 0; i < 10; ++i) {
        choice.succeeded(first);
        EXPECT_EQ(choice.pick(t0 + i * 1s).index, first);
    }
}

TEST(EndpointChoice, ClientsSpreadOverTheMembers) {
    std::vector<int> counts(3);
    for (std::uint64_t seed = 0; seed < 300; ++seed)
        ++counts[EndpointChoice(3, kBackoff, seed).pick(t0).index];
    for (const int count : counts)
        EXPECT_GT(count, 60);
}

TEST(EndpointChoice, MovesWhenItFailsAndDoesNotComeBackByItself) {
    EndpointChoice choice(3, kBackoff, 1);
    const std::size_t first = choice.pick(t0).index;
    choice.failed(first, t0);
    const std::size_t second = choice.pick(t0).index;
    EXPECT_NE(second, first);
    EXPECT_EQ(choice.pick(t0 + 10s).index, second);  // the first has rested, and the second works
}

TEST(EndpointChoice, OneRequestThatLooksElsewhereMovesNobody) {
    EndpointChoice choice(3, kBackoff, 1);
    const std::size_t first = choice.pick(t0).index;
    EndpointSet tried;
    tried.set(first);
    EXPECT_NE(choice.pick(t0, tried).index, first);
    EXPECT_EQ(choice.pick(t0).index, first);
}

TEST(EndpointChoice, WhenAllRestTheOneWhoseRestEndsFirstIsNamedWithItsTime) {
    EndpointChoice choice(2, kBackoff, 1);
    choice.failed(0, t0);
    choice.failed(1, t0 + 5s);
    const auto pick = choice.pick(t0 + 5s);
    EXPECT_EQ(pick.index, 0u);
    choice.failed(0, t0 + 5s);
    const auto later = choice.pick(t0 + 5s);
    EXPECT_GT(later.not_before, t0 + 5s);
    EXPECT_LE(later.not_before, t0 + 5s + 200ms);
    EXPECT_EQ(choice.pick(later.not_before).not_before, later.not_before);
}

TEST(EndpointChoice, ManyFailuresWhileItRestsAreOne) {
    EndpointChoice choice(1, kBackoff, 1);
    for (int i = 0; i < 100; ++i)
        choice.failed(0, t0);
    EXPECT_LE(choice.pick(t0).not_before, t0 + kBackoff.first);
}

TEST(EndpointChoice, RestsGrowToTheirBoundAndEndWithASuccess) {
    EndpointChoice choice(1, kBackoff, 1);
    Instant now = t0;
    Duration last{};
    for (int i = 0; i < 12; ++i) {
        choice.failed(0, now);
        const Instant until = choice.pick(now).not_before;
        last = until - now;
        EXPECT_GE(last, kBackoff.first / 2);
        EXPECT_LE(last, kBackoff.max);
        now = until;
    }
    EXPECT_GE(last, kBackoff.max / 2);
    choice.succeeded(0);
    EXPECT_LE(choice.pick(now).not_before, now);
    choice.failed(0, now);
    EXPECT_LE(choice.pick(now).not_before, now + kBackoff.first);
}

// Whatever happens: what is named does not rest while another candidate does not, and is not tried while another is not.
TEST(EndpointChoice, HoldsItsInvariantsInAnyOrderOfEvents) {
    Random random(7);
    for (int round = 0; round < 200; ++round) {
        const std::size_t count = 1 + random.below(5);
        EndpointChoice choice(count, kBackoff, random.next());
        Instant now = t0;
        for (int step = 0; step < 100; ++step) {
            now += Duration(static_cast<std::int64_t>(random.below(200'000'000)));
            const std::size_t index = random.below(count);
            random.below(2) == 0 ? choice.failed(index, now) : choice.succeeded(index);
            EndpointSet tried(random.below(1u << count));
            const auto pick = choice.pick(now, tried);
            ASSERT_LT(pick.index, count);
            std::size_t untried = 0;
            bool one_ready = false;
            for (std::size_t i = 0; i < count; ++i)
                untried += tried[i] ? 0 : 1;
            for (std::size_t i = 0; i < count; ++i)
                one_ready |= (untried == 0 || !tried[i]) && !choice.rests(i, now);
            if (untried != 0) {
                ASSERT_FALSE(tried[pick.index]);
            }
            ASSERT_EQ(choice.rests(pick.index, now), !one_ready);
            ASSERT_EQ(pick.not_before > now, !one_ready);
        }
    }
}

}  // namespace
}  // namespace outrider::agent
