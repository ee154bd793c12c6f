#include "filters/policy/dns_refresh.h"

#include <gtest/gtest.h>

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

const Instant t0{1000s};
const std::vector<BalancerEndpoint> kTwo = {{"10.0.0.1:80", 1}, {"10.0.0.2:80", 1}};

TEST(DnsRefresh, AnAnswerIsAskedAgainAfterItsClampedTtl) {
    const struct {
        Duration ttl;
        Duration delay;
    } rows[] = {{0s, 1s}, {500ms, 1s}, {1s, 1s}, {30s, 30s}, {5min, 5min}, {24h, 5min}, {-1s, 1s}};
    Random random(1);
    for (const auto& row : rows) {
        DnsRefresh refresh;
        EXPECT_EQ(refresh.on_answer(t0, kTwo, row.ttl, random).next, t0 + row.delay);
    }
}

TEST(DnsRefresh, FailuresBackOffWithJitterInsideTheirBounds) {
    const struct {
        Duration least;
        Duration most;
    } rows[] = {{1s, 2s}, {2s, 4s}, {4s, 8s}, {8s, 16s}, {15s, 30s}, {15s, 30s}, {15s, 30s}};
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        Random random(seed);
        DnsRefresh refresh;
        for (const auto& row : rows) {
            const Duration delay = refresh.on_failure(t0, random).next - t0;
            EXPECT_GE(delay, row.least) << "seed " << seed;
            EXPECT_LE(delay, row.most) << "seed " << seed;
        }
    }
}

TEST(DnsRefresh, FailuresKeepTheLastGoodEndpoints) {
    Random random(1);
    DnsRefresh refresh;
    EXPECT_TRUE(refresh.endpoints().empty());
    EXPECT_FALSE(refresh.on_failure(t0, random).changed);
    EXPECT_TRUE(refresh.on_answer(t0, kTwo, 5s, random).changed);
    for (int i = 0; i < 100; ++i) {
        EXPECT_FALSE(refresh.on_failure(t0, random).changed);
    }
    EXPECT_EQ(refresh.endpoints(), kTwo);
    EXPECT_EQ(refresh.failures(), 100u);
}

TEST(DnsRefresh, AnAnswerEndsTheBackoff) {
    Random random(1);
    DnsRefresh refresh;
    for (int i = 0; i < 10; ++i) {
        refresh.on_failure(t0, random);
    }
    refresh.on_answer(t0, kTwo, 5s, random);
    EXPECT_EQ(refresh.failures(), 0u);
    EXPECT_LE(refresh.on_failure(t0, random).next, t0 + 2s);
}

TEST(DnsRefresh, RotationAndRepetitionChangeNothing) {
    Random random(1);
    DnsRefresh refresh;
    refresh.on_answer(t0, kTwo, 5s, random);
    EXPECT_FALSE(refresh.on_answer(t0, {kTwo[1], kTwo[0], kTwo[1]}, 5s, random).changed);
    EXPECT_TRUE(refresh.on_answer(t0, {kTwo[1]}, 5s, random).changed);
    EXPECT_TRUE(refresh.on_answer(t0, {{kTwo[1].id, 7}}, 5s, random).changed) << "weights count";
}

TEST(DnsRefresh, AnEmptyAnswerIsAFailure) {
    Random random(1);
    DnsRefresh refresh;
    refresh.on_answer(t0, kTwo, 5s, random);
    EXPECT_FALSE(refresh.on_answer(t0, {}, 5min, random).changed);
    EXPECT_EQ(refresh.endpoints(), kTwo);
    EXPECT_EQ(refresh.failures(), 1u);
}

TEST(DnsRefresh, OddLimitsStayInTheirBounds) {
    Random random(1);
    DnsRefresh refresh({.ttl_min = 1s, .ttl_max = 1s, .backoff_min = 5s, .backoff_max = 5s});
    EXPECT_EQ(refresh.on_failure(t0, random).next, t0 + 5s);
    EXPECT_EQ(refresh.on_failure(t0, random).next, t0 + 5s);
}

}  // namespace
}  // namespace outrider::policy
