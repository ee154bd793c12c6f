#include "base/timer_wheel.h"

#include <functional>
#include <memory>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace outrider {
namespace {
using namespace std::chrono_literals;

struct Probe final : Timer {
    void on_timeout(Instant now) override {
        fired.push_back(now);
        if (then) then();
    }
    std::vector<Instant> fired;
    std::function<void()> then;
};

const Instant t0{};

TEST(TimerWheel, FiresAtItsDeadlineAndNotBefore) {
    TimerWheel wheel(t0);
    Probe probe;
    wheel.schedule(probe, t0 + 100ms);
    wheel.advance(t0 + 99ms);
    EXPECT_TRUE(probe.fired.empty());
    wheel.advance(t0 + 100ms);
    EXPECT_EQ(probe.fired.size(), 1u);
    EXPECT_FALSE(probe.scheduled());
}

TEST(TimerWheel, AMovedDeadlineCountsFromItsLastValue) {
    TimerWheel wheel(t0);
    Probe probe;
    wheel.schedule(probe, t0 + 100ms);
    wheel.schedule(probe, t0 + 10s);
    wheel.advance(t0 + 9999ms);
    EXPECT_TRUE(probe.fired.empty());
    wheel.schedule(probe, t0 + 9999ms + 1ms);
    wheel.advance(t0 + 10s);
    EXPECT_EQ(probe.fired.size(), 1u);
    wheel.schedule(probe, t0 + 60s);
    wheel.schedule(probe, t0 + 11s);
    wheel.advance(t0 + 11s);
    EXPECT_EQ(probe.fired.size(), 2u);
}

TEST(TimerWheel, ACancelledTimerStaysSilentAndCanBeScheduledAgain) {
    TimerWheel wheel(t0);
    Probe probe;
    wheel.schedule(probe, t0 + 5ms);
    wheel.cancel(probe);
    wheel.advance(t0 + 1s);
    EXPECT_TRUE(probe.fired.empty());
    wheel.schedule(probe, t0 + 2s);
    wheel.advance(t0 + 2s);
    EXPECT_EQ(probe.fired.size(), 1u);
}

TEST(TimerWheel, ACallbackMayDestroyAndScheduleOthers) {
    TimerWheel wheel(t0);
    auto victim = std::make_unique<Probe>();
    Probe killer;
    Probe late;
    killer.then = [&] {
        victim.reset();
        wheel.schedule(late, t0);
    };
    wheel.schedule(*victim, t0 + 5ms);
    wheel.schedule(killer, t0 + 5ms);  // runs first: the last one linked
    wheel.advance(t0 + 5ms);
    EXPECT_EQ(victim, nullptr);
    EXPECT_TRUE(late.fired.empty());
    wheel.advance(t0 + 6ms);
    EXPECT_EQ(late.fired.size(), 1u);
}

TEST(TimerWheel, SaysWhenItWantsToBeWoken) {
    TimerWheel wheel(t0);
    EXPECT_FALSE(wheel.next_wakeup().has_value());
    Probe probe;
    wheel.schedule(probe, t0 + 20ms);
    EXPECT_EQ(*wheel.next_wakeup(), t0 + 20ms);
}

// Against a plain list, over months of virtual time: nobody early, nobody late, nobody forgotten.
TEST(TimerWheel, AgreesWithAListUnderRandomUse) {
    for (unsigned seed = 1; seed <= 20; ++seed) {
        std::mt19937_64 random(seed);
        TimerWheel wheel(t0);
        std::vector<std::unique_ptr<Probe>> probes;
        std::vector<Instant> expected(50, Instant::max());
        for (int i = 0; i < 50; ++i)
            probes.push_back(std::make_unique<Probe>());
        Instant now = t0;
        for (int step = 0; step < 4000; ++step) {
            const std::size_t i = random() % probes.size();
            const unsigned magnitude = random() % 12;
            const Duration delay = std::chrono::milliseconds(random() % (1ull << (magnitude * 3)));
            if (random() % 5 == 0) {
                wheel.cancel(*probes[i]);
                expected[i] = Instant::max();
            } else {
                wheel.schedule(*probes[i], now + delay);
                expected[i] = now + delay;
            }
            if (random() % 3 != 0) continue;
            if (random() % 2 == 0) {
                if (const auto wake = wheel.next_wakeup()) now = std::max(now, *wake);
            } else {
                now += std::chrono::milliseconds(random() % (1ull << ((random() % 11) * 3)));
            }
            now += 2ms;
            wheel.advance(now);
            for (std::size_t k = 0; k < probes.size(); ++k) {
                const bool due = expected[k] <= now - 2ms;
                if (!probes[k]->fired.empty()) {
                    ASSERT_LE(expected[k], now) << "early, seed " << seed;
                    probes[k]->fired.clear();
                    expected[k] = Instant::max();
                } else {
                    ASSERT_FALSE(due) << "late, seed " << seed << " step " << step;
                }
            }
        }
    }
}

}  // namespace
}  // namespace outrider
