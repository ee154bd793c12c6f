#include "filters/policy/hedge.h"

#include <gtest/gtest.h>

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

const Instant t0{1000s};

TEST(Hedge, AFixedWaitNeedsNoLatencies) {
    LatencyWindow latency;
    const HedgeLimits limits{.after = 20ms, .percentile = 0, .fallback = 1s};
    EXPECT_EQ(hedge_after(limits, latency, t0), 20ms);
    for (int i = 0; i < 100; ++i) {
        latency.record(t0, 5s);
    }
    EXPECT_EQ(hedge_after(limits, latency, t0), 20ms);
}

TEST(Hedge, APercentileFallsBackUntilEnoughIsKnown) {
    LatencyWindow latency;
    const HedgeLimits limits{.after = 20ms, .percentile = 95, .fallback = 1s};
    for (int i = 0; i < 49; ++i) {
        latency.record(t0, 10ms);
    }
    EXPECT_EQ(hedge_after(limits, latency, t0), 1s);
    latency.record(t0, 10ms);
    const Duration wait = hedge_after(limits, latency, t0);
    EXPECT_GE(wait, 10ms);
    EXPECT_LE(wait, 10625us);
    EXPECT_EQ(hedge_after(limits, latency, t0 + 20s), 1s) << "old latencies are forgotten";
}

TEST(Hedge, ThePercentileIsOfAHundred) {
    LatencyWindow latency;
    for (int i = 1; i <= 1000; ++i) {
        latency.record(t0, i * 1ms);
    }
    const struct {
        double percentile;
        Duration exact;
    } rows[] = {{50, 500ms}, {90, 900ms}, {95, 950ms}, {99.9, 999ms}};
    for (const auto& row : rows) {
        const Duration wait =
            hedge_after({.after = 0s, .percentile = row.percentile, .fallback = 1h}, latency, t0);
        EXPECT_GE(wait, row.exact);
        EXPECT_LE(wait, row.exact + row.exact / 16);
    }
}

// A first attempt that lost to its hedge is recorded with the time until it was given up: the wait that was
// used, or more. The percentile, and with it the share that is hedged, then stays where it is.
TEST(Hedge, RecordingLosersUntilTheyAreGivenUpKeepsTheWaitSteady) {
    LatencyWindow latency;
    const HedgeLimits limits{.after = 0s, .percentile = 95, .fallback = 1s};
    int hedged = 0;
    constexpr int kRequests = 60'000;
    for (int i = 0; i < kRequests; ++i) {
        const Instant now = t0 + i * 1ms;
        const Duration first = i % 20 == 0 ? Duration(2s) : Duration(i % 19 * 1ms + 1ms);
        const Duration wait = hedge_after(limits, latency, now);
        if (first > wait) ++hedged;
        latency.record(now, std::min(first, wait + 5ms));
    }
    EXPECT_LE(hedged, kRequests * 6 / 100);
    EXPECT_GE(hedged, kRequests * 4 / 100);
}

}  // namespace
}  // namespace outrider::policy
