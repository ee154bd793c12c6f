#include "filters/policy/rate_limit.h"

#include <cmath>
#include <cstdlib>
#include <map>

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

const Instant t0{1000s};

TEST(RateLimit, ABurstIsAllowedAtOnceAndThenTheRate) {
    const RateScale scale(10, 3);
    RateBucket bucket;
    const struct {
        Duration at;
        bool allowed;
        std::uint64_t remaining;
        Duration retry_after;
        Duration reset;
    } rows[] = {
        {0ms, true, 2, 0ms, 100ms},    {0ms, true, 1, 0ms, 200ms},     {0ms, true, 0, 0ms, 300ms},
        {0ms, false, 0, 100ms, 300ms}, {40ms, false, 0, 60ms, 260ms},  {100ms, true, 0, 0ms, 300ms},
        {250ms, true, 0, 0ms, 250ms},  {290ms, false, 0, 10ms, 210ms}, {10s, true, 2, 0ms, 100ms},
    };
    for (const auto& row : rows) {
        const RateDecision decision = bucket.take(scale, t0 + row.at);
        EXPECT_EQ(decision.allowed, row.allowed) << row.at.count();
        EXPECT_EQ(decision.remaining, row.remaining) << row.at.count();
        // A tick is up to 4 ns; a wait is never too short, which the next test shows.
        EXPECT_LE(std::abs((decision.retry_after - row.retry_after).count()), 4) << row.at.count();
        EXPECT_LE(std::abs((decision.reset - row.reset).count()), 4) << row.at.count();
    }
}

TEST(RateLimit, RetryAfterIsTheFirstInstantThatIsAllowed) {
    for (std::uint64_t seed = 0; seed < 2000; ++seed) {
        Random random(seed);
        const double rate = std::pow(10, -3 + 9 * random.unit());
        const RateScale scale(rate, static_cast<std::uint32_t>(1 + random.below(20)));
        RateBucket bucket;
        Instant now = t0 + Duration(static_cast<Duration::rep>(random.below(1ULL << 50)));
        RateDecision decision;
        do {
            decision = bucket.take(scale, now);
        } while (decision.allowed);
        RateBucket early = bucket;
        EXPECT_FALSE(early.take(scale, now + decision.retry_after - 1ns).allowed) << "seed " << seed;
        EXPECT_TRUE(bucket.take(scale, now + decision.retry_after).allowed) << "seed " << seed;
    }
}

TEST(RateLimit, WholeSecondsStayWhole) {
    for (const double rate : {0.001, 0.01, 0.02, 0.04, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0}) {
        for (const Duration since : {0s, 1000s, 123'456'789s}) {
            const RateScale scale(rate, 1);
            RateBucket bucket;
            const Instant now{since + 987'654'321ns};
            ASSERT_TRUE(bucket.take(scale, now).allowed);
            const RateDecision decision = bucket.take(scale, now);
            EXPECT_LE(decision.retry_after, Duration(std::llround(1e9 / rate)))
                << rate << ": not a second more";
            EXPECT_GE(decision.retry_after, Duration(std::llround(1e9 / rate)) - 4ns) << rate;
        }
    }
}

TEST(RateLimit, TheRateIsExactOverLongTimes) {
    for (const double rate : {0.001, 0.3, 3.0, 7.77, 999.9, 700'000.0, 999'999.0, 1'000'000.0}) {
        const RateScale scale(rate, 5);
        RateBucket bucket;
        constexpr int kTakes = 1'000'000;
        Instant now = t0;
        for (int i = 0; i < kTakes + 5; ++i) {  // asks again exactly when it was told to
            RateDecision decision = bucket.take(scale, now);
            if (decision.allowed) continue;
            now += decision.retry_after;
            ASSERT_TRUE(bucket.take(scale, now).allowed);
        }
        const double expected = kTakes / rate;
        EXPECT_NEAR(seconds_of(now - t0) / expected, 1, 1e-6) << rate;
        EXPECT_LE(std::abs(seconds_of(now - t0) - expected), 1e-8 + expected * 1e-12)
            << rate << ": no drift at all";
    }
}

TEST(RateLimit, NoSpanOfTimeAllowsMoreThanBurstAndRate) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        Random random(seed);
        const RateScale scale(50, 10);
        RateBucket bucket;
        std::vector<Instant> allowed;
        Instant now = t0;
        for (int i = 0; i < 5000; ++i) {
            now += Duration(
                static_cast<Duration::rep>(random.below(random.below(20) == 0 ? 500'000'000 : 10'000'000)));
            if (bucket.take(scale, now).allowed) allowed.push_back(now);
        }
        for (std::size_t from = 0; from < allowed.size(); from += 7) {
            for (std::size_t to = from; to < std::min(allowed.size(), from + 300); ++to) {
                const double most = 10 + 50 * seconds_of(allowed[to] - allowed[from]);
                ASSERT_LE(static_cast<double>(to - from + 1), most + 1e-6) << "seed " << seed;
            }
        }
    }
}

TEST(RateLimit, AClockThatJumpsCostsNoMoreThanTheBucket) {
    const RateScale scale(1, 4);
    RateBucket bucket;
    for (int i = 0; i < 4; ++i) {
        EXPECT_TRUE(bucket.take(scale, t0).allowed);
    }
    const RateDecision back = bucket.take(scale, t0 - 900s);
    EXPECT_FALSE(back.allowed);
    EXPECT_LE(back.retry_after, 1s);
    EXPECT_LE(back.reset, 4s);
    EXPECT_TRUE(bucket.take(scale, t0 - 899s).allowed);
    EXPECT_EQ(bucket.take(scale, t0 + 24h * 365 * 100).remaining, 3u) << "forward: full, not fuller";
    EXPECT_TRUE(RateBucket().take(scale, Instant{-5s}).allowed);
}

TEST(RateLimit, ExtremesDoNotOverflow) {
    for (const double rate : {kRateMin, kRateMax}) {
        const RateScale scale(rate, kRateBurstMax);
        RateBucket bucket;
        const Instant late{24h * 365 * 200};
        for (std::uint32_t i = 0; i < kRateBurstMax; ++i) {
            ASSERT_TRUE(bucket.take(scale, late).allowed);
        }
        const RateDecision decision = bucket.take(scale, late);
        EXPECT_FALSE(decision.allowed);
        EXPECT_NEAR(seconds_of(decision.reset), kRateBurstMax / rate, 1e-3);
        EXPECT_NEAR(seconds_of(decision.retry_after), 1 / rate, 1e-6);
    }
}

TEST(RateTable, KeysHaveBucketsOfTheirOwn) {
    RateTable table(1, 2, 10);
    EXPECT_TRUE(table.take(7, t0).allowed);
    EXPECT_TRUE(table.take(7, t0).allowed);
    EXPECT_FALSE(table.take(7, t0).allowed);
    EXPECT_TRUE(table.take(8, t0).allowed);
    EXPECT_TRUE(table.take(0, t0).allowed) << "0 is a key too";
    EXPECT_EQ(table.keys(), 3u);
    EXPECT_EQ(table.overflowed(), 0u);
}

TEST(RateTable, WhenFullNewKeysShareOneBucketAndOldOnesKeepTheirs) {
    Random random(1);
    RateTable table(1, 2, 100);
    std::vector<std::uint64_t> known;
    for (int i = 0; i < 100; ++i) {
        known.push_back(random.next());
        EXPECT_TRUE(table.take(known.back(), t0).allowed);
    }
    EXPECT_EQ(table.keys(), 100u);
    EXPECT_TRUE(table.take(random.next(), t0).allowed);
    EXPECT_TRUE(table.take(random.next(), t0).allowed);
    EXPECT_FALSE(table.take(random.next(), t0).allowed) << "the shared burst is used up";
    EXPECT_EQ(table.overflowed(), 3u);
    EXPECT_EQ(table.keys(), 100u);
    for (const std::uint64_t key : known) {
        EXPECT_TRUE(table.take(key, t0).allowed);
        EXPECT_FALSE(table.take(key, t0).allowed);
    }
    // All are full again: the hand makes room, a few slots with each new key.
    for (int i = 0; i < 20; ++i) {
        EXPECT_TRUE(table.take(random.next(), t0 + 2s).allowed);
    }
    EXPECT_EQ(table.overflowed(), 3u);
    EXPECT_LT(table.keys(), 60u);
}

TEST(RateTable, AMillionRandomKeysStayBounded) {
    Random random(1);
    RateTable table(1, 5, 1000);
    const std::size_t bytes = table.bytes();
    EXPECT_LE(bytes, 1000 * kRateBytesPerKey + 64);
    Instant now = t0;
    for (int i = 0; i < 1'000'000; ++i) {
        now += 100us;  // 10,000 keys a second, each active for a second
        table.take(random.next(), now);
        ASSERT_LE(table.keys(), 1000u);
    }
    EXPECT_EQ(table.bytes(), bytes);
    EXPECT_GT(table.overflowed(), 800'000u);

    for (int i = 0; i < 200'000; ++i) {
        now += 2ms;  // 500 a second fit
        const std::uint64_t before = table.overflowed();
        table.take(random.next(), now);
        ASSERT_TRUE(i <= 2000 || table.overflowed() == before) << i;
    }
    EXPECT_LT(table.keys(), 800u);
}

// The same decisions as a table without a bound, through evictions and shifts.
TEST(RateTable, DroppingFullBucketsChangesNoDecision) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        Random random(seed);
        const RateScale scale(5, 3);
        RateTable table(5, 3, 64);
        std::map<std::uint64_t, RateBucket> model;
        Instant now = t0;
        for (int i = 0; i < 20'000; ++i) {
            now += Duration(static_cast<Duration::rep>(random.below(20'000'000)));
            // Few values, many of them at the end of the range: chains that wrap around.
            const std::uint64_t small = random.below(200);
            const std::uint64_t key = small % 2 == 0 ? ~small : mix64(small + 1);
            const std::uint64_t overflowed = table.overflowed();
            const RateDecision decision = table.take(key, now);
            if (table.overflowed() != overflowed) continue;
            const RateDecision expected = model[key].take(scale, now);
            ASSERT_EQ(decision.allowed, expected.allowed) << "seed " << seed << " step " << i;
            ASSERT_EQ(decision.remaining, expected.remaining) << "seed " << seed << " step " << i;
        }
    }
}

}  // namespace
}  // namespace outrider::policy
