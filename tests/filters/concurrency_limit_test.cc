#include "filters/policy/concurrency_limit.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <queue>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

const Instant t0{1000s};
constexpr Duration kService = 5ms;

enum class Service {
    kEqual,
    kExponential,
    kMixed,  // one in 50 takes 20 times as long as is usual
};

// A server with some slots and one queue, in front of it limits (one a worker), before them arrivals that wait for
// nobody (Poisson). Exactly repeatable from the seed.
struct Load {
    unsigned slots = 16;
    unsigned workers = 1;
    ConcurrencyLimits limits{.min = 4, .max = 512};
    Service service = Service::kEqual;
    std::uint64_t seed = 1;
};

class Simulation {
  public:
    explicit Simulation(const Load& load) : load_(load), random_(load.seed) {
        for (unsigned i = 0; i < load.workers; ++i) {
            limits_.emplace_back(load.limits, load.seed);  // one seed, as in a process
        }
        for (unsigned i = 0; i < load.slots; ++i) {
            free_at_.push(t0);
        }
    }

    struct Report {
        std::size_t offered = 0;
        std::size_t refused = 0;
        std::vector<Duration> latencies;  // of those that were answered in this time
        double capacity = 0;              // answers at most
        double limit_mean = 0;

        Duration percentile(double p) {
            if (latencies.empty()) return 0ns;
            std::sort(latencies.begin(), latencies.end());
            return latencies[static_cast<std::size_t>(p * static_cast<double>(latencies.size() - 1))];
        }
        double shed() const { return static_cast<double>(refused) / static_cast<double>(offered); }
        double goodput() const { return static_cast<double>(latencies.size()) / capacity; }
    };

    // load: times what the server can do with a service time of 5 ms. slower: times that service time.
    Report run(Duration length, double load, double slower = 1) {
        Report report;
        const Instant end = now_ + length;
        report.capacity = load_.slots * seconds_of(length) / seconds_of(kService) / slower;
        const double rate = load * load_.slots / seconds_of(kService);
        Instant arrival = now_ + exponential(1 / rate);
        double limits = 0;
        while (true) {
            if (!ends_.empty() && ends_.top().at <= std::min(arrival, end)) {
                finish(report);
                continue;
            }
            if (arrival > end) break;
            now_ = arrival;
            ++report.offered;
            const auto worker = static_cast<unsigned>(random_.below(load_.workers));
            limits += limits_[worker].limit();
            if (limits_[worker].try_acquire(now_)) {
                start(worker, slower);
            } else {
                ++report.refused;
            }
            arrival = now_ + exponential(1 / rate);
        }
        now_ = end;
        report.limit_mean = limits / static_cast<double>(report.offered);
        return report;
    }

    const ConcurrencyLimit& limit(unsigned worker = 0) const { return limits_[worker]; }
    Instant now() const { return now_; }

  private:
    struct End {
        Instant at;
        Instant admitted;
        unsigned worker;
        bool operator>(const End& other) const { return at > other.at; }
    };

    Duration exponential(double mean) {
        return Duration(static_cast<Duration::rep>(-std::log(1 - random_.unit()) * mean * 1e9) + 1);
    }

    Duration service_time(double mean) {
        if (load_.service == Service::kExponential) return exponential(mean);
        if (load_.service == Service::kMixed) mean *= (random_.below(50) == 0 ? 100 : 5) / 6.9;
        return Duration(static_cast<Duration::rep>(mean * 1e9));
    }

    // First come, first served: the slot that is free first takes it.
    void start(unsigned worker, double slower) {
        const Instant at = std::max(now_, free_at_.top()) + service_time(seconds_of(kService) * slower);
        free_at_.pop();
        free_at_.push(at);
        ends_.push({at, now_, worker});
    }

    void finish(Report& report) {
        const End done = ends_.top();
        ends_.pop();
        now_ = done.at;
        report.latencies.push_back(done.at - done.admitted);
        limits_[done.worker].release(now_, done.at - done.admitted, ConcurrencyLimit::Outcome::kSample);
    }

    Load load_;
    Random random_;
    Instant now_ = t0;
    std::vector<ConcurrencyLimit> limits_;
    std::priority_queue<Instant, std::vector<Instant>, std::greater<>> free_at_;
    std::priority_queue<End, std::vector<End>, std::greater<>> ends_;
};

const char* name(Service service) {
    return service == Service::kEqual ? "equal" : service == Service::kMixed ? "mixed" : "exponential";
}

// OUTRIDER_SHOW=1 prints what was measured.
void show(const char* what, const Load& load, Simulation& simulation, Simulation::Report report) {
    static const bool on = std::getenv("OUTRIDER_SHOW") != nullptr;
    if (!on) return;
    std::printf(
        "%-22s slots %3u x%u %s seed %llu: p50 %6.2f p99 %7.2f ms, shed %8.4f%%, goodput %.3f, limit %.1f "
        "(mean %.1f), baseline %.2f ms\n",
        what, load.slots, load.workers, name(load.service), static_cast<unsigned long long>(load.seed),
        1e3 * seconds_of(report.percentile(0.5)), 1e3 * seconds_of(report.percentile(0.99)),
        100 * report.shed(), report.goodput(), static_cast<double>(simulation.limit().limit()),
        report.limit_mean, 1e3 * seconds_of(simulation.limit().baseline()));
}

std::string text(const Load& load) {
    return std::to_string(load.slots) + " slots, " + std::to_string(load.workers) + " workers, " +
           name(load.service) + ", seed " + std::to_string(load.seed);
}

std::vector<Load> loads() {
    std::vector<Load> all;
    for (const Service service : {Service::kEqual, Service::kExponential, Service::kMixed}) {
        for (const unsigned slots : {4, 16, 64}) {
            for (std::uint64_t seed = 1; seed <= 3; ++seed) {
                all.push_back({.slots = slots, .service = service, .seed = seed});
            }
        }
        all.push_back({.slots = 200, .service = service});
        all.push_back({.slots = 32, .workers = 4, .limits = {.min = 1, .max = 128}, .service = service});
    }
    return all;
}

// One request after the other, `width` at a time, each with this latency, for so long. Returns the time at the end.
Instant feed(ConcurrencyLimit& limit, Instant now, Duration length, std::uint32_t width, Duration latency,
             ConcurrencyLimit::Outcome outcome = ConcurrencyLimit::Outcome::kSample) {
    const Instant end = now + length;
    while (now < end) {
        std::uint32_t admitted = 0;
        for (std::uint32_t i = 0; i < width; ++i) {
            if (limit.try_acquire(now)) ++admitted;
        }
        now += latency;
        for (std::uint32_t i = 0; i < admitted; ++i) {
            limit.release(now, latency, outcome);
        }
    }
    return now;
}

TEST(ConcurrencyLimit, RefusesAtItsLimitAndCountsWhatIsInFlight) {
    ConcurrencyLimit limit({.min = 2, .max = 3}, 1);
    EXPECT_EQ(limit.limit(), 3u);
    for (std::uint32_t i = 0; i < 3; ++i) {
        EXPECT_TRUE(limit.try_acquire(t0));
    }
    EXPECT_FALSE(limit.try_acquire(t0));
    EXPECT_EQ(limit.in_flight(), 3u);
    limit.release(t0 + 1ms, 1ms, ConcurrencyLimit::Outcome::kIgnored);
    EXPECT_EQ(limit.in_flight(), 2u);
    EXPECT_TRUE(limit.try_acquire(t0 + 1ms));
    EXPECT_EQ(limit.baseline(), 0ns);
}

TEST(ConcurrencyLimit, AShareBelowOneStillAdmitsOne) {
    ConcurrencyLimit limit({.min = 0.1, .max = 0.5}, 1);
    EXPECT_EQ(limit.limit(), 1u);
    EXPECT_TRUE(limit.try_acquire(t0));
    EXPECT_FALSE(limit.try_acquire(t0));
}

TEST(ConcurrencyLimit, GrowsOnlyAsFarAsItIsUsed) {
    ConcurrencyLimit limit({.min = 4, .max = 512}, 1);
    feed(limit, t0, 10s, 40, 5ms);
    EXPECT_GE(limit.limit(), 80u);
    EXPECT_LT(limit.limit(), 90u);
    EXPECT_EQ(limit.baseline(), 5ms);
}

TEST(ConcurrencyLimit, IdlenessAndLightTrafficAreNoEvidence) {
    ConcurrencyLimit limit({.min = 4, .max = 512}, 1);
    Instant now = feed(limit, t0, 10s, 40, 5ms);
    const std::uint32_t before = limit.limit();
    now = feed(limit, now + 8h, 10s, 2, 50ms);
    EXPECT_EQ(limit.limit(), before);
    EXPECT_EQ(limit.baseline(), 5ms);
    // A window that was open when the traffic stopped is not continued.
    feed(limit, now, 15ms, 40, 5ms);
    now = feed(limit, now + 8h, 10s, 2, 5ms);
    EXPECT_EQ(limit.limit(), before);
}

TEST(ConcurrencyLimit, AStuckRequestIsNotAnOverload) {
    ConcurrencyLimit limit({.min = 4, .max = 512}, 1);
    Instant now = feed(limit, t0, 10s, 40, 5ms);
    const std::uint32_t before = limit.limit();
    for (int i = 0; i < 50; ++i) {
        ASSERT_TRUE(limit.try_acquire(now));
        now = feed(limit, now, 30ms, 40, 5ms);
        limit.release(now, 60s, ConcurrencyLimit::Outcome::kSample);
    }
    EXPECT_GE(limit.limit(), before - 2);
}

TEST(ConcurrencyLimit, DropsCutByTheirShare) {
    ConcurrencyLimit all({.min = 4, .max = 512}, 1);
    Instant now = feed(all, t0, 10s, 100, 5ms);
    feed(all, now, 2s, 300, 5ms, ConcurrencyLimit::Outcome::kDropped);
    EXPECT_EQ(all.limit(), 4u);

    ConcurrencyLimit few({.min = 4, .max = 512}, 1);
    now = feed(few, t0, 10s, 100, 5ms);
    for (int i = 0; i < 1000; ++i) {  // one in 800
        ASSERT_TRUE(few.try_acquire(now));
        now = feed(few, now, 40ms, 100, 5ms);
        few.release(now, 40ms, ConcurrencyLimit::Outcome::kDropped);
    }
    EXPECT_GT(few.limit(), 150u);
}

TEST(ConcurrencyLimit, WhatSaysNothingChangesNothing) {
    ConcurrencyLimit limit({.min = 4, .max = 512}, 1);
    Instant now = feed(limit, t0, 10s, 40, 5ms);
    const std::uint32_t before = limit.limit();
    feed(limit, now, 10s, 80, 1ms, ConcurrencyLimit::Outcome::kIgnored);
    EXPECT_EQ(limit.limit(), before);
    EXPECT_EQ(limit.baseline(), 5ms);
}

TEST(ConcurrencyLimit, NewLimitsHoldAtOnce) {
    ConcurrencyLimit limit({.min = 4, .max = 512}, 1);
    feed(limit, t0, 10s, 40, 5ms);
    limit.configure({.min = 1, .max = 8});
    EXPECT_EQ(limit.limit(), 8u);
    limit.configure({.min = 100, .max = 200});
    EXPECT_EQ(limit.limit(), 100u);
}

TEST(ConcurrencyLimit, RetryAfterFollowsTheLatencyInItsBounds) {
    ConcurrencyLimit limit({.min = 4, .max = 512}, 1);
    EXPECT_EQ(limit.retry_after(), 100ms);
    Instant now = feed(limit, t0, 10s, 40, 1s);
    EXPECT_EQ(limit.retry_after(), 2s);
    feed(limit, now, 600s, 40, 60s);
    EXPECT_EQ(limit.retry_after(), 10s);
}

TEST(ConcurrencyLimit, WorkersOfOneSeedMeasureAtOneTime) {
    std::vector<std::vector<Instant>> starts;
    for (const std::uint64_t seed : {7, 7, 8}) {
        ConcurrencyLimit limit({.min = 1, .max = 512}, seed);
        Instant now = feed(limit, t0, 1s, 40, 5ms);
        std::vector<Instant> mine;
        bool before = false;
        // Slower for good, in steps, so that it goes on refusing for latency.
        for (int i = 0; i < 150 * 50; ++i) {
            now = feed(limit, now, 20ms, 100, 20ms * (1 + i / 1500));
            if (limit.measuring() && !before) mine.push_back(Instant{now.time_since_epoch() / 1s * 1s});
            before = limit.measuring();
        }
        EXPECT_GE(mine.size(), 5u);
        starts.push_back(mine);
    }
    EXPECT_EQ(starts[0], starts[1]);
    EXPECT_NE(starts[0], starts[2]);
}

// At half load. Two of four places taken by long requests are a real queue, not noise.
double shed_by_noise(const Load& load) {
    return load.slots < 16 && load.service == Service::kMixed ? 0.02 : 0.001;
}

TEST(ConcurrencyLimitSimulation, OverloadIsShedAndWhatIsAdmittedStaysFast) {
    for (const Load& load : loads()) {
        SCOPED_TRACE(text(load));
        Simulation simulation(load);
        auto start = simulation.run(10s, 0.5);
        show("0.5x, start", load, simulation, start);
        EXPECT_LT(start.shed(), 0.004 + shed_by_noise(load));
        auto calm = simulation.run(10s, 0.5);
        show("0.5x", load, simulation, calm);
        EXPECT_LT(calm.shed(), shed_by_noise(load));
        const Duration healthy = calm.percentile(0.99);
        for (const double times : {2.0, 4.0}) {
            auto first = simulation.run(2s, times);
            show("overload, first 2 s", load, simulation, first);
            auto steady = simulation.run(10s, times);
            show(times > 3 ? "4x" : "2x", load, simulation, steady);
            EXPECT_LE(steady.percentile(0.99), 3 * healthy);
            EXPECT_GE(steady.goodput(), 0.9);
            simulation.run(1s, 0.5);
            auto after = simulation.run(10s, 0.5);
            show("0.5x after", load, simulation, after);
            EXPECT_LT(after.shed(), shed_by_noise(load));
            if (load.service == Service::kEqual) {
                EXPECT_EQ(after.refused, 0u);
            }
        }
    }
}

TEST(ConcurrencyLimitSimulation, AServiceThatTurnsSlowIsCutToTheLeastAndComesBack) {
    for (const Load& load : loads()) {
        SCOPED_TRACE(text(load));
        Simulation simulation(load);
        auto calm = simulation.run(10s, 0.5);
        simulation.run(10s, 0.5, 100);
        auto slow = simulation.run(10s, 0.5, 100);
        show("100x slower", load, simulation, slow);
        EXPECT_LE(simulation.limit().limit(), std::max(1.0, load.limits.min) * 1.5);
        // The longest request of the slow time holds its place for 7.2 s.
        auto healing = simulation.run(load.service == Service::kMixed ? 8s : 2s, 0.5);
        show("healing", load, simulation, healing);
        auto healed = simulation.run(10s, 0.5);
        show("healed", load, simulation, healed);
        EXPECT_LT(healed.shed(), shed_by_noise(load));
        EXPECT_LE(healed.percentile(0.99), 2 * calm.percentile(0.99));
    }
}

TEST(ConcurrencyLimitSimulation, ALastingOverloadDoesNotBecomeNormal) {
    for (const unsigned workers : {1U, 4U}) {
        for (const Service service : {Service::kEqual, Service::kExponential}) {
            const Load load{
                .slots = 16, .workers = workers, .limits = {.min = 1, .max = 512}, .service = service};
            Simulation simulation(load);
            auto calm = simulation.run(10s, 0.5);
            simulation.run(2s, 2);
            auto early = simulation.run(30s, 2);
            show("2x, early", load, simulation, early);
            simulation.run(5min, 2);
            auto late = simulation.run(30s, 2);
            show("2x, after 5 min", load, simulation, late);
            EXPECT_LE(late.percentile(0.99), 3 * calm.percentile(0.99)) << text(load);
            EXPECT_LE(simulation.limit().baseline(), kService * 1.3) << text(load);
            EXPECT_GE(late.goodput(), 0.8) << text(load);
        }
    }
}

TEST(ConcurrencyLimitSimulation, AServiceThatIsSlowerForGoodIsBelievedInTheEnd) {
    for (const double slower : {1.8, 3.0, 20.0}) {
        const Load load{.slots = 32, .service = Service::kExponential};
        Simulation simulation(load);
        simulation.run(10s, 0.5);
        simulation.run(Duration(static_cast<Duration::rep>(std::ceil(std::log2(slower)) + 3) * 30s),
                       0.5 / slower, slower);
        auto report = simulation.run(30s, 0.5 / slower, slower);
        show("slower for good", load, simulation, report);
        EXPECT_LT(report.shed(), 0.01) << slower;
    }
}

TEST(ConcurrencyLimitSimulation, ABaselineLearntUnderOverloadIsCorrected) {
    for (const Service service : {Service::kEqual, Service::kExponential}) {
        const Load load{.slots = 8, .service = service};
        Simulation simulation(load);
        show("started at 4x", load, simulation, simulation.run(5s, 4));
        auto report = simulation.run(20s, 4);
        show("started at 4x", load, simulation, report);
        EXPECT_LE(report.percentile(0.99), service == Service::kEqual ? 15ms : 70ms);
        EXPECT_GE(report.goodput(), 0.8);
    }
}

}  // namespace
}  // namespace outrider::policy
