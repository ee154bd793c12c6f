#include "tests/idempotency/redis_server.h"

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <memory>

#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/uv/acceptor.h"

namespace outrider::idempotency::test {
namespace {

std::string text_of(const redisReply& reply) {
    switch (reply.type) {
        case REDIS_REPLY_INTEGER:
            return std::to_string(reply.integer);
        case REDIS_REPLY_NIL:
            return "(nil)";
        case REDIS_REPLY_ARRAY: {
            std::string all;
            for (std::size_t i = 0; i < reply.elements; ++i)
                all += text_of(*reply.element[i]) + "\n";
            return all;
        }
        default:
            return std::string(reply.str, reply.len);
    }
}

}  // namespace

std::uint16_t free_port() {
    const auto fd = uv::open_listening_socket(*uv::SocketAddress::parse("127.0.0.1", 0), false);
    const std::uint16_t port = uv::local_address(*fd).port();
    ::close(*fd);
    return port;
}

RedisServer::RedisServer(std::vector<std::string> options) {
    make_directory();
    ready_ = "Ready to accept connections";
    // A port that was free may be taken by the time Redis binds it.
    for (int tries = 0; tries < 5; ++tries) {
        port_ = free_port();
        command_ = {"redis-server",
                    "--port",
                    std::to_string(port_),
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--dir",
                    directory_.string(),
                    "--daemonize",
                    "no",
                    "--repl-diskless-sync-delay",
                    "0"};
        command_.insert(command_.end(), options.begin(), options.end());
        if (launch()) return;
        kill();
    }
    require(false, "Redis is installed, and starts");
}

RedisServer RedisServer::sentinel(const std::vector<std::string>& lines) {
    RedisServer server{Bare{}};
    server.port_ = free_port();
    server.make_directory();
    const auto path = server.directory_ / "sentinel.conf";
    std::ofstream file(path);
    file << "port " << server.port_ << "\nbind 127.0.0.1\ndir " << server.directory_.string() << "\n";
    for (const std::string& line : lines)
        file << line << "\n";
    file.close();
    server.command_ = {"redis-sentinel", path.string()};
    server.ready_ = "Sentinel ID is";
    server.start();
    return server;
}

RedisServer::RedisServer(RedisServer&& other) noexcept
    : directory_(std::move(other.directory_)),
      command_(std::move(other.command_)),
      ready_(std::move(other.ready_)),
      port_(other.port_),
      pid_(std::exchange(other.pid_, -1)),
      output_(std::exchange(other.output_, -1)) {
    other.directory_.clear();
}

RedisServer::~RedisServer() {
    kill();
    std::error_code ignored;
    if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

void RedisServer::make_directory() {
    std::string name = (std::filesystem::temp_directory_path() / "outrider-redis-XXXXXX").string();
    require(::mkdtemp(name.data()) != nullptr, "a directory for Redis can be made");
    directory_ = name;
}

void RedisServer::start() {
    require(launch(), "Redis is installed, and starts");
}

// False: it ended before it served.
bool RedisServer::launch() {
    int ends[2];
    require(::pipe2(ends, O_CLOEXEC) == 0, "a pipe can be made");
    std::vector<char*> words;
    for (std::string& word : command_)
        words.push_back(word.data());
    words.push_back(nullptr);
    pid_ = ::fork();
    require(pid_ >= 0, "a process can be made");
    if (pid_ == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        ::dup2(ends[1], STDOUT_FILENO);
        ::dup2(ends[1], STDERR_FILENO);
        ::execvp(words[0], words.data());
        ::_exit(127);
    }
    ::close(ends[1]);
    output_ = ends[0];
    std::string said;
    char buffer[4096];
    while (said.find(ready_) == std::string::npos) {
        const ssize_t size = ::read(output_, buffer, sizeof buffer);
        if (size <= 0) return false;
        said.append(buffer, static_cast<std::size_t>(size));
    }
    return true;  // what it prints later is little, and nobody reads it: a pipe holds 64 KiB
}

void RedisServer::kill() {
    if (pid_ > 0) {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        pid_ = -1;
    }
    if (output_ >= 0) ::close(std::exchange(output_, -1));
}

void RedisServer::pause() {
    ::kill(pid_, SIGSTOP);
    ::waitpid(pid_, nullptr, WUNTRACED);
}

void RedisServer::resume() {
    ::kill(pid_, SIGCONT);
    ::waitpid(pid_, nullptr, WCONTINUED);
}

std::string RedisServer::ask(const std::vector<std::string>& words, const std::string& password) const {
    const std::unique_ptr<redisContext, void (*)(redisContext*)> context(redisConnect("127.0.0.1", port_),
                                                                         redisFree);
    if (context == nullptr || context->err != 0) return "no connection";
    const auto say = [&](const std::vector<std::string>& command) {
        std::vector<const char*> data;
        std::vector<std::size_t> sizes;
        for (const std::string& word : command) {
            data.push_back(word.data());
            sizes.push_back(word.size());
        }
        const std::unique_ptr<void, void (*)(void*)> reply(
            redisCommandArgv(context.get(), static_cast<int>(data.size()), data.data(), sizes.data()),
            freeReplyObject);
        return reply == nullptr ? std::string(context->errstr)
                                : text_of(*static_cast<redisReply*>(reply.get()));
    };
    if (!password.empty()) say({"AUTH", password});
    return say(words);
}

}  // namespace outrider::idempotency::test
