// Both ends of a TCP connection on one loop of the test's own thread.
//
// The code under test runs on a uv::Loop; the other end is a Peer: a plain socket read and written with recv(2) and
// send(2), so that what the tests see is what a stranger would see. Nothing here sleeps: LoopRun turns the loop until
// something the test waits for is true.
#pragma once

#include <cerrno>
#include <functional>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "base/http/http1_parser.h"
#include "base/uv/acceptor.h"
#include "base/uv/loop.h"
#include "base/uv/tcp_stream.h"

namespace outrider::http::test {

// A listening socket on the loopback, with a port that the kernel picked.
inline int listen_on_loopback() {
    auto fd = uv::open_listening_socket(*uv::SocketAddress::parse("127.0.0.1", 0), false);
    EXPECT_TRUE(fd);
    return *fd;
}

// What a test that fails must not hang for.
inline constexpr std::uint64_t kPatienceMs = 20'000;

class LoopRun {
  public:
    LoopRun() {
        uv_timer_init(loop_.raw(), &guard_);
        guard_.data = this;
    }
    ~LoopRun() { uv_close(reinterpret_cast<uv_handle_t*>(&guard_), nullptr); }

    uv::Loop& loop() { return loop_; }

    // Turns the loop until the condition holds; false when it never did.
    bool until(const std::function<bool()>& holds) {
        expired_ = false;
        uv_timer_start(
            &guard_, [](uv_timer_t* timer) { static_cast<LoopRun*>(timer->data)->expired_ = true; },
            kPatienceMs, 0);
        while (!expired_ && !holds())
            uv_run(loop_.raw(), UV_RUN_ONCE);
        uv_timer_stop(&guard_);
        return holds();
    }

    // Runs `f` on the loop, inside an event, as anything in the program does.
    void in_event(std::function<void()> f) {
        bool done = false;
        loop_.post([&] {
            f();
            done = true;
        });
        EXPECT_TRUE(until([&] { return done; }));
    }

    // Until everything that can happen by itself without time passing has happened: a message to oneself through
    // the kernel comes back after the events that were ready before it.
    void settle(int turns = 20) {
        for (int i = 0; i < turns; ++i)
            in_event([] {});
    }

  private:
    uv::Loop loop_;
    uv_timer_t guard_{};
    bool expired_ = false;
};

// One end of a connection, without any of the code under test.
class Peer {
  public:
    Peer(uv::Loop& loop, int fd) : fd_(fd), poll_(new uv_poll_t{}) {
        ::fcntl(fd_, F_SETFL, ::fcntl(fd_, F_GETFL) | O_NONBLOCK);
        const int on = 1;
        ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        uv_poll_init(loop.raw(), poll_, fd_);
        poll_->data = this;
        watch();
    }
    ~Peer() { close(); }
    Peer(const Peer&) = delete;
    Peer& operator=(const Peer&) = delete;

    void send(std::string_view bytes) {
        outgoing_.append(bytes);
        flush();
    }
    // FIN behind everything that was sent.
    void half_close() {
        fin_ = true;
        flush();
    }
    void close() {
        if (poll_ == nullptr) return;
        uv_poll_stop(poll_);
        uv_close(reinterpret_cast<uv_handle_t*>(poll_),
                 [](uv_handle_t* handle) { delete reinterpret_cast<uv_poll_t*>(handle); });
        poll_ = nullptr;
        ::close(fd_);
    }
    void reset() {
        const linger hard{1, 0};
        ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        close();
    }
    // A client that does not read.
    void stop_reading() {
        reading_ = false;
        watch();
    }
    void start_reading() {
        reading_ = true;
        watch();
    }

    const std::string& received() const { return received_; }
    std::string take() { return std::exchange(received_, {}); }
    bool got(std::string_view text) const { return received_.find(text) != std::string::npos; }
    bool eof() const { return eof_; }
    bool was_reset() const { return reset_; }
    bool over() const { return eof_ || reset_; }
    bool all_sent() const { return outgoing_.empty(); }

  private:
    void watch() {
        if (poll_ == nullptr) return;
        const int events =
            (reading_ && !over() ? UV_READABLE : 0) | (!outgoing_.empty() && !reset_ ? UV_WRITABLE : 0);
        if (events == 0) {
            uv_poll_stop(poll_);
            return;
        }
        uv_poll_start(poll_, events, [](uv_poll_t* poll, int status, int ready) {
            auto* self = static_cast<Peer*>(poll->data);
            if (status < 0 || (ready & UV_READABLE) != 0) self->receive();
            if ((ready & UV_WRITABLE) != 0) self->flush();
        });
    }
    void receive() {
        char buffer[64 * 1024];
        for (;;) {
            const ssize_t size = ::recv(fd_, buffer, sizeof buffer, 0);
            if (size > 0) {
                received_.append(buffer, static_cast<std::size_t>(size));
                continue;
            }
            if (size == 0) eof_ = true;
            if (size < 0 && errno != EAGAIN) reset_ = true;
            watch();
            return;
        }
    }
    void flush() {
        while (!outgoing_.empty()) {
            const ssize_t size = ::send(fd_, outgoing_.data(), outgoing_.size(), MSG_NOSIGNAL);
            if (size < 0) {
                if (errno != EAGAIN) outgoing_.clear();
                break;
            }
            outgoing_.erase(0, static_cast<std::size_t>(size));
        }
        if (outgoing_.empty() && fin_) ::shutdown(fd_, SHUT_WR);
        watch();
    }

    int fd_;
    uv_poll_t* poll_;
    std::string received_;
    std::string outgoing_;
    bool reading_ = true;
    bool fin_ = false;
    bool eof_ = false;
    bool reset_ = false;
};

struct TcpPair {
    int ours = -1;    // for the code under test: accepted, non-blocking
    int theirs = -1;  // for a Peer
};

// Buffers of the given size make back-pressure visible with little data; 0 leaves the kernel's.
inline TcpPair tcp_pair(int buffer_bytes = 0) {
    const int listening = listen_on_loopback();
    const uv::SocketAddress address = uv::local_address(listening);
    TcpPair pair;
    pair.theirs = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (buffer_bytes != 0) {
        ::setsockopt(pair.theirs, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
    }
    EXPECT_EQ(::connect(pair.theirs, address.raw(), address.size()), 0);
    // The listening socket does not block, but the connection is already in its queue.
    pair.ours = ::accept4(listening, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    EXPECT_GE(pair.ours, 0);
    if (buffer_bytes != 0) {
        ::setsockopt(pair.ours, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes);
    }
    ::close(listening);
    return pair;
}

}  // namespace outrider::http::test
