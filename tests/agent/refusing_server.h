// An endpoint that answers every request with the same text after a fixed time, and counts them. Threads of its own.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <utility>

#include "base/time.h"
#include "tests/agent/scripted_server.h"

namespace outrider::agent::test {

class RefusingServer {
  public:
    RefusingServer(std::string answer, Duration after)
        : answer_(std::move(answer)), after_(after), server_([this](int, const std::string&) {
              std::unique_lock lock(mutex_);
              return told_.wait_for(lock, after_, [this] { return over_; }) ? std::string() : answer_;
          }) {}
    ~RefusingServer() {
        {
            const std::lock_guard lock(mutex_);
            over_ = true;
        }
        told_.notify_all();
    }
    RefusingServer(const RefusingServer&) = delete;
    RefusingServer& operator=(const RefusingServer&) = delete;

    std::string endpoint() const { return server_.endpoint(); }
    int requests() { return static_cast<int>(server_.heads().size()); }

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
    const std::string answer_;
    const Duration after_;
    std::mutex mutex_;
    std::condition_variable told_;
    bool over_ = false;
    ScriptedServer server_;  // last: its threads use the others
};

}  // namespace outrider::agent::test
