#include "filters/policy/retry_budget.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

const Instant t0{1000s};

int grants(RetryBudget& budget, Instant now, int asked) {
    int granted = 0;
    for (int i = 0; i < asked; ++i) {
        if (budget.try_retry(now)) ++granted;
    }
    return granted;
}

void requests(RetryBudget& budget, Instant now, int count) {
    for (int i = 0; i < count; ++i) {
        budget.on_request(now);
    }
}

TEST(RetryBudget, GrantsTheLargerOfRatioAndFloorAndNotTheirSum) {
    const struct {
        double ratio;
        double min_per_second;
        int requests;
        int granted;
    } rows[] = {
        {0.2, 0, 0, 0},  {0.2, 0, 4, 0},     {0.2, 0, 5, 1},    {0.2, 0, 100, 20}, {0.2, 3, 0, 3},
        {0.2, 3, 10, 3}, {0.2, 3, 15, 3},    {0.2, 3, 100, 20}, {0, 0, 1000, 0},   {0, 3, 1000, 3},
        {1, 0, 7, 7},    {0.29, 0, 100, 29}, {0.07, 0, 100, 7}, {0.1, 0, 30, 3},   {0, 0.25, 0, 1},
        {0, 1.5, 0, 1},  {0, 1000, 0, 1000}, {-1, -1, 100, 0},
    };
    for (const auto& row : rows) {
        RetryBudget budget(row.ratio, row.min_per_second);
        requests(budget, t0, row.requests);
        EXPECT_EQ(grants(budget, t0, 2000), row.granted)
            << "ratio " << row.ratio << " floor " << row.min_per_second << " requests " << row.requests;
    }
}

TEST(RetryBudget, AFloorThatTwoShareAddsNothingToWhatTheRatioAllows) {
    for (const int per_second : {10, 50, 200}) {
        RetryBudget floor(0, 10);
        RetryBudget workers[] = {RetryBudget(0.2, 0), RetryBudget(0.2, 0)};
        for (RetryBudget& worker : workers) {
            worker.set_floor([&](Instant now, bool granted) {
                if (!granted) return floor.try_retry(now);
                floor.count_retry(now);
                return true;
            });
        }
        std::vector<Instant> granted;
        for (int i = 0; i < 10 * per_second; ++i) {
            const Instant now = t0 + i * Duration(1s) / per_second;
            RetryBudget& worker = workers[i % 2];
            worker.on_request(now);
            for (int asked = 0; asked < 2; ++asked) {
                if (worker.try_retry(now)) granted.push_back(now);
            }
        }
        const double allowed = std::max(10.0, 0.2 * per_second);
        EXPECT_GE(static_cast<double>(granted.size()), 0.8 * 10 * allowed) << per_second;
        for (std::size_t i = 0; i < granted.size(); ++i) {
            const auto end = std::lower_bound(granted.begin(), granted.end(), granted[i] + 1s);
            EXPECT_LE(end - granted.begin() - static_cast<std::ptrdiff_t>(i), allowed + 2) << per_second;
        }
    }
}

TEST(RetryBudget, RequestsCountForASecondAtMostAndRetriesForASecondAtLeast) {
    const struct {
        Duration later;
        std::uint64_t requests;
        std::uint64_t retries;
    } rows[] = {{0ms, 10, 2},   {980ms, 10, 2}, {999ms, 10, 2}, {1000ms, 0, 2},
                {1019ms, 0, 2}, {1020ms, 0, 0}, {1h, 0, 0}};
    for (const auto& row : rows) {
        RetryBudget budget(0.2, 0);
        requests(budget, t0, 10);
        EXPECT_EQ(grants(budget, t0, 10), 2);
        EXPECT_EQ(budget.requests_in_window(t0 + row.later), row.requests) << millis_of(row.later);
        EXPECT_EQ(budget.retries_in_window(t0 + row.later), row.retries) << millis_of(row.later);
    }
}

TEST(RetryBudget, AFractionalFloorIsTrueOnAverageAndDoublesNoSecond) {
    for (const double floor : {0.375, 0.5, 1.0, 1.5, 3.0, 7.25}) {
        RetryBudget budget(0, floor);
        std::vector<Instant> granted;
        for (Instant now = t0; now < t0 + 200s; now += 1ms) {
            if (budget.try_retry(now)) granted.push_back(now);
        }
        const auto count = static_cast<double>(granted.size());
        EXPECT_LE(count, std::max(1.0, floor) + floor * 200 + 1e-3) << floor;
        EXPECT_GE(count, 0.97 * floor * 200 - 1) << floor;
        const auto second = static_cast<std::size_t>(std::ceil(floor));
        for (std::size_t i = second; i < granted.size(); ++i) {
            ASSERT_GE(granted[i] - granted[i - second], 1s) << floor;
        }
    }
}

// The ratio alone allows two a second here, the floor 2.5.
TEST(RetryBudget, WhatTheRatioGrantsIsTakenFromTheFloorToo) {
    RetryBudget budget(0.12, 2.5);
    int granted = 0;
    for (Instant now = t0; now < t0 + 200s; now += 10ms) {
        if ((now - t0) % 50ms == 0ms) budget.on_request(now);
        if (budget.try_retry(now)) ++granted;
    }
    EXPECT_GE(granted, 480);
    EXPECT_LE(granted, 503);
}

// Every request fails, and every failure asks for two more attempts.
TEST(RetryBudget, ATotalOutageCostsTheUpstreamAFifthMoreAndNearlyAllOfItIsUsed) {
    RetryBudget budget(0.2, 0);
    int offered = 0;
    int incoming = 0;
    for (Instant now = t0; now < t0 + 10s; now += 1ms) {
        budget.on_request(now);
        ++incoming;
        offered += 1 + grants(budget, now, 2);
        ASSERT_LE(offered, 1.2 * incoming);
    }
    EXPECT_GE(offered, 1.19 * incoming);
}

// The bounds of the header against exact times, for every window and every interval of a random run.
class BudgetRun {
  public:
    BudgetRun(std::uint64_t seed, double ratio, double floor)
        : random_(seed), ratio_(ratio), floor_(floor), budget_(ratio, floor) {}

    void run() {
        const std::uint64_t kind = random_.below(4);
        for (int event = 0; event < 1500; ++event) {
            now_ += gap(kind);
            for (std::uint64_t n = arrivals(kind); n > 0; --n) {
                budget_.on_request(now_);
                requests_.push_back(now_);
            }
            for (std::uint64_t n = random_.below(6); n > 0; --n) {
                if (random_.below(3) == 0)
                    now_ += Duration(static_cast<std::int64_t>(random_.below(3'000'000)));
                if (!budget_.try_retry(now_)) continue;
                granted_.push_back(now_);
                check_window();
            }
        }
        check_intervals();
    }

    std::size_t granted() const { return granted_.size(); }

  private:
    Duration gap(std::uint64_t kind) {
        if (kind == 0) return 1ms;                              // even
        if (kind == 1 && random_.below(50) == 0) return 700ms;  // bursts and pauses
        if (kind == 2 && random_.below(100) == 0) return 2s;    // pauses that clear the window
        if (kind == 3) return Duration(static_cast<std::int64_t>(random_.below(100'000'000)));
        return Duration(static_cast<std::int64_t>(random_.below(20'000'000)));
    }
    std::uint64_t arrivals(std::uint64_t kind) { return kind == 1 ? random_.below(20) : random_.below(4); }

    static std::size_t until(const std::vector<Instant>& times, Instant end) {  // in (-inf, end]
        return static_cast<std::size_t>(std::upper_bound(times.begin(), times.end(), end) - times.begin());
    }

    // The last second, at a grant.
    void check_window() {
        const std::size_t retries = granted_.size() - until(granted_, now_ - 1s);
        const std::size_t requests = requests_.size() - until(requests_, now_ - 1s);
        const double most = std::max(ratio_ * static_cast<double>(requests), std::ceil(floor_));
        ASSERT_LE(static_cast<double>(retries), most + 1e-6);
    }

    void check_intervals() {
        std::vector<std::size_t> before;
        std::vector<std::size_t> upto;
        for (const Instant at : granted_) {
            before.push_back(until(requests_, at - 1s));
            upto.push_back(until(requests_, at));
        }
        const double saved = floor_ > 0 ? std::max(1.0, floor_) : 0;
        for (std::size_t i = 0; i < granted_.size(); ++i) {
            for (std::size_t j = i; j < granted_.size(); ++j) {
                const double most = ratio_ * static_cast<double>(upto[j] - before[i]) + saved +
                                    floor_ * seconds_of(granted_[j] - granted_[i]);
                ASSERT_LE(static_cast<double>(j - i + 1), most + 1e-3) << i << " to " << j;
            }
        }
    }

    Random random_;
    double ratio_;
    double floor_;
    RetryBudget budget_;
    Instant now_ = t0;
    std::vector<Instant> requests_;
    std::vector<Instant> granted_;
};

TEST(RetryBudgetSimulation, NoArrivalsLiftTheLoadOverItsBoundsInAnyWindow) {
    const double ratios[] = {0, 0.05, 0.2, 1};
    const double floors[] = {0, 0.3, 1.5, 3};
    std::size_t granted = 0;
    for (std::uint64_t seed = 0; seed < 160; ++seed) {
        SCOPED_TRACE(seed);
        BudgetRun run(seed, ratios[seed % 4], floors[seed / 4 % 4]);
        run.run();
        if (testing::Test::HasFatalFailure()) return;
        granted += run.granted();
    }
    EXPECT_GT(granted, 10'000u) << "the runs must try something";
}

TEST(RetryBudget, NewLimitsKeepWhatWasCounted) {
    RetryBudget budget(0.2, 0);
    requests(budget, t0, 100);
    EXPECT_EQ(grants(budget, t0, 100), 20);
    budget.configure(0.2, 0);
    EXPECT_EQ(grants(budget, t0, 100), 0) << "a reload grants nothing twice";
    budget.configure(0.3, 0);
    EXPECT_EQ(grants(budget, t0, 100), 10);
    budget.configure(0.1, 0);
    EXPECT_EQ(grants(budget, t0, 100), 0);
    budget.configure(0, 2);
    EXPECT_EQ(grants(budget, t0 + 400ms, 100), 0) << "the second already holds thirty";
    EXPECT_EQ(grants(budget, t0 + 2s, 100), 2);
}

TEST(RetryBudget, ANewFloorFillsWithTime) {
    RetryBudget budget(0, 0);
    EXPECT_EQ(grants(budget, t0, 10), 0);
    budget.configure(0, 4);
    EXPECT_EQ(grants(budget, t0, 10), 0);
    EXPECT_EQ(grants(budget, t0 + 500ms, 10), 2);
}

TEST(RetryBudget, AJumpFarAheadClearsAndTimeBackwardsIsTakenAsTheLatest) {
    RetryBudget budget(0.2, 1);
    requests(budget, t0, 100);
    EXPECT_EQ(grants(budget, t0, 100), 20);
    const Instant far = t0 + 24h * 36500;
    EXPECT_EQ(budget.requests_in_window(far), 0u);
    EXPECT_EQ(budget.retries_in_window(far), 0u);
    EXPECT_EQ(grants(budget, far, 100), 1) << "saved for a century, still one";
    EXPECT_EQ(grants(budget, t0, 100), 0);
    requests(budget, t0, 100);
    EXPECT_EQ(budget.requests_in_window(far), 100u);
    EXPECT_EQ(grants(budget, t0 - 5s, 100), 19);
    EXPECT_EQ(budget.retries_in_window(far + 2s), 0u);
}

TEST(RetryBudget, TimesBeforeTheEpochAreTimesLikeOthers) {
    RetryBudget budget(0.5, 0);
    const Instant before{-5ms};
    requests(budget, before, 10);
    EXPECT_EQ(grants(budget, Instant{5ms}, 10), 5);
    EXPECT_EQ(budget.retries_in_window(Instant{2s}), 0u);
}

}  // namespace
}  // namespace outrider::policy
