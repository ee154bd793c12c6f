// Connections held in one state while somebody looks at the proxy's memory.
#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include "bench/load_connection.h"
#include "bench/load_run.h"
#include "bench/net.h"

namespace outrider::bench {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kOpeningMax = 60'000 * kMillisecond;
constexpr std::uint64_t kSettle = 800 * kMillisecond;  // for what was sent to reach its last hop
// Idle connections are opened with few requests outstanding, so that the proxy needs few
// connections to the backend and the memory of those is not charged to the idle ones.
constexpr std::uint64_t kIdleOutstandingMax = 64;
constexpr std::size_t kDripTail = std::size_t{64} * 1024;

class Hold {
  public:
    explicit Hold(const LoadOptions& options) : options_(options), connections_(options.connections) {
        if (options.mode != Mode::kDrip) {
            request_ = make_request(options, options.path);
            return;
        }
        request_ = make_request(options, options.path);
        request_.resize(request_.size() - 2);  // without the empty line: the head never ends
        request_ += "X-Drip: " + std::string(options.drip_bytes + kDripTail, 'a');
        dripped_ = options.drip_bytes;
    }

    int run() {
        start_ns_ = now_ns();
        for (LoadConnection& connection : connections_)
            begin(connection);
        if (open_ == 0) die("cannot connect to 127.0.0.1:" + std::to_string(options_.port));
        if (options_.mode == Mode::kIdle) {
            while (outstanding() > 0 && now_ns() - start_ns_ < kOpeningMax)
                turn(100 * kMillisecond);
        } else {
            const std::uint64_t until = now_ns() + kSettle;
            for (std::uint64_t now = now_ns(); now < until; now = now_ns())
                turn(until - now);
        }
        std::printf("READY ");
        print();
        epoll_.add(STDIN_FILENO, nullptr);
        while (!input_over_)
            turn(std::nullopt);
        print();
        return 0;
    }

  private:
    void begin(LoadConnection& connection) {
        if (!connection.open(options_.port, epoll_)) {
            ++refused_;
            return;
        }
        ++open_;
        if (options_.mode == Mode::kDrip) {
            connection.send_part(std::string_view(request_).substr(0, options_.drip_bytes));
        } else {
            const std::uint64_t now = now_ns();
            connection.send(request_, {now, now, false});
            ++sent_;
        }
        turn(0);
        if (options_.mode != Mode::kIdle) return;
        while (outstanding() > kIdleOutstandingMax && now_ns() - start_ns_ < kOpeningMax) {
            turn(100 * kMillisecond);
        }
    }

    std::uint64_t outstanding() const { return sent_ - answered_ - lost_; }

    // One round of events, and of dripping when its time has come.
    void turn(std::optional<std::uint64_t> timeout_ns) {
        const bool drips = options_.mode == Mode::kDrip && options_.drip_every_ms > 0;
        if (drips) {
            const std::uint64_t now = now_ns();
            if (now >= next_drip_ns_) drip(now);
            const std::uint64_t until_drip = next_drip_ns_ - now;
            timeout_ns = std::min(timeout_ns.value_or(until_drip), until_drip);
        }
        for (const epoll_event& event : epoll_.wait(timeout_ns)) {
            if (event.data.ptr == nullptr) {
                on_input(event.events);
            } else {
                on_event(*static_cast<LoadConnection*>(event.data.ptr), event.events);
            }
        }
    }

    void drip(std::uint64_t now) {
        next_drip_ns_ = now + options_.drip_every_ms * kMillisecond;
        if (dripped_ == request_.size()) return;
        const std::string_view next = std::string_view(request_).substr(dripped_++, 1);
        for (LoadConnection& connection : connections_) {
            if (connection.is_open()) connection.send_part(next);
        }
    }

    void on_input(std::uint32_t events) {
        if ((events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP | EPOLLERR)) != 0) input_over_ = true;
    }

    void on_event(LoadConnection& connection, std::uint32_t events) {
        completed_.clear();
        const bool alive = connection.on_event(events, completed_);
        answered_ += completed_.size();
        for (const Completed& answer : completed_)
            non_200_ += answer.status == 200 ? 0 : 1;
        if (alive) return;
        lost_ += connection.outstanding();
        connection.close();
        --open_;
        ++closed_;
    }

    void print() const {
        std::printf(
            "{\"open\":%llu,\"refused\":%llu,\"closed\":%llu,\"answered\":%llu,"
            "\"non_200\":%llu,\"seconds\":%.3f}\n",
            static_cast<unsigned long long>(open_), static_cast<unsigned long long>(refused_),
            static_cast<unsigned long long>(closed_), static_cast<unsigned long long>(answered_),
            static_cast<unsigned long long>(non_200_), static_cast<double>(now_ns() - start_ns_) / 1e9);
        std::fflush(stdout);
    }

    const LoadOptions& options_;
    std::string request_;
    Epoll epoll_;
    std::vector<LoadConnection> connections_;
    std::vector<Completed> completed_;
    std::uint64_t start_ns_ = 0;
    std::uint64_t next_drip_ns_ = 0;
    std::size_t dripped_ = 0;
    bool input_over_ = false;

    std::uint64_t open_ = 0;
    std::uint64_t refused_ = 0;
    std::uint64_t closed_ = 0;  // by the peer
    std::uint64_t sent_ = 0;
    std::uint64_t answered_ = 0;
    std::uint64_t lost_ = 0;
    std::uint64_t non_200_ = 0;
};

}  // namespace

int run_hold(const LoadOptions& options) {
    return Hold(options).run();
}

}  // namespace outrider::bench
