// A real Redis for a test: a process of its own on a free port of the loopback, with a directory of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <sys/types.h>

#include "config/settings.h"

namespace outrider::idempotency::test {

std::uint16_t free_port();

class RedisServer {
  public:
    // Starts it and waits until it serves. `options`: as on its command line ("--requirepass", "x").
    explicit RedisServer(std::vector<std::string> options = {});
    // A Sentinel with these lines of configuration.
    static RedisServer sentinel(const std::vector<std::string>& lines);
    ~RedisServer();
    RedisServer(RedisServer&& other) noexcept;
    RedisServer(const RedisServer&) = delete;
    RedisServer& operator=(const RedisServer&) = delete;

    std::uint16_t port() const { return port_; }
    config::HostPort address() const { return {"127.0.0.1", port_}; }
    void start();  // again, after kill()
    void kill();   // SIGKILL, and it is gone
    void pause();  // SIGSTOP, and it has stopped
    void resume();

    // Asks it, on a connection of its own, and gives the reply as text: lines for the elements of an array.
    std::string ask(const std::vector<std::string>& words, const std::string& password = {}) const;

  private:
    struct Bare {};
    explicit RedisServer(Bare) {}
    void make_directory();
    bool launch();

    std::filesystem::path directory_;
    std::vector<std::string> command_;
    std::string ready_;  // what it prints when it serves
    std::uint16_t port_ = 0;
    pid_t pid_ = -1;
    int output_ = -1;
};

}  // namespace outrider::idempotency::test
