// A real quorum for a test: processes on free ports of the loopback, with directories of their own.
//
// Debian's etcd-server; nodes of outrider when OUTRIDER_CONTROL in the environment names the program.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <sys/types.h>

namespace outrider::agent::test {

class ServerCluster {
  public:
    // Starts that many members and waits until each says that it serves.
    explicit ServerCluster(std::size_t size);
    ~ServerCluster();
    ServerCluster(const ServerCluster&) = delete;
    ServerCluster& operator=(const ServerCluster&) = delete;

    std::size_t size() const { return members_.size(); }
    std::vector<std::string> endpoints() const;  // host:port, in the order of the members
    void kill(std::size_t member);               // SIGKILL, and it is gone
    void start(std::size_t member);              // again, with its data; returns when it serves
    void pause(std::size_t member);              // SIGSTOP, and it has stopped
    void resume(std::size_t member);

  private:
    struct Member {
        std::vector<std::string> command;
        std::uint16_t client_port = 0;
        std::uint16_t peer_port = 0;
        pid_t pid = -1;
        int output = -1;
        std::thread reader;  // of what it goes on to print, so that it never waits for us
    };
    void make(std::size_t size);
    void launch(Member& member);
    std::vector<std::string> etcd_command(std::size_t member) const;
    std::vector<std::string> outrider_command(std::size_t member) const;
    bool wait_ready(Member& member);
    void end(Member& member);

    std::string ready_;  // what a member prints when it serves
    std::filesystem::path directory_;
    std::vector<Member> members_;
};

}  // namespace outrider::agent::test
