#include "filters/policy/health_detector.h"

#include <cmath>
#include <string>

#include <gtest/gtest.h>

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

const Instant t0{1000s};
const HealthLimits kCount{.interval = 1s};
const HealthLimits kPhi{.phi = true, .interval = 1s};

// Feeds "+" and "-", one a second, and writes what healthy() is after each: "H" or "u".
std::string verdicts(HealthDetector& detector, const std::string& results) {
    std::string out;
    Instant now = t0;
    for (const char result : results) {
        const bool before = detector.healthy();
        const bool changed =
            result == '+' ? detector.on_success(now).changed : detector.on_failure(now).changed;
        EXPECT_EQ(changed, before != detector.healthy()) << results;
        out += detector.healthy() ? 'H' : 'u';
        now += 1s;
    }
    return out;
}

TEST(HealthDetector, IsHealthyButUnknownBeforeTheFirstResult) {
    HealthDetector detector(kCount);
    EXPECT_TRUE(detector.healthy());
    EXPECT_FALSE(detector.known());
    EXPECT_FALSE(detector.next_change());
    EXPECT_FALSE(detector.on_time(t0).changed);
    EXPECT_FALSE(detector.on_success(t0).changed);
    EXPECT_TRUE(detector.known());
    EXPECT_EQ(detector.since(), t0);
}

TEST(HealthDetector, CountsResultsInARow) {
    const struct {
        const char* results;
        const char* healthy;
        std::uint32_t unhealthy_after = 3;
        std::uint32_t healthy_after = 2;
    } rows[] = {
        {"+---", "HHHu"},
        {"+--+--+", "HHHHHHH"},
        {"-", "u"},
        {"-+", "uu"},
        {"-++", "uuH"},
        {"-+-+-++", "uuuuuuH"},
        {"-++---", "uuHHHu"},
        {"+-+", "HuH", 1, 1},
        {"-+", "uH", 1, 1},
        {"-++++", "uuuuH", 3, 4},
        {"+-------------", "HHHHHHHHHHuuuu", 10, 2},
    };
    for (const auto& row : rows) {
        HealthDetector detector({.unhealthy_after = row.unhealthy_after, .healthy_after = row.healthy_after});
        EXPECT_EQ(verdicts(detector, row.results), row.healthy) << row.results;
    }
}

TEST(HealthDetector, SinceIsTheLastChangeOfTheVerdict) {
    HealthDetector detector(kCount);
    detector.on_success(t0);
    detector.on_success(t0 + 1s);
    EXPECT_EQ(detector.since(), t0);
    for (int i = 2; i < 5; ++i) {
        detector.on_failure(t0 + i * 1s);
    }
    EXPECT_EQ(detector.since(), t0 + 4s);
    detector.on_failure(t0 + 5s);
    EXPECT_EQ(detector.since(), t0 + 4s);
}

TEST(HealthDetector, PhiOfTheNormalTailIsRightAndSafeFarOut) {
    EXPECT_NEAR(phi_of_normal(0), std::log10(2), 1e-12);
    EXPECT_NEAR(phi_of_normal(1.2815515655446004), 1, 1e-9);
    EXPECT_NEAR(phi_of_normal(5.612001244174789), 8, 1e-6);
    EXPECT_NEAR(phi_of_normal(20), 88.56, 0.01);
    double last = -1;
    for (double x = -50; x < 60; x += 0.01) {
        const double phi = phi_of_normal(x);
        ASSERT_TRUE(std::isfinite(phi)) << x;
        ASSERT_GE(phi, last) << x;
        ASSERT_GE(phi, 0.0) << x;
        last = phi;
    }
    EXPECT_TRUE(std::isfinite(phi_of_normal(1e100)));
}

// With waits of 0.9 intervals, how many probes are lost before the verdict.
TEST(HealthDetector, PhiThresholdsReadAsLostProbesInARow) {
    const struct {
        double threshold;
        int lost;
    } rows[] = {{1, 1}, {8, 2}, {16, 3}};
    for (const auto& row : rows) {
        HealthDetector detector({.phi = true, .phi_threshold = row.threshold, .interval = 1s});
        Instant now = t0;
        for (int i = 0; i < 300; ++i, now += 900ms) {
            EXPECT_FALSE(detector.on_success(now).changed);
            EXPECT_FALSE(detector.next_change()) << "no failure, no suspicion";
        }
        // Each lost probe is known at the end of its timeout, 300 ms.
        int lost = 0;
        for (; detector.healthy() && lost < 10; now += 900ms) {
            ++lost;
            if (detector.on_failure(now + 300ms).changed) break;
            ASSERT_TRUE(detector.next_change());
            if (*detector.next_change() < now + 900ms) detector.on_time(*detector.next_change());
        }
        EXPECT_EQ(lost, row.lost) << row.threshold;
    }
}

TEST(HealthDetector, PhiChangesExactlyAtTheTimeItNamed) {
    HealthDetector detector(kPhi);
    Instant now = t0;
    for (int i = 0; i < 50; ++i, now += 1s) {
        detector.on_success(now);
    }
    EXPECT_FALSE(detector.on_failure(now).changed);
    const Instant due = detector.next_change().value();
    EXPECT_NEAR(detector.phi(due), kPhi.phi_threshold, 1e-5);
    EXPECT_FALSE(detector.on_time(due - 1ns).changed);
    EXPECT_TRUE(detector.healthy());
    EXPECT_TRUE(detector.on_time(due).changed);
    EXPECT_FALSE(detector.healthy());
    EXPECT_EQ(detector.since(), due);
    EXPECT_FALSE(detector.next_change());
    EXPECT_FALSE(detector.on_time(due + 1h).changed);
    EXPECT_EQ(detector.phi(due + 1h), 0);
}

TEST(HealthDetector, PhiGrowsWithSilence) {
    HealthDetector detector(kPhi);
    detector.on_success(t0);
    detector.on_success(t0 + 1s);
    double last = 0;
    for (Duration silence = 0s; silence < 10s; silence += 100ms) {
        const double phi = detector.phi(t0 + 1s + silence);
        EXPECT_GE(phi, last);
        last = phi;
    }
    EXPECT_TRUE(std::isfinite(detector.phi(t0 + 24h * 365)));
}

TEST(HealthDetector, PhiHasAnEstimateBeforeItHasSamples) {
    HealthDetector detector(kPhi);
    detector.on_success(t0);
    EXPECT_FALSE(detector.on_failure(t0 + 1s).changed) << "one lost probe is not enough";
    EXPECT_GT(*detector.next_change(), t0 + 2s);
    EXPECT_LT(*detector.next_change(), t0 + 3s);
    EXPECT_TRUE(detector.on_failure(t0 + 3s).changed);
}

TEST(HealthDetector, PhiLearnsALossyPath) {
    HealthDetector calm(kPhi);
    HealthDetector lossy(kPhi);
    Instant now = t0;
    for (int i = 0; i < 300; ++i, now += 1s) {
        calm.on_success(now);
        if (i % 3 != 2) lossy.on_success(now);
    }
    calm.on_failure(now);
    lossy.on_failure(now);
    EXPECT_GT(*lossy.next_change() - now, *calm.next_change() - now + 500ms);
    EXPECT_LT(*lossy.next_change() - now, 6s);
}

TEST(HealthDetector, PhiTakesTheFirstFailureAndRecoversByCount) {
    HealthDetector detector(kPhi);
    EXPECT_TRUE(detector.on_failure(t0).changed);
    EXPECT_FALSE(detector.on_success(t0 + 1s).changed);
    EXPECT_FALSE(detector.on_failure(t0 + 2s).changed);
    EXPECT_FALSE(detector.on_success(t0 + 3s).changed);
    EXPECT_TRUE(detector.on_success(t0 + 4s).changed);
}

TEST(HealthDetector, AnOutageOrASleepDoesNotBlindPhi) {
    HealthDetector detector(kPhi);
    Instant now = t0;
    for (int i = 0; i < 100; ++i, now += 900ms) {
        detector.on_success(now);
    }
    for (int i = 0; i < 1000; ++i, now += 900ms) {
        detector.on_failure(now);
    }
    for (int i = 0; i < 3; ++i, now += 900ms) {
        detector.on_success(now);
    }
    detector.on_failure(now);
    EXPECT_LT(*detector.next_change() - now, 2s) << "an outage";

    detector.on_success(now);
    now += 1h;  // this process was stopped
    EXPECT_FALSE(detector.on_time(now).changed);
    EXPECT_FALSE(detector.on_success(now).changed);
    now += 900ms;
    detector.on_failure(now);
    EXPECT_LT(*detector.next_change() - now, 3s) << "a sleep";
}

TEST(HealthDetector, NewLimitsKeepTheVerdictAndJudgeTheNextResult) {
    HealthDetector detector({.unhealthy_after = 10, .interval = 1s});
    detector.on_success(t0);
    for (int i = 1; i <= 5; ++i) {
        detector.on_failure(t0 + i * 1s);
    }
    detector.configure({.unhealthy_after = 3, .interval = 1s});
    EXPECT_TRUE(detector.healthy());
    EXPECT_TRUE(detector.on_failure(t0 + 6s).changed);
    detector.configure({.healthy_after = 1, .interval = 1s});
    EXPECT_FALSE(detector.healthy());
    EXPECT_TRUE(detector.on_success(t0 + 7s).changed);
}

TEST(HealthDetector, PhiStillFindsADeathAfterAChangeOfInterval) {
    HealthDetector detector({.phi = true, .interval = 10s});
    detector.on_success(t0);
    detector.on_success(t0 + 10s);
    detector.configure(kPhi);
    EXPECT_FALSE(detector.on_failure(t0 + 19s).changed) << "the old gap says nothing";
    EXPECT_LT(*detector.next_change(), t0 + 21s);
    EXPECT_TRUE(detector.on_failure(t0 + 21s).changed);
}

TEST(HealthDetector, ProbeWaitsStayInTheirBounds) {
    for (std::uint64_t seed = 0; seed < 1000; ++seed) {
        Random random(seed);
        const Duration wait = probe_wait(2s, random);
        EXPECT_GE(wait, 1600ms) << "seed " << seed;
        EXPECT_LE(wait, 2s) << "seed " << seed;
        EXPECT_LE(first_probe_wait(2s, random), 100ms) << "seed " << seed;
        EXPECT_LE(first_probe_wait(10ms, random), 10ms) << "seed " << seed;
        EXPECT_GE(first_probe_wait(10ms, random), 0ms) << "seed " << seed;
    }
}

}  // namespace
}  // namespace outrider::policy
