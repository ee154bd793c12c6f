// The few system calls that the load generator and the backend share: a clock, sockets on loopback,
// an edge-triggered epoll with nanosecond timeouts.
//
// Everything is edge-triggered and registered once: a connection costs no epoll_ctl after its
// first.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sys/epoll.h>
#include <unistd.h>

namespace outrider::bench {

// CLOCK_MONOTONIC in nanoseconds.
std::uint64_t now_ns();

// Prints "PROGRAM: what: errno's text" and ends the process: a bench that cannot have its sockets
// is over.
[[noreturn]] void die(const std::string& what);

class Socket {
  public:
    Socket() = default;
    explicit Socket(int fd) : fd_(fd) {}
    Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Socket& operator=(Socket&& other) noexcept {
        if (this != &other) {
            close();
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }
    ~Socket() { close(); }

    int fd() const { return fd_; }
    bool open() const { return fd_ >= 0; }
    void close() {
        if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    }

  private:
    int fd_ = -1;
};

// Dies when the port is taken.
Socket listen_on_loopback(std::uint16_t port);
// Non-blocking, without Nagle's delay; not open when there is nothing to accept.
Socket accept_from(const Socket& listener);
// Waits for the handshake (at most 5 s), then non-blocking; not open when refused.
Socket connect_to_loopback(std::uint16_t port);

class Epoll {
  public:
    Epoll();

    // Edge-triggered, for reading and writing; closing the socket ends the registration.
    void add(int fd, void* tag);
    // No timeout: waits for ever. At most one event per socket.
    std::span<const epoll_event> wait(std::optional<std::uint64_t> timeout_ns);

  private:
    Socket epoll_;
    std::vector<epoll_event> events_;
};

// As many open files as the kernel lets this process have, up to `wanted`; returns what it got.
std::uint64_t raise_open_files(std::uint64_t wanted);

}  // namespace outrider::bench
