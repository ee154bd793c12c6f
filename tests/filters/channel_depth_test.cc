#include "filters/policy/channel_depth.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <functional>
#include <queue>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;
using Where = ChannelDepth::Choice::Where;

const Instant t0{1000s};

// Answers on pooled connections until the class is known, and a probe that shows its pace.
Instant teach(ChannelDepth& depth, ChannelDepth::Class cls, Duration alone, Duration pace, Instant now) {
    for (int i = 0; i < 200; ++i) {
        depth.answered_alone(cls, alone, now += 1ms);
    }
    const auto choice = depth.choose(cls, now, true);
    if (choice.where == Where::kPooled) return now;
    constexpr ChannelDepth::Socket kTeaching = 99;
    depth.open(kTeaching);
    for (int i = 0; i < 40; ++i) {
        depth.ride(kTeaching, cls, now);
    }
    for (int i = 0; i < 40; ++i) {
        depth.answered(kTeaching, now += pace);
    }
    depth.close(kTeaching);
    return now;
}
std::size_t fill(ChannelDepth& depth, ChannelDepth::Socket socket, ChannelDepth::Class cls, Instant now) {
    std::size_t count = 0;
    for (; count < 1000; ++count) {
        const auto choice = depth.choose(cls, now, true);
        if (choice.where != Where::kSocket || choice.socket != socket) break;
        depth.ride(socket, cls, now);
    }
    return count;
}

TEST(ChannelDepth, AnUnknownClassTakesPooledConnections) {
    ChannelDepth depth({});
    for (std::uint32_t i = 0; i < 2 * ChannelDepth::kKnown; ++i) {
        EXPECT_EQ(depth.choose(1, t0, true).where, Where::kPooled);
        depth.answered_alone(1, 100us, t0);
    }
    EXPECT_EQ(depth.choose(1, t0, true).where, Where::kOpen);
}

TEST(ChannelDepth, TheDepthFollowsPaceAndLateAnswers) {
    const struct {
        const char* what;
        Duration alone;
        Duration pace;
        int late_of_1000;
        std::size_t least;
        std::size_t most;
    } rows[] = {
        {"very quick: as deep as allowed", 50us, 20us, 0, 64, 64},
        {"quick: no more than wait_max in front", 100us, 100us, 0, 20, 22},
        {"less quick: shallow", 400us, 400us, 0, 5, 7},
        {"a millisecond: not worth it", 900us, 900us, 0, 0, 0},
        {"slow: one at a time", 5ms, 5ms, 0, 0, 0},
        {"a busy upstream with one thread: the wait is there anyway", 6400us, 160us, 0, 50, 52},
        {"one in a thousand late: fewer in front", 100us, 20us, 1, 3, 10},
        {"one in twenty late: one at a time", 100us, 20us, 50, 0, 0},
    };
    for (const auto& row : rows) {
        SCOPED_TRACE(row.what);
        ChannelDepth depth({.connections = 1, .depth = 64, .wait_max = 2ms});
        Instant now = t0;
        if (row.late_of_1000 > 0) {
            for (int i = 0; i < 10'000; ++i) {
                now += 10us;
                const bool late = (i + 1) % (1000 / row.late_of_1000) == 500 % (1000 / row.late_of_1000);
                depth.answered_alone(1, late ? 20ms : row.alone, now);
            }
        }
        now = teach(depth, 1, row.alone, row.pace, now);
        depth.open(1);
        const std::size_t count = fill(depth, 1, 1, now);
        EXPECT_GE(count, row.least);
        EXPECT_LE(count, row.most);
    }
}

TEST(ChannelDepth, NothingRidesBehindARequestThatIsLate) {
    ChannelDepth depth({.connections = 1});
    for (int i = 0; i < 1000; ++i) {
        depth.answered_alone(1, 100us, t0);  // so that one late one is no cause to stop riding
    }
    const Instant now = teach(depth, 1, 100us, 100us, t0);
    depth.open(1);
    depth.ride(1, 1, now);
    EXPECT_EQ(depth.choose(1, now + 1ms, true).where, Where::kSocket);
    EXPECT_EQ(depth.choose(1, now + 1001us, true).where, Where::kPooled);
    EXPECT_EQ(depth.choose(1, now + 1001us, false).where, Where::kWait);
    depth.answered(1, now + 1100us);
    EXPECT_EQ(depth.choose(1, now + 1200us, true).where, Where::kSocket);
}

TEST(ChannelDepth, TheLeastLoadedSocketFirstAndAnotherAsLongAsNoneIsIdle) {
    ChannelDepth depth({.connections = 2, .depth = 4});
    const Instant now = teach(depth, 1, 50us, 20us, t0);
    EXPECT_EQ(depth.choose(1, now, true).where, Where::kOpen);
    depth.open(7);
    EXPECT_EQ(fill(depth, 7, 1, now), 1u);
    EXPECT_EQ(depth.choose(1, now, true).where, Where::kOpen);
    depth.open(8);
    depth.ride(7, 1, now);
    depth.ride(7, 1, now);
    depth.ride(8, 1, now);
    EXPECT_EQ(depth.choose(1, now, true).socket, 8u);
    depth.answered(7, now);
    depth.answered(7, now);
    depth.ride(8, 1, now);
    EXPECT_EQ(depth.choose(1, now, true).socket, 7u);
    depth.set_accepting(7, false);
    EXPECT_EQ(depth.choose(1, now, true).socket, 8u);
    depth.set_accepting(8, false);
    EXPECT_EQ(depth.choose(1, now, true).where, Where::kPooled);
    depth.close(7);
    EXPECT_EQ(depth.choose(1, now, true).where, Where::kOpen);
}

TEST(ChannelDepth, ASlowClassIsNeverInFrontOfAQuickOne) {
    ChannelDepth depth({.connections = 1});
    Instant now = teach(depth, 1, 100us, 100us, t0);
    now = teach(depth, 2, 50ms, 50ms, now);
    depth.open(1);
    EXPECT_EQ(depth.choose(2, now, true).where, Where::kPooled);
    depth.answered_alone(1, 100us, now);
    EXPECT_EQ(depth.choose(1, now, true).where, Where::kSocket);
    depth.ride(1, 2, now);  // even if it were
    depth.answered_alone(1, 100us, now);
    EXPECT_EQ(depth.choose(1, now, true).where, Where::kPooled);
}

TEST(ChannelDepth, OneRequestASecondShowsHowLongAloneTakes) {
    ChannelDepth depth({.connections = 1});
    const Instant now = teach(depth, 1, 100us, 10us, t0) + 1s;
    depth.open(1);
    EXPECT_EQ(depth.choose(1, now, true).where, Where::kPooled);
    EXPECT_EQ(depth.choose(1, now, true).where, Where::kSocket);
}

TEST(ChannelDepth, WhatWaitsForTheCallersTurnsMayWaitForAsLong) {
    const struct {
        const char* what;
        Duration turn;
        bool rides;
    } rows[] = {{"a busy loop", 3ms, true}, {"one that sleeps", 100us, false}};
    for (const auto& row : rows) {
        SCOPED_TRACE(row.what);
        ChannelDepth depth({.connections = 1, .depth = 64, .wait_max = 2ms, .turn = row.turn});
        Instant now = t0;
        for (int i = 0; i < 200; ++i)
            depth.answered_alone(1, 3ms, now += 1ms);
        depth.open(1);
        ASSERT_EQ(depth.choose(1, now, true).where, Where::kSocket) << "the probe";
        for (int i = 0; i < 8; ++i)
            depth.ride(1, 1, now);
        for (int i = 0; i < 40; ++i) {  // eight answers in 7 ms
            if (i % 8 == 0) now += 7ms;
            depth.answered(1, now);
            depth.ride(1, 1, now);
        }
        EXPECT_EQ(depth.estimate(1).rides, row.rides) << depth.estimate(1).pace.count() << " ns a piece";
        EXPECT_EQ(depth.choose(1, now, true).where, row.rides ? Where::kSocket : Where::kPooled)
            << "eight ride, and there is room for more";
    }
}

TEST(ChannelDepth, AnUpstreamThatStandsStillIsNotLate) {
    const struct {
        const char* what;
        std::size_t together;  // of those that take 20 ms, each on its connection
        bool others;           // are answered meanwhile
        bool rides;
    } rows[] = {{"all stood still", 16, false, true},
                {"too few to tell", 3, false, false},
                {"others were answered", 16, true, false}};
    for (const auto& row : rows) {
        SCOPED_TRACE(row.what);
        ChannelDepth depth({});
        Instant now = teach(depth, 1, 100us, 10us, t0);
        ASSERT_TRUE(depth.estimate(1).rides);
        for (int i = 0; i < 4; ++i) {
            if (row.others) depth.answered_alone(1, 100us, now + 15ms);
            now += 20ms;
            for (std::size_t k = 0; k < row.together; ++k)
                depth.answered_alone(1, 20ms, now);
            for (int k = 0; k < 40; ++k)
                depth.answered_alone(1, 100us, now += 1ms);
        }
        EXPECT_EQ(depth.estimate(1).rides, row.rides) << depth.estimate(1).late;
    }
}

TEST(ChannelDepth, ClassesAreBounded) {
    ChannelDepth depth({});
    for (ChannelDepth::Class cls = 0; cls < 10'000; ++cls) {
        depth.answered_alone(cls, 100us, t0);
    }
    EXPECT_GT(depth.estimate(9'999).answers, 9'000u) << "those beyond the bound are one class";
}

// --- The simulation ---------------------------------------------------------------------------------------

enum class Mode { kPolicy, kPooled, kNaive };

struct Scenario {
    const char* name = "";
    std::uint32_t clients = 0;  // closed loop; 0: `rate` a second
    double rate = 0;
    std::function<ChannelDepth::Class(Random&)> cls = [](Random&) { return 0u; };
    std::function<Duration(Random&, ChannelDepth::Class, Duration at)> service{};
    bool one_thread = false;  // the upstream works through one connection after the other
    Duration length = 20s;
    Duration measured_from = 2s;
    DepthLimits limits{};
    std::uint64_t seed = 42;
};

struct Figures {
    std::vector<double> all;     // latency, us
    std::vector<double> quick;   // of those whose own service is below 1 ms
    std::vector<double> riders;  // of the quick ones, those that rode
    std::vector<std::vector<double>> by_second;
    double rode = 0;
    double in_flight = 0;  // on its socket, seen by a request that rides, with itself
    double ridden = 0;
    double reads = 0;  // instants at which a socket brought answers
    double per_read() const { return reads == 0 ? 0 : rode / reads; }
    double depth() const { return ridden == 0 ? 0 : in_flight / ridden; }
};

double percentile(std::vector<double> values, double p) {
    if (values.empty()) return 0;
    const auto at =
        values.begin() + static_cast<std::ptrdiff_t>(p / 100 * static_cast<double>(values.size() - 1));
    std::nth_element(values.begin(), at, values.end());
    return *at;
}

class Simulation {
  public:
    Simulation(const Scenario& scenario, Mode mode, std::uint32_t sockets)
        : scenario_(scenario),
          mode_(mode),
          sockets_(sockets),
          depth_(scenario.limits),
          random_(scenario.seed) {
        if (mode == Mode::kNaive) lines_.resize(sockets);
        figures_.by_second.resize(static_cast<std::size_t>(seconds_of(scenario.length)) + 1);
    }

    Figures run() {
        if (scenario_.clients == 0) at(interval(), Kind::kArrival, 0);
        for (std::uint32_t i = 0; i < scenario_.clients; ++i) {
            at(Duration(i * 1000), Kind::kArrival, 0);
        }
        while (!events_.empty() && events_.top().at < scenario_.length) {
            const Event event = events_.top();
            events_.pop();
            now_ = event.at;
            if (event.kind == Kind::kArrival) arrive();
            if (event.kind == Kind::kAnswer) answer(event.line);
            if (event.kind == Kind::kServed) served(event.line);
        }
        return figures_;
    }

  private:
    enum class Kind { kArrival, kAnswer, kServed };
    struct Event {
        Duration at{};
        std::uint64_t order = 0;
        Kind kind{};
        std::size_t line = 0;
        bool operator<(const Event& other) const {
            return at != other.at ? at > other.at : order > other.order;
        }
    };
    struct Request {
        ChannelDepth::Class cls{};
        Duration arrived{};
        Duration service{};
        bool ridden = false;
    };
    struct Line {
        std::deque<Request> requests;
        Duration free_at{};
        Duration last_read{-1};
        bool queued = false;      // for the one thread
        std::size_t serving = 0;  // by it
        bool pooled = false;
    };

    void at(Duration time, Kind kind, std::size_t line) { events_.push({time, order_++, kind, line}); }
    Duration interval() {
        return Duration(static_cast<Duration::rep>(-std::log(1 - random_.unit()) / scenario_.rate * 1e9));
    }
    Instant instant() const { return t0 + now_; }

    void arrive() {
        if (scenario_.clients == 0) at(now_ + interval(), Kind::kArrival, 0);
        Request request{.cls = scenario_.cls(random_), .arrived = now_};
        request.service = scenario_.service(random_, request.cls, now_);
        std::size_t to = pick(request);
        Line& line = lines_[to];
        request.ridden = !line.pooled;
        line.requests.push_back(request);
        if (request.ridden) {
            figures_.in_flight += static_cast<double>(line.requests.size());
            ++figures_.ridden;
            if (mode_ == Mode::kPolicy)
                depth_.ride(static_cast<ChannelDepth::Socket>(to), request.cls, instant());
        }
        if (scenario_.one_thread) {
            if (!line.queued) {
                line.queued = true;
                ready_.push_back(to);
            }
            if (!busy_) serve();
        } else {
            line.free_at = std::max(line.free_at, now_) + request.service;
            at(line.free_at, Kind::kAnswer, to);
        }
    }

    std::size_t pick(const Request& request) {
        if (mode_ == Mode::kNaive) {
            std::size_t best = 0;
            for (std::size_t i = 1; i < sockets_; ++i) {
                if (lines_[i].requests.size() < lines_[best].requests.size()) best = i;
            }
            return best;
        }
        if (mode_ == Mode::kPolicy) {
            const auto choice = depth_.choose(request.cls, instant(), true);
            if (choice.where == Where::kSocket) return choice.socket;
            if (choice.where == Where::kOpen) {
                lines_.emplace_back();
                depth_.open(static_cast<ChannelDepth::Socket>(lines_.size() - 1));
                return lines_.size() - 1;
            }
        }
        if (idle_.empty()) {
            lines_.emplace_back().pooled = true;
            return lines_.size() - 1;
        }
        const std::size_t to = idle_.back();
        idle_.pop_back();
        return to;
    }

    void answer(std::size_t from) {
        Line& line = lines_[from];
        const Request request = line.requests.front();
        line.requests.pop_front();
        if (mode_ == Mode::kPolicy && request.ridden)
            depth_.answered(static_cast<ChannelDepth::Socket>(from), instant());
        if (mode_ == Mode::kPolicy && !request.ridden)
            depth_.answered_alone(request.cls, now_ - request.arrived, instant());
        if (line.pooled) idle_.push_back(from);
        const double latency = seconds_of(now_ - request.arrived) * 1e6;
        if (now_ >= scenario_.measured_from) {
            figures_.all.push_back(latency);
            if (request.service < 1ms) figures_.quick.push_back(latency);
            if (request.service < 1ms && request.ridden) figures_.riders.push_back(latency);
            if (request.ridden) {
                ++figures_.rode;
                if (line.last_read != now_) ++figures_.reads;
                line.last_read = now_;
            }
        }
        figures_.by_second[static_cast<std::size_t>(seconds_of(now_))].push_back(latency);
        if (scenario_.clients > 0) at(now_, Kind::kArrival, 0);
    }

    void serve() {
        busy_ = !ready_.empty();
        if (!busy_) return;
        Line& line = lines_[ready_.front()];
        line.queued = false;
        line.serving = line.requests.size();
        Duration took{};
        for (const Request& request : line.requests) {
            took += request.service;
        }
        at(now_ + took, Kind::kServed, ready_.front());
        ready_.pop_front();
    }
    void served(std::size_t from) {
        Line& line = lines_[from];
        for (; line.serving > 0; --line.serving) {
            answer(from);
        }
        if (!line.requests.empty() && !line.queued) {
            line.queued = true;
            ready_.push_back(from);
        }
        serve();
    }

    const Scenario& scenario_;
    Mode mode_;
    std::size_t sockets_;
    ChannelDepth depth_;
    Random random_;
    std::deque<Line> lines_;
    std::vector<std::size_t> idle_;
    std::deque<std::size_t> ready_;
    bool busy_ = false;
    std::priority_queue<Event> events_;
    std::uint64_t order_ = 0;
    Duration now_{};
    Figures figures_;
};

Figures simulate(const Scenario& scenario, Mode mode, std::uint32_t sockets = 0) {
    Figures figures = Simulation(scenario, mode, sockets).run();
    const char* mode_name = mode == Mode::kPolicy ? "policy" : mode == Mode::kPooled ? "pooled" : "naive";
    const double answered = static_cast<double>(figures.all.size());
    std::printf(
        "%-34s %-6s %2u  %7.0f/s  all p50 %8.0f p99 %8.0f us  quick p50 %7.0f p99 %8.0f us  "
        "riders p99 %8.0f us  rode %5.1f %%  depth %5.1f  answers a read %5.1f\n",
        scenario.name, mode_name, sockets, answered / seconds_of(scenario.length - scenario.measured_from),
        percentile(figures.all, 50), percentile(figures.all, 99), percentile(figures.quick, 50),
        percentile(figures.quick, 99), percentile(figures.riders, 99), 100 * figures.rode / answered,
        figures.depth(), figures.per_read());
    return figures;
}

Duration around(Random& random, Duration mean) {  // plus or minus a fifth
    return Duration(
        static_cast<Duration::rep>(static_cast<double>(mean.count()) * (0.8 + 0.4 * random.unit())));
}

TEST(ChannelDepthSimulation, QuickAndAlikeIsDeep) {
    Scenario scenario{
        .name = "(a) 100 us, 64 clients, parallel", .clients = 64, .length = 3s, .measured_from = 1s};
    scenario.service = [](Random& random, ChannelDepth::Class, Duration) { return around(random, 100us); };
    simulate(scenario, Mode::kPooled);
    const Figures parallel = simulate(scenario, Mode::kPolicy);
    EXPECT_GE(parallel.depth(), 16);
    EXPECT_LE(percentile(parallel.all, 99), 3000);

    scenario.name = "(a) 100 us, 64 clients, one thread";
    scenario.one_thread = true;
    const Figures pooled = simulate(scenario, Mode::kPooled);
    simulate(scenario, Mode::kNaive, 2);
    const Figures busy = simulate(scenario, Mode::kPolicy);
    EXPECT_GE(busy.depth(), 12) << "a mean while they fill; about twice that when they are full";
    EXPECT_GE(busy.per_read(), 16);
    EXPECT_GE(busy.rode, 0.8 * static_cast<double>(busy.all.size()));
    EXPECT_LE(percentile(busy.all, 50), 1.1 * percentile(pooled.all, 50));
    EXPECT_GE(busy.all.size(), pooled.all.size() * 95 / 100);

    scenario.name = "(a) 20 us, 64 clients, one thread";
    scenario.service = [](Random& random, ChannelDepth::Class, Duration) { return around(random, 20us); };
    const Figures quick = simulate(scenario, Mode::kPolicy);
    EXPECT_GE(quick.per_read(), 16);
    EXPECT_GE(quick.rode, 0.8 * static_cast<double>(quick.all.size()));
}

TEST(ChannelDepthSimulation, ManyMoreClientsThanOneThreadServesFillWhatDepthAllows) {
    for (const std::uint32_t clients : {64u, 256u, 512u}) {
        Scenario scenario{.name = "(a) 15 us, many clients, one thread",
                          .clients = clients,
                          .length = 3s,
                          .measured_from = 1s};
        scenario.one_thread = true;
        scenario.limits.depth = 256;
        scenario.service = [](Random& random, ChannelDepth::Class, Duration) { return around(random, 15us); };
        const Figures pooled = simulate(scenario, Mode::kPooled);
        const Figures policy = simulate(scenario, Mode::kPolicy);
        EXPECT_GE(policy.rode, 0.9 * static_cast<double>(policy.all.size())) << clients;
        EXPECT_LE(percentile(policy.all, 99), 1.05 * percentile(pooled.all, 99)) << clients;
    }
}

TEST(ChannelDepthSimulation, OneInTwentySlowIsOneAtATime) {
    Scenario scenario{.name = "(b) one in 20 takes 20 ms", .rate = 5000};
    scenario.service = [](Random& random, ChannelDepth::Class, Duration) {
        return random.below(20) == 0 ? Duration(20ms) : around(random, 100us);
    };
    const Figures pooled = simulate(scenario, Mode::kPooled);
    simulate(scenario, Mode::kNaive, 1);
    simulate(scenario, Mode::kNaive, 16);
    const Figures policy = simulate(scenario, Mode::kPolicy);
    EXPECT_LE(percentile(policy.all, 50), 1.1 * percentile(pooled.all, 50));
    EXPECT_LE(percentile(policy.quick, 99), 2000);

    for (scenario.seed = 1; scenario.seed <= 5; ++scenario.seed) {
        scenario.name = "(b) the same after 5 s of quick ones";
        scenario.service = [](Random& random, ChannelDepth::Class, Duration at) {
            return at > 5s && random.below(20) == 0 ? Duration(20ms) : around(random, 100us);
        };
        scenario.measured_from = 5s;
        const Figures turned = simulate(scenario, Mode::kPolicy);
        EXPECT_LE(percentile(turned.all, 50), 1.1 * percentile(pooled.all, 50));
        EXPECT_LE(percentile(turned.quick, 99), 2000);

        scenario.name = "(b) one in 1000 takes 20 ms";
        scenario.measured_from = 2s;
        scenario.service = [](Random& random, ChannelDepth::Class, Duration) {
            return random.below(1000) == 0 ? Duration(20ms) : around(random, 100us);
        };
        EXPECT_LE(percentile(simulate(scenario, Mode::kPolicy).quick, 99), 2000);
    }
}

// The worst of shares: late ones are few enough to ride and many enough to be met.
TEST(ChannelDepthSimulation, UnderLoadFewLateOnesDoNotHoldUpOnePercent) {
    for (const std::uint64_t one_in : {100u, 200u, 400u, 1000u, 5000u}) {
        const std::string name = "(b) 64 clients, one in " + std::to_string(one_in) + " 20 ms";
        Scenario scenario{.name = name.c_str(), .clients = 64, .length = 3s, .measured_from = 1s};
        scenario.service = [one_in](Random& random, ChannelDepth::Class, Duration) {
            return random.below(one_in) == 0 ? Duration(20ms) : around(random, 100us);
        };
        const Figures policy = simulate(scenario, Mode::kPolicy);
        EXPECT_LE(percentile(policy.quick, 99), 2500) << "wait_max and a little";
        EXPECT_LE(percentile(policy.riders, 99), 2500) << "those that ride too";
    }
}

TEST(ChannelDepthSimulation, ASlowRouteDoesNotSlowAQuickOne) {
    Scenario scenario{.name = "(c) routes of 100 us and 50 ms", .rate = 5000};
    scenario.cls = [](Random& random) { return random.below(10) == 0 ? 1u : 0u; };
    scenario.service = [](Random& random, ChannelDepth::Class cls, Duration) {
        return around(random, cls == 1 ? 50ms : 100us);
    };
    const Figures pooled = simulate(scenario, Mode::kPooled);
    const Figures policy = simulate(scenario, Mode::kPolicy);
    EXPECT_LE(percentile(policy.quick, 50), 1.1 * percentile(pooled.quick, 50));
    EXPECT_LE(percentile(policy.quick, 99), 2000);
    EXPECT_GE(policy.rode, 0.8 * static_cast<double>(policy.quick.size())) << "the quick ones ride";
}

TEST(ChannelDepthSimulation, AServiceThatTurnsSlowAndRecovers) {
    Scenario scenario{.name = "(d) 100 us, 5 to 10 s 20 ms", .rate = 5000};
    scenario.service = [](Random& random, ChannelDepth::Class, Duration at) {
        return around(random, at > 5s && at < 10s ? 20ms : 100us);
    };
    const Figures policy = simulate(scenario, Mode::kPolicy);
    for (std::size_t second = 0; second < 20; ++second) {
        const double p99 = percentile(policy.by_second[second], 99);
        std::printf("  second %2zu: p50 %6.0f us, p99 %6.0f us\n", second,
                    percentile(policy.by_second[second], 50), p99);
        if (second >= 5 && second < 10) {
            EXPECT_LE(p99, 1.1 * 24'000) << second;
        } else if (second >= 11) {
            EXPECT_LE(p99, 2000) << second;
        }
    }
    EXPECT_GE(policy.rode, 0.5 * static_cast<double>(policy.all.size())) << "deep again after it";
}

}  // namespace
}  // namespace outrider::policy
