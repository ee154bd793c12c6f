// ChannelDepth where outrider itself is what requests wait for: one loop with many clients, in front of a quick upstream.
#include <algorithm>
#include <cstdio>
#include <deque>
#include <queue>
#include <vector>

#include <gtest/gtest.h>

#include "filters/policy/channel_depth.h"

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;
using Where = ChannelDepth::Choice::Where;

// What the loop and the upstream need for one request; of the order that bench/compare measures.
constexpr Duration kPooledEvent = 7us;  // a request or an answer on a connection of its own
constexpr Duration kRiderEvent = 3us;
constexpr Duration kFlush = 5us;  // of a socket, once a turn
constexpr Duration kService = 4us;
constexpr Duration kClient = 30us;  // until a client that was answered asks again

// A turn takes what is there when it begins. Its time is the time at which it began; riders leave at its end.
class BusyLoop {
  public:
    enum class Mode { kPooled, kPolicy, kPolicyThatDoesNotKnowItsTurns };
    BusyLoop(std::size_t clients, Mode mode)
        : mode_(mode), depth_({.connections = kSockets, .depth = 256}), outbox_(kSockets) {
        for (std::size_t i = 0; i < clients; ++i)
            requests_.push({Duration(static_cast<Duration::rep>(i) * 1000),
                            Duration(static_cast<Duration::rep>(i) * 1000)});
    }

    void run(Duration length) {
        while (now_ < length)
            turn();
    }

    std::vector<Duration> latencies;
    std::size_t rode = 0;

  private:
    static constexpr std::uint32_t kSockets = 2;
    struct Request {
        Duration ready{};    // at the loop
        Duration arrived{};  // from its client
        Duration sent{};     // by the loop's clock
        bool ridden = false;
        ChannelDepth::Socket socket{};
        bool operator<(const Request& other) const { return ready > other.ready; }  // the earliest first
    };
    Instant clock(Duration at) const { return Instant(1000s) + at; }

    void turn() {
        const bool idle = (requests_.empty() || requests_.top().ready > now_) &&
                          (answers_.empty() || answers_.front().ready > now_);
        if (idle)
            now_ = std::min(requests_.empty() ? Duration::max() : requests_.top().ready,
                            answers_.empty() ? Duration::max() : answers_.front().ready);
        const Duration began = now_;
        while (!answers_.empty() && answers_.front().ready <= began)
            take_answer(began);
        while (!requests_.empty() && requests_.top().ready <= began)
            take_request(began);
        for (auto& line : outbox_) {
            if (line.empty()) continue;
            now_ += kFlush;
            serve(line);
            line.clear();
        }
        turn_ += (now_ - began - turn_) / 8;
    }

    void take_request(Duration began) {
        Request request = requests_.top();
        requests_.pop();
        request.sent = began;
        if (mode_ != Mode::kPooled) {
            depth_.configure({.connections = kSockets,
                              .depth = 256,
                              .turn = mode_ == Mode::kPolicy ? turn_ : Duration(0)});
            const auto choice = depth_.choose(0, clock(began), true);
            if (choice.where == Where::kOpen) depth_.open(opened_++);
            request.ridden = choice.where == Where::kSocket;
            request.socket = choice.socket;
        }
        if (request.ridden) {
            depth_.ride(request.socket, 0, clock(began));
            now_ += kRiderEvent;
            outbox_[request.socket].push_back(request);
        } else {
            now_ += kPooledEvent;
            serve({request});
        }
    }

    // What comes together is answered together.
    void serve(const std::vector<Request>& together) {
        upstream_free_ =
            std::max(upstream_free_, now_) + kService * static_cast<Duration::rep>(together.size());
        for (Request request : together) {
            request.ready = upstream_free_;
            answers_.push_back(request);
        }
    }

    void take_answer(Duration began) {
        Request request = answers_.front();
        answers_.pop_front();
        if (request.ridden) {
            depth_.answered(request.socket, clock(began));
            now_ += kRiderEvent;
            ++rode;
        } else {
            depth_.answered_alone(0, began - request.sent, clock(began));
            now_ += kPooledEvent;
        }
        latencies.push_back(now_ - request.arrived);
        requests_.push({now_ + kClient, now_ + kClient});
    }

    Mode mode_;
    ChannelDepth depth_;
    std::vector<std::vector<Request>> outbox_;
    std::priority_queue<Request> requests_;
    std::deque<Request> answers_;
    Duration now_{};
    Duration turn_{};
    Duration upstream_free_{};
    ChannelDepth::Socket opened_ = 0;
};

struct Outcome {
    double rate = 0;   // a second
    double share = 0;  // that rode
    Duration p50{}, p99{};
};

Outcome simulate(const char* name, std::size_t clients, BusyLoop::Mode mode) {
    constexpr Duration kLength = 3s;
    BusyLoop loop(clients, mode);
    loop.run(kLength);
    std::sort(loop.latencies.begin(), loop.latencies.end());
    const std::size_t count = loop.latencies.size();
    const Outcome out{static_cast<double>(count) / seconds_of(kLength),
                      static_cast<double>(loop.rode) / static_cast<double>(count), loop.latencies[count / 2],
                      loop.latencies[count * 99 / 100]};
    std::printf("%4zu clients, %-28s %8.0f/s  p50 %6.0f us  p99 %6.0f us  rode %5.1f %%\n", clients, name,
                out.rate, seconds_of(out.p50) * 1e6, seconds_of(out.p99) * 1e6, 100 * out.share);
    return out;
}

TEST(ChannelDepthSimulation, WhereTheLoopIsBusyWhatRidesMakesItLessSo) {
    for (const std::size_t clients : {64u, 256u, 512u}) {
        SCOPED_TRACE(clients);
        const Outcome pooled = simulate("pooled", clients, BusyLoop::Mode::kPooled);
        simulate("without knowing its turns", clients, BusyLoop::Mode::kPolicyThatDoesNotKnowItsTurns);
        const Outcome policy = simulate("knowing its turns", clients, BusyLoop::Mode::kPolicy);
        EXPECT_GE(policy.share, 0.9);
        EXPECT_GE(policy.rate, 1.5 * pooled.rate);
        EXPECT_LE(policy.p50, pooled.p50);
        EXPECT_LE(policy.p99, pooled.p99);
    }
}

}  // namespace
}  // namespace outrider::policy
