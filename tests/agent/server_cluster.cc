#include "tests/agent/server_cluster.h"

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <utility>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/uv/acceptor.h"

namespace outrider::agent::test {
namespace {

std::uint16_t free_port() {
    const auto fd = uv::open_listening_socket(*uv::SocketAddress::parse("127.0.0.1", 0), false);
    const std::uint16_t port = uv::local_address(*fd).port();
    ::close(*fd);
    return port;
}

std::string loopback(std::uint16_t port) {
    return "127.0.0.1:" + std::to_string(port);
}

}  // namespace

ServerCluster::ServerCluster(std::size_t size) {
    // A port that was free may be taken by the time a member binds it.
    for (int tries = 0; tries < 5; ++tries) {
        make(size);
        bool ready = true;
        for (Member& member : members_)
            ready = ready && wait_ready(member);
        if (ready) return;
        for (Member& member : members_)
            end(member);
    }
    require(false, "the servers are installed, and start");
}

ServerCluster::~ServerCluster() {
    for (Member& member : members_)
        end(member);
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
}

void ServerCluster::make(std::size_t size) {
    std::error_code ignored;
    if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
    std::string name = (std::filesystem::temp_directory_path() / "outrider-quorum-XXXXXX").string();
    require(::mkdtemp(name.data()) != nullptr, "a directory for the servers can be made");
    directory_ = name;
    members_ = std::vector<Member>(size);
    for (Member& member : members_) {
        member.client_port = free_port();
        member.peer_port = free_port();
    }
    const char* outrider = std::getenv("OUTRIDER_CONTROL");
    ready_ = outrider != nullptr ? "API on " : "serving client traffic insecurely";
    for (std::size_t i = 0; i < size; ++i) {
        members_[i].command = outrider != nullptr ? outrider_command(i) : etcd_command(i);
        launch(members_[i]);
    }
}

std::vector<std::string> ServerCluster::etcd_command(std::size_t member) const {
    std::string all;
    for (std::size_t i = 0; i < members_.size(); ++i)
        all += (i == 0 ? "m" : ",m") + std::to_string(i) + "=http://" + loopback(members_[i].peer_port);
    const std::string client = "http://" + loopback(members_[member].client_port);
    const std::string peer = "http://" + loopback(members_[member].peer_port);
    return {"etcd",
            "--name",
            "m" + std::to_string(member),
            "--data-dir",
            (directory_ / std::to_string(member)).string(),
            "--listen-client-urls",
            client,
            "--advertise-client-urls",
            client,
            "--listen-peer-urls",
            peer,
            "--initial-advertise-peer-urls",
            peer,
            "--initial-cluster",
            all,
            "--heartbeat-interval",
            "100",
            "--election-timeout",
            "700",
            "--logger",
            "zap",
            "--log-outputs",
            "stderr",
            "--log-level",
            "info"};
}

std::vector<std::string> ServerCluster::outrider_command(std::size_t member) const {
    const std::string name = "m" + std::to_string(member);
    const auto path = directory_ / (name + ".toml");
    std::ofstream file(path);
    file << "[control]\nname = \"" << name << "\"\ndata = \"" << (directory_ / name).string()
         << "\"\napi_listen = \"" << loopback(members_[member].client_port) << "\"\npeer_listen = \""
         << loopback(members_[member].peer_port) << "\"\npeers = { ";
    for (std::size_t i = 0; i < members_.size(); ++i)
        file << (i == 0 ? "m" : ", m") << i << " = \"" << loopback(members_[i].peer_port) << "\"";
    file << " }\n";
    return {std::getenv("OUTRIDER_CONTROL"), "control", "-c", path.string()};
}

std::vector<std::string> ServerCluster::endpoints() const {
    std::vector<std::string> out;
    for (const Member& member : members_)
        out.push_back(loopback(member.client_port));
    return out;
}

void ServerCluster::launch(Member& member) {
    int ends[2];
    require(::pipe2(ends, O_CLOEXEC) == 0, "a pipe can be made");
    std::vector<char*> words;
    for (std::string& word : member.command)
        words.push_back(word.data());
    words.push_back(nullptr);
    member.pid = ::fork();
    require(member.pid >= 0, "a process can be made");
    if (member.pid == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        ::dup2(ends[1], STDOUT_FILENO);
        ::dup2(ends[1], STDERR_FILENO);
        ::execvp(words[0], words.data());
        ::_exit(127);
    }
    ::close(ends[1]);
    member.output = ends[0];
}

// False: it ended before it served.
bool ServerCluster::wait_ready(Member& member) {
    std::string said;
    char buffer[4096];
    while (said.find(ready_) == std::string::npos) {
        const ssize_t size = ::read(member.output, buffer, sizeof buffer);
        if (size <= 0) return false;
        said.append(buffer, static_cast<std::size_t>(size));
    }
    member.reader = std::thread([output = member.output] {
        char ignored[4096];
        while (::read(output, ignored, sizeof ignored) > 0) {
        }
    });
    return true;
}

void ServerCluster::end(Member& member) {
    if (member.pid > 0) {
        ::kill(member.pid, SIGKILL);
        ::waitpid(member.pid, nullptr, 0);
        member.pid = -1;
    }
    if (member.reader.joinable()) member.reader.join();
    if (member.output >= 0) ::close(std::exchange(member.output, -1));
}

void ServerCluster::kill(std::size_t member) {
    end(members_[member]);
}

void ServerCluster::start(std::size_t member) {
    launch(members_[member]);
    require(wait_ready(members_[member]), "a member that was killed starts again");
}

void ServerCluster::pause(std::size_t member) {
    ::kill(members_[member].pid, SIGSTOP);
    ::waitpid(members_[member].pid, nullptr, WUNTRACED);
}

void ServerCluster::resume(std::size_t member) {
    ::kill(members_[member].pid, SIGCONT);
    ::waitpid(members_[member].pid, nullptr, WCONTINUED);
}

}  // namespace outrider::agent::test
