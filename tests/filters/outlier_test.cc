#include "filters/policy/outlier.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

const Instant t0{1000s};

std::vector<OutlierHandle> add(OutlierPolicy& policy, std::size_t n) {
    std::vector<OutlierHandle> handles;
    for (std::size_t i = 0; i < n; ++i) {
        handles.push_back(policy.add());
    }
    return handles;
}

TEST(Outlier, AnEjectedEndpointReturnsWhenItsTimeIsUp) {
    OutlierPolicy policy({.ejection = 30s});
    const auto e = add(policy, 2);
    EXPECT_FALSE(policy.next_return());
    EXPECT_TRUE(policy.on_failure_streak(e[0], t0));
    EXPECT_TRUE(policy.ejected(e[0]));
    EXPECT_FALSE(policy.ejected(e[1]));
    EXPECT_EQ(policy.ejected_until(e[0]), t0 + 30s);
    EXPECT_EQ(policy.next_return(), t0 + 30s);
    EXPECT_TRUE(policy.return_due(t0 + 30s - 1ns).empty());
    EXPECT_EQ(policy.return_due(t0 + 30s), std::vector{e[0]});
    EXPECT_FALSE(policy.ejected(e[0]));
    EXPECT_FALSE(policy.ejected_until(e[0]));
    EXPECT_FALSE(policy.next_return());
    EXPECT_EQ(policy.times_ejected(e[0]), 1u);
    EXPECT_EQ(policy.ejections(), 1u);
}

TEST(Outlier, EjectionsInARowDoubleUpToTenTimesTheFirst) {
    OutlierPolicy policy({.ejection = 30s});
    const auto e = add(policy, 2);
    Instant now = t0;
    for (const Duration expected : {30s, 60s, 120s, 240s, 300s, 300s, 300s}) {
        ASSERT_TRUE(policy.on_failure_streak(e[0], now));
        EXPECT_EQ(*policy.ejected_until(e[0]) - now, expected);
        now = *policy.next_return();
        policy.return_due(now);
    }
    EXPECT_EQ(policy.times_ejected(e[0]), 7u);
}

TEST(Outlier, TimeSpentWellTakesStepsOffAgain) {
    const struct {
        Duration well;
        Duration next;
    } rows[] = {{0s, 240s}, {29s, 240s}, {30s, 120s}, {59s, 120s},
                {60s, 60s}, {90s, 30s},  {91s, 30s},  {24h * 365, 30s}};
    for (const auto& row : rows) {
        OutlierPolicy policy({.ejection = 30s});
        const auto e = add(policy, 2);
        Instant now = t0;
        for (int i = 0; i < 3; ++i) {
            policy.on_failure_streak(e[0], now);
            now = *policy.next_return();
            policy.return_due(now);
        }
        now += row.well;
        policy.on_failure_streak(e[0], now);
        EXPECT_EQ(*policy.ejected_until(e[0]) - now, row.next) << seconds_of(row.well);
    }
}

TEST(Outlier, AnEndpointThatReturnsIsOnProbationUntilASuccess) {
    OutlierPolicy policy({.consecutive_failures = 5, .ejection = 30s});
    const auto e = add(policy, 2);
    EXPECT_EQ(policy.threshold(e[0]), 5u);
    policy.on_failure_streak(e[0], t0);
    policy.on_success(e[0]);  // sent before the ejection, answered after it
    EXPECT_TRUE(policy.ejected(e[0]));
    policy.return_due(t0 + 30s);
    EXPECT_EQ(policy.threshold(e[0]), 1u);
    EXPECT_EQ(policy.threshold(e[1]), 5u);
    EXPECT_TRUE(policy.on_failure_streak(e[0], t0 + 31s));
    policy.return_due(t0 + 91s);
    policy.on_success(e[0]);
    EXPECT_EQ(policy.threshold(e[0]), 5u);
}

TEST(Outlier, AStreakOfAnEndpointThatIsOutChangesNothing) {
    OutlierPolicy policy({.ejection = 30s});
    const auto e = add(policy, 4);
    EXPECT_TRUE(policy.on_failure_streak(e[0], t0));
    EXPECT_FALSE(policy.on_failure_streak(e[0], t0 + 1s));
    EXPECT_EQ(policy.ejected_until(e[0]), t0 + 30s);
    EXPECT_EQ(policy.times_ejected(e[0]), 1u);
    EXPECT_EQ(policy.refused(), 0u);
}

TEST(Outlier, TheCapHolds) {
    const struct {
        std::size_t endpoints;
        std::uint32_t percent;
        std::size_t out;
    } rows[] = {{1, 100, 0}, {2, 100, 2}, {2, 50, 1},  {2, 1, 1},  {2, 0, 0},   {3, 50, 1},    {3, 66, 1},
                {3, 67, 2},  {10, 50, 5}, {10, 19, 1}, {10, 0, 0}, {100, 1, 1}, {100, 33, 33}, {7, 100, 7}};
    for (const auto& row : rows) {
        OutlierPolicy policy({.max_ejected_percent = row.percent});
        std::size_t out = 0;
        for (const OutlierHandle handle : add(policy, row.endpoints)) {
            out += policy.on_failure_streak(handle, t0) ? 1 : 0;
        }
        EXPECT_EQ(out, row.out) << row.endpoints << " at " << row.percent;
        EXPECT_EQ(policy.ejected_count(), row.out);
        EXPECT_EQ(policy.refused(), row.endpoints - row.out);
    }
}

TEST(Outlier, ARefusedEjectionIsNotTimeSpentWell) {
    OutlierPolicy policy({.ejection = 30s, .max_ejected_percent = 50});
    const auto e = add(policy, 2);
    policy.on_failure_streak(e[0], t0);
    policy.return_due(t0 + 30s);
    policy.on_failure_streak(e[1], t0 + 30s);
    EXPECT_FALSE(policy.on_failure_streak(e[0], t0 + 50s));
    EXPECT_EQ(policy.return_due(t0 + 60s), std::vector{e[1]});
    EXPECT_TRUE(policy.on_failure_streak(e[0], t0 + 79s));
    EXPECT_EQ(policy.ejected_until(e[0]), t0 + 79s + 60s);
}

TEST(Outlier, AShrinkingClusterCallsBackWhatTheCapNoLongerAllows) {
    OutlierPolicy policy({.ejection = 30s, .max_ejected_percent = 50});
    const auto e = add(policy, 4);
    policy.on_failure_streak(e[0], t0 + 1s);
    policy.on_failure_streak(e[1], t0);
    policy.remove(e[2]);
    EXPECT_EQ(policy.max_out(), 1u);
    EXPECT_EQ(policy.ejected_until(e[1]), Instant::min());
    EXPECT_EQ(policy.ejected_until(e[0]), t0 + 31s);
    EXPECT_EQ(policy.return_due(t0 + 2s), std::vector{e[1]});
    policy.remove(e[3]);
    EXPECT_TRUE(policy.return_due(t0 + 3s).empty()) << "one of two may be out";
    policy.remove(e[1]);
    EXPECT_EQ(policy.next_return(), Instant::min());
    EXPECT_EQ(policy.return_due(t0 + 4s), std::vector{e[0]}) << "the only one";
    EXPECT_EQ(policy.ejected_count(), 0u);
}

TEST(Outlier, NewLimitsHoldAtOnceButEndsStay) {
    OutlierPolicy policy({.consecutive_failures = 5, .ejection = 30s, .max_ejected_percent = 100});
    const auto e = add(policy, 4);
    for (std::size_t i = 0; i < e.size(); ++i) {
        policy.on_failure_streak(e[i], t0 + i * 1s);
    }
    policy.configure({.consecutive_failures = 7, .ejection = 10s, .max_ejected_percent = 50});
    EXPECT_EQ(policy.return_due(t0 + 4s).size(), 2u);
    EXPECT_EQ(policy.next_return(), t0 + 32s);
    policy.on_success(e[0]);
    EXPECT_EQ(policy.threshold(e[0]), 7u);
    policy.configure({.max_ejected_percent = 0});
    EXPECT_EQ(policy.return_due(t0 + 4s).size(), 2u);
}

TEST(Outlier, AHandleThatIsUsedAgainStartsAnew) {
    OutlierPolicy policy({.ejection = 30s});
    auto e = add(policy, 3);
    policy.on_failure_streak(e[0], t0);
    policy.remove(e[0]);
    EXPECT_EQ(policy.ejected_count(), 0u);
    EXPECT_FALSE(policy.next_return());
    const OutlierHandle again = policy.add();
    EXPECT_EQ(again, e[0]);
    EXPECT_FALSE(policy.ejected(again));
    EXPECT_EQ(policy.times_ejected(again), 0u);
    EXPECT_TRUE(policy.on_failure_streak(again, t0));
    EXPECT_EQ(policy.ejected_until(again), t0 + 30s);
}

TEST(Outlier, TheCapHoldsThroughAnyHistory) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        Random random(seed);
        OutlierPolicy policy(
            {.ejection = 1s, .max_ejected_percent = static_cast<std::uint32_t>(random.below(101))});
        auto handles = add(policy, 5);
        Instant now = t0;
        for (int i = 0; i < 2000; ++i) {
            now += Duration(static_cast<Duration::rep>(random.below(300'000'000)));
            const std::uint64_t what = random.below(10);
            if (what == 0) handles.push_back(policy.add());
            if (what == 1 && !handles.empty()) {
                policy.remove(handles.back());
                handles.pop_back();
            }
            if (what > 1 && !handles.empty())
                policy.on_failure_streak(handles[random.below(handles.size())], now);
            if (policy.next_return() && *policy.next_return() <= now) policy.return_due(now);
            ASSERT_EQ(policy.size(), handles.size());
            ASSERT_LE(policy.ejected_count(), policy.max_out()) << "seed " << seed;
        }
    }
}

TEST(Outlier, PanicIsAStrictShare) {
    const struct {
        std::size_t usable;
        std::size_t total;
        std::uint32_t percent;
        bool panic;
    } rows[] = {{0, 10, 0, false}, {5, 10, 50, false}, {4, 10, 50, true},   {0, 1, 1, true},
                {0, 0, 50, false}, {9, 10, 100, true}, {10, 10, 100, false}};
    for (const auto& row : rows) {
        EXPECT_EQ(panic(row.usable, row.total, row.percent), row.panic) << row.usable << "/" << row.total;
    }
}

}  // namespace
}  // namespace outrider::policy
