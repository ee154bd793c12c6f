#include "bench/net.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

namespace outrider::bench {
namespace {

constexpr int kBacklog = 4096;
constexpr std::size_t kEventsAtOnce = 1024;
constexpr std::uint64_t kNanoseconds = 1'000'000'000;

sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

void without_delay(int fd) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

std::uint64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * kNanoseconds + static_cast<std::uint64_t>(now.tv_nsec);
}

void die(const std::string& what) {
    std::fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what.c_str(), std::strerror(errno));
    std::exit(1);
}

Socket listen_on_loopback(std::uint16_t port) {
    Socket listener(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!listener.open()) die("socket");
    const int on = 1;
    setsockopt(listener.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const sockaddr_in address = loopback(port);
    if (bind(listener.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        listen(listener.fd(), kBacklog) != 0) {
        die("cannot listen on 127.0.0.1:" + std::to_string(port));
    }
    return listener;
}

Socket accept_from(const Socket& listener) {
    Socket accepted(accept4(listener.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (accepted.open()) without_delay(accepted.fd());
    return accepted;
}

Socket connect_to_loopback(std::uint16_t port) {
    Socket client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!client.open()) die("socket");
    const timeval limit{5, 0};  // bounds connect(2) as well (socket(7))
    setsockopt(client.fd(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    without_delay(client.fd());
    const sockaddr_in address = loopback(port);
    if (connect(client.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return Socket();
    }
    fcntl(client.fd(), F_SETFL, O_NONBLOCK);
    return client;
}

Epoll::Epoll() : epoll_(epoll_create1(EPOLL_CLOEXEC)), events_(kEventsAtOnce) {
    if (!epoll_.open()) die("epoll_create1");
}

void Epoll::add(int fd, void* tag) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.ptr = tag;
    if (epoll_ctl(epoll_.fd(), EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
}

std::span<const epoll_event> Epoll::wait(std::optional<std::uint64_t> timeout_ns) {
    timespec timeout{};
    if (timeout_ns) {
        timeout.tv_sec = static_cast<time_t>(*timeout_ns / kNanoseconds);
        timeout.tv_nsec = static_cast<long>(*timeout_ns % kNanoseconds);
    }
    const int count = epoll_pwait2(epoll_.fd(), events_.data(), static_cast<int>(events_.size()),
                                   timeout_ns ? &timeout : nullptr, nullptr);
    if (count < 0 && errno != EINTR) die("epoll_pwait2");
    return std::span(events_).first(static_cast<std::size_t>(std::max(count, 0)));
}

std::uint64_t raise_open_files(std::uint64_t wanted) {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    if (limit.rlim_cur >= wanted) return limit.rlim_cur;
    rlimit more{wanted, std::max<rlim_t>(wanted, limit.rlim_max)};
    if (setrlimit(RLIMIT_NOFILE, &more) == 0) return wanted;
    limit.rlim_cur = std::min<rlim_t>(wanted, limit.rlim_max);  // no right to raise the hard limit
    setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

}  // namespace outrider::bench
