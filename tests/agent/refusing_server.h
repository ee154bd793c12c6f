// An endpoint that answers every request with the same text after a fixed time, and counts them. Threads of its own.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

#include "base/time.h"
#include "base/uv/acceptor.h"
#include "tests/base_uv/loop_fixture.h"

namespace outrider::agent::test {

class RefusingServer {
  public:
    RefusingServer(std::string answer, Duration after)
        : answer_(std::move(answer)), after_(after), listening_(http::test::listen_on_loopback()) {
        ::fcntl(listening_, F_SETFL, ::fcntl(listening_, F_GETFL) & ~O_NONBLOCK);
        acceptor_ = std::thread([this] { accept(); });
    }
    ~RefusingServer() {
        {
            const std::lock_guard lock(mutex_);
            over_ = true;
        }
        told_.notify_all();
        ::shutdown(listening_, SHUT_RDWR);  // wakes accept(2)
        acceptor_.join();
        for (const int fd : clients_)
            ::shutdown(fd, SHUT_RDWR);
        for (std::thread& thread : threads_)
            thread.join();
        for (const int fd : clients_)
            ::close(fd);
        ::close(listening_);
    }
    RefusingServer(const RefusingServer&) = delete;
    RefusingServer& operator=(const RefusingServer&) = delete;

    std::string endpoint() const { return uv::local_address(listening_).text(); }
    int requests() const { return requests_; }

    static std::string http(const std::string& status, const std::string& body) {
        return "HTTP/1.1 " + status +
               "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
               "\r\n\r\n" + body;
    }
    static std::string no_leader() {
        return http("503 Service Unavailable",
                    R"({"error":"etcdserver: no leader","message":"etcdserver: no leader","code":14})");
    }

  private:
    void accept() {
        for (int fd = 0; (fd = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
            clients_.push_back(fd);
            threads_.emplace_back([this, fd] { serve(fd); });
        }
    }
    void serve(int fd) {
        std::string text;
        char buffer[4096];
        for (ssize_t size = 0; (size = ::recv(fd, buffer, sizeof buffer, 0)) > 0;) {
            text.append(buffer, static_cast<std::size_t>(size));
            for (std::size_t at = 0; (at = text.find("POST ")) != std::string::npos;) {
                text.erase(0, at + 5);
                ++requests_;
                std::unique_lock lock(mutex_);
                if (told_.wait_for(lock, after_, [this] { return over_; })) return;
                (void)::send(fd, answer_.data(), answer_.size(), MSG_NOSIGNAL);
            }
        }
    }

    const std::string answer_;
    const Duration after_;
    const int listening_;
    std::atomic<int> requests_ = 0;
    std::mutex mutex_;
    std::condition_variable told_;
    bool over_ = false;
    // The acceptor's, until it has ended.
    std::vector<int> clients_;
    std::vector<std::thread> threads_;
    std::thread acceptor_;
};

}  // namespace outrider::agent::test
