#include "filters/policy/latency_window.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

const Instant t0{1000s};  // the start of a generation

void record(LatencyWindow& window, Instant now, Duration latency, int count) {
    for (int i = 0; i < count; ++i) {
        window.record(now, latency);
    }
}

static_assert(sizeof(LatencyWindow) <= 4096);

TEST(LatencyWindow, IsNeverBelowTheExactQuantileAndAtMostASixteenthAbove) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        Random random(seed);
        LatencyWindow window;
        std::vector<Duration> all;
        for (std::uint64_t n = 50 + random.below(2000); n > 0; --n) {
            const double nanos =
                50e3 * std::pow(2e6, random.unit());  // 50 us to 100 s, even in the logarithm
            all.push_back(Duration(static_cast<std::int64_t>(nanos)));
            window.record(t0, all.back());
        }
        std::sort(all.begin(), all.end());
        for (const double q : {0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0}) {
            const double rank = std::max(1.0, std::ceil(q * static_cast<double>(all.size()) - 1e-6));
            const Duration exact = all[static_cast<std::size_t>(rank) - 1];
            const std::optional<Duration> read = window.quantile(t0, q);
            ASSERT_TRUE(read);
            EXPECT_GE(*read, exact) << "seed " << seed << " q " << q;
            EXPECT_LE(seconds_of(*read), seconds_of(exact) * 1.0626) << "seed " << seed << " q " << q;
        }
    }
}

TEST(LatencyWindow, ClampsWhatIsOutsideItsRange) {
    const struct {
        Duration latency;
        Duration least;
        Duration most;
    } rows[] = {{-1s, 50us, 50us},
                {0s, 50us, 50us},
                {1ns, 50us, 50us},
                {49us, 50us, 50us},
                {50us, 50us, 54us},
                {99s, 99s, 100s},
                {100s, 100s, 100s},
                {1h, 100s, 100s},
                {Duration::max(), 100s, 100s},
                {Duration::min(), 50us, 50us}};
    for (const auto& row : rows) {
        LatencyWindow window;
        record(window, t0, row.latency, 50);
        const std::optional<Duration> read = window.quantile(t0, 0.95);
        ASSERT_TRUE(read);
        EXPECT_GE(*read, row.least) << row.latency.count();
        EXPECT_LE(*read, row.most) << row.latency.count();
    }
}

TEST(LatencyWindow, KnowsNothingUnderFiftySamples) {
    LatencyWindow window;
    EXPECT_EQ(window.quantile(t0, 0.95), std::nullopt);
    record(window, t0, 10ms, 49);
    EXPECT_EQ(window.quantile(t0, 0.95), std::nullopt);
    window.record(t0, 10ms);
    EXPECT_TRUE(window.quantile(t0, 0.95)) << "an unknown quantile is not cached";
}

TEST(LatencyWindow, SeesTheLastTenToTwentySeconds) {
    const struct {
        Duration recorded;
        Duration read;
        std::uint64_t samples;
    } rows[] = {{0s, 0s, 60}, {0s, 9999ms, 60},  {0s, 10s, 60},    {0s, 19999ms, 60},  {0s, 20s, 0},
                {0s, 1h, 0},  {9s, 19999ms, 60}, {9999ms, 20s, 0}, {10s, 29999ms, 60}, {10s, 30s, 0}};
    for (const auto& row : rows) {
        LatencyWindow window;
        record(window, t0 + row.recorded, 10ms, 60);
        EXPECT_EQ(window.samples(t0 + row.read), row.samples)
            << millis_of(row.recorded) << " " << millis_of(row.read);
        EXPECT_EQ(window.quantile(t0 + row.read, 0.5).has_value(), row.samples > 0);
    }
}

TEST(LatencyWindow, ANewGenerationPushesOutTheOldestOne) {
    LatencyWindow window;
    record(window, t0, 1s, 100);
    record(window, t0 + 10s, 10ms, 100);
    EXPECT_EQ(window.samples(t0 + 10s), 200u);
    EXPECT_GE(window.quantile(t0 + 10s, 0.95).value(), 1s);
    record(window, t0 + 20s, 10ms, 1);
    EXPECT_EQ(window.samples(t0 + 20s), 101u);
    EXPECT_LE(window.quantile(t0 + 20s, 0.95).value(), 11ms);
    record(window, t0 + 50s, 10ms, 1);
    EXPECT_EQ(window.samples(t0 + 50s), 1u) << "a pause drops both";
}

TEST(LatencyWindow, TimeBackwardsCountsIntoTheNewest) {
    LatencyWindow window;
    record(window, t0 + 10s, 10ms, 50);
    record(window, t0, 10ms, 50);
    EXPECT_EQ(window.samples(t0), 100u);
    EXPECT_EQ(window.samples(t0 + 29s), 100u);
    EXPECT_TRUE(window.quantile(t0 - 1h, 0.5));
}

TEST(LatencyWindow, AQuantileIsKeptForATenthOfASecond) {
    LatencyWindow window;
    record(window, t0, 10ms, 100);
    const std::optional<Duration> first = window.quantile(t0 + 1s, 0.95);
    record(window, t0 + 1s, 1s, 1000);
    EXPECT_EQ(window.quantile(t0 + 1099ms, 0.95), first);
    EXPECT_GE(window.quantile(t0 + 1099ms, 0.96).value(), 1s) << "another quantile is another question";
    EXPECT_GE(window.quantile(t0 + 1100ms, 0.95).value(), 1s);
}

TEST(LatencyWindow, OddSharesAreClamped) {
    LatencyWindow window;
    record(window, t0, 1ms, 50);
    record(window, t0, 1s, 50);
    const Duration least = window.quantile(t0, 0).value();
    const Duration most = window.quantile(t0, 1).value();
    EXPECT_LT(least, 2ms);
    EXPECT_GE(most, 1s);
    EXPECT_EQ(window.quantile(t0, -3), std::optional(least));
    EXPECT_EQ(window.quantile(t0, 7), std::optional(most));
    EXPECT_EQ(window.quantile(t0, std::nan("")), std::optional(least));
    EXPECT_EQ(window.quantile(t0, 0.5), std::optional(least)) << "half of them do not exceed it";
}

}  // namespace
}  // namespace outrider::policy
