// An endpoint that answers each request as a function says, and remembers them. A thread of its own for each connection.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/uv/acceptor.h"
#include "tests/base_uv/loop_fixture.h"

namespace outrider::agent::test {

class ScriptedServer {
  public:
    // Given the head of the n-th request, from 0 on, its answer. Empty: the connection ends without one. Called by the threads of
    // all connections.
    using Script = std::function<std::string(int n, const std::string& head)>;

    explicit ScriptedServer(Script script)
        : script_(std::move(script)), listening_(http::test::listen_on_loopback()) {
        ::fcntl(listening_, F_SETFL, ::fcntl(listening_, F_GETFL) & ~O_NONBLOCK);
        acceptor_ = std::thread([this] {
            for (int fd = 0; (fd = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
                clients_.push_back(fd);
                threads_.emplace_back([this, fd] { serve(fd); });
            }
        });
    }
    ~ScriptedServer() {
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
    ScriptedServer(const ScriptedServer&) = delete;
    ScriptedServer& operator=(const ScriptedServer&) = delete;

    std::string endpoint() const { return uv::local_address(listening_).text(); }
    std::vector<std::string> heads() {
        const std::lock_guard lock(mutex_);
        return heads_;
    }

  private:
    void serve(int fd) {
        std::string text;
        char buffer[4096];
        for (ssize_t size = 0; (size = ::recv(fd, buffer, sizeof buffer, 0)) > 0;) {
            text.append(buffer, static_cast<std::size_t>(size));
            for (std::size_t end = 0; (end = text.find("\r\n\r\n")) != std::string::npos;) {
                const std::string head = text.substr(0, end + 2);
                const std::size_t length = std::stoul(field(head, "Content-Length"));
                if (text.size() < end + 4 + length) break;
                text.erase(0, end + 4 + length);
                const std::string answer = take(head);
                if (answer.empty()) {
                    ::shutdown(fd, SHUT_RDWR);
                    return;
                }
                (void)::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
            }
        }
    }
    std::string take(const std::string& head) {
        int n = 0;
        {
            const std::lock_guard lock(mutex_);
            n = static_cast<int>(heads_.size());
            heads_.push_back(head);
        }
        return script_(n, head);
    }

  public:
    static std::string field(const std::string& head, const std::string& name) {
        const std::size_t at = head.find("\r\n" + name + ": ");
        if (at == std::string::npos) return "";
        const std::size_t begin = at + name.size() + 4;
        return head.substr(begin, head.find('\r', begin) - begin);
    }

  private:
    const Script script_;
    const int listening_;
    std::mutex mutex_;
    std::vector<std::string> heads_;
    // The acceptor's, until it has ended.
    std::vector<int> clients_;
    std::vector<std::thread> threads_;
    std::thread acceptor_;
};

}  // namespace outrider::agent::test
