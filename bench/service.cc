// outrider-bench-service: one endpoint that can be made slow, failing or overloaded while it runs.
//
//   outrider-bench-service PORT [NAME=NUMBER ...]          listens on 127.0.0.1
//
//   service_us=N   how long one request takes (default 5000)
//   slots=N        so many at once, the others queue, first come first served; 0 (default): all at once
//   fail=STATUS    answers this status at once, to health checks as well; 0 (default): 200
//
//   /control?NAME=NUMBER&...   changes these from now on; what has begun ends as it began
//   /health                    200 or `fail`, at once, without a slot
//   anything else              a request; with a JSON array as its body it is a bulk request: it takes the time of one and is
//                              answered with an array of as many elements
//
// Every 100 ms it writes a line to standard output, so that the figures of a process that was killed are
// there: nanoseconds of CLOCK_MONOTONIC, then within these 100 ms: requests that came, answers 200, answers
// `fail`, health checks; then requests in work and in the queue now. The first line says that it listens.
//
// As in most real servers, work that has begun, or waits, is done even when who asked for it has gone.
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include <sys/prctl.h>
#include <sys/socket.h>

#include "bench/framing.h"
#include "bench/net.h"

namespace outrider::bench {
namespace {

constexpr std::uint64_t kReportEvery = 100'000'000;
constexpr std::size_t kRequestBytesMax = std::size_t{2} * 1024 * 1024;
constexpr std::string_view kElement =
    "{\"done\":true}";                      // of a bulk request's answer, and the answer to any other POST
constexpr std::size_t kQueueMax = 100'000;  // more than any run of the bench brings

struct Behaviour {
    std::uint64_t service_us = 5000;
    std::uint64_t slots = 0;
    std::uint64_t fail = 0;

    // "slots=8". False: there is no such name, or that is no number.
    bool set(std::string_view assignment) {
        const std::size_t equals = assignment.find('=');
        if (equals == std::string_view::npos) return false;
        const std::string_view name = assignment.substr(0, equals);
        std::uint64_t* target = name == "service_us" ? &service_us
                                : name == "slots"    ? &slots
                                : name == "fail"     ? &fail
                                                     : nullptr;
        const char* end = assignment.data() + assignment.size();
        return target != nullptr && std::from_chars(assignment.data() + equals + 1, end, *target).ptr == end;
    }
};

// How many elements a JSON array has; nothing when this is none. It may be wrong in any other way.
std::optional<std::size_t> elements_of(std::string_view json) {
    if (!json.starts_with('[')) return std::nullopt;
    std::size_t commas = 0;
    std::size_t depth = 0;
    bool in_string = false;
    bool empty = true;
    for (std::size_t i = 0; i < json.size(); ++i) {
        const char c = json[i];
        if (in_string) {
            if (c == '\\') ++i;
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        if (c == ']' || c == '}') --depth;
        if (depth == 1 && c == ',') ++commas;
        if (depth > 0 && c > ' ') empty = false;
        if (c == '[' || c == '{') ++depth;
        if (depth == 0) return empty ? 0 : commas + 1;
    }
    return std::nullopt;
}

std::string answer_body(std::string_view request_body) {
    if (request_body.empty()) return std::string(63, 'x') + "\n";
    const auto elements = elements_of(request_body);
    if (!elements) return std::string(kElement);
    std::string out = "[";
    for (std::size_t i = 0; i < *elements; ++i)
        (out += i == 0 ? "" : ",") += kElement;
    return out + "]";
}

struct Connection {
    std::uint64_t serial = 0;
    Socket socket;
    std::string input;
    std::string answer;    // the body of what it waits for
    bool waiting = false;  // for its answer; what comes meanwhile stays in `input`
    bool last = false;
};

class Service {
  public:
    Service(std::uint16_t port, Behaviour behaviour)
        : behaviour_(behaviour), listener_(listen_on_loopback(port)) {
        epoll_.add(listener_.fd(), nullptr);
        report(now_ns());
    }

    [[noreturn]] void run() {
        while (true) {
            for (const epoll_event& event : epoll_.wait(until_next())) {
                if (event.data.ptr == nullptr) {
                    accept_all();
                } else {
                    read(*static_cast<Connection*>(event.data.ptr), event.events);
                }
            }
            finish_due();
            const std::uint64_t now = now_ns();
            if (now >= next_report_ns_) report(now);
        }
    }

  private:
    void accept_all() {
        while (true) {
            auto connection = std::make_unique<Connection>();
            connection->socket = accept_from(listener_);
            if (!connection->socket.open()) return;
            connection->serial = ++serials_;
            epoll_.add(connection->socket.fd(), connection.get());
            connections_.emplace(connection->serial, std::move(connection));
        }
    }

    void close(const Connection& c) { connections_.erase(c.serial); }

    void read(Connection& c, std::uint32_t events) {
        char buffer[16384];
        while (true) {
            const ssize_t count = recv(c.socket.fd(), buffer, sizeof buffer, 0);
            if (count < 0 && errno == EAGAIN) break;
            if (count <= 0) return close(c);
            c.input.append(buffer, static_cast<std::size_t>(count));
        }
        if ((events & (EPOLLERR | EPOLLHUP)) != 0 || c.input.size() > kRequestBytesMax) return close(c);
        take_requests(c);
    }

    // `c` may be gone afterwards.
    void take_requests(Connection& c) {
        while (!c.waiting) {
            const std::size_t length = head_length(c.input);
            if (length == 0) return;
            const std::string head = c.input.substr(0, length);
            const Fields fields = read_fields(head);
            if (c.input.size() - length < fields.length) return;
            c.answer = answer_body(std::string_view(c.input).substr(length, fields.length));
            c.input.erase(0, length + fields.length);
            c.last = fields.close;
            if (!take(c, head)) return;
        }
    }

    // False: the connection is gone.
    bool take(Connection& c, std::string_view head) {
        const std::size_t begin = head.find(' ') + 1;
        const std::string_view target = head.substr(begin, head.find(' ', begin) - begin);
        if (target.starts_with("/control?")) return answer(c, control(target.substr(9)) ? 200 : 400);
        const auto failure = static_cast<int>(behaviour_.fail);
        if (target == "/health") {
            ++bucket_.health;
            return answer(c, failure == 0 ? 200 : failure);
        }
        ++bucket_.came;
        if (failure != 0) {
            ++bucket_.failed;
            return answer(c, failure);
        }
        c.waiting = true;
        if (behaviour_.slots > 0 && in_work_.size() >= behaviour_.slots) {
            if (queue_.size() < kQueueMax) queue_.push_back(c.serial);
        } else {
            begin_work(c.serial, now_ns());
        }
        return true;
    }

    bool control(std::string_view assignments) {
        while (!assignments.empty()) {
            const std::size_t end = assignments.find('&');
            if (!behaviour_.set(assignments.substr(0, end))) return false;
            assignments.remove_prefix(end == std::string_view::npos ? assignments.size() : end + 1);
        }
        return true;
    }

    void begin_work(std::uint64_t serial, std::uint64_t now) {
        in_work_.emplace(now + behaviour_.service_us * 1000, serial);
    }

    void finish_due() {
        const std::uint64_t now = now_ns();
        while (!in_work_.empty() && in_work_.begin()->first <= now) {
            const std::uint64_t due = in_work_.begin()->first;
            const std::uint64_t serial = in_work_.begin()->second;
            in_work_.erase(in_work_.begin());
            // The next began when this one was due: being woken late must not make the slots fewer.
            while (!queue_.empty() && (behaviour_.slots == 0 || in_work_.size() < behaviour_.slots)) {
                begin_work(queue_.front(), due);
                queue_.pop_front();
            }
            ++bucket_.answered;
            const auto found = connections_.find(serial);
            if (found == connections_.end()) continue;
            Connection& c = *found->second;
            c.waiting = false;
            if (answer(c, 200)) take_requests(c);
        }
    }

    // One send for head and body: small enough to fit, or the peer is not reading at all.
    bool answer(Connection& c, int status) {
        const std::string text = "HTTP/1.1 " + std::to_string(status) +
                                 " Status\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: " +
                                 (c.answer.front() == 'x' ? "text/plain" : "application/json") +
                                 "\r\nContent-Length: " + std::to_string(c.answer.size()) + "\r\n\r\n" +
                                 c.answer;
        const ssize_t sent = send(c.socket.fd(), text.data(), text.size(), MSG_NOSIGNAL);
        if (sent == static_cast<ssize_t>(text.size()) && !c.last) return true;
        close(c);
        return false;
    }

    std::optional<std::uint64_t> until_next() const {
        const std::uint64_t now = now_ns();
        std::uint64_t next = next_report_ns_;
        if (!in_work_.empty()) next = std::min(next, in_work_.begin()->first);
        return next > now ? next - now : 0;
    }

    void report(std::uint64_t now) {
        std::printf("%llu %u %u %u %u %zu %zu\n", static_cast<unsigned long long>(now), bucket_.came,
                    bucket_.answered, bucket_.failed, bucket_.health, in_work_.size(), queue_.size());
        std::fflush(stdout);
        bucket_ = {};
        next_report_ns_ = now - now % kReportEvery + kReportEvery;
    }

    struct Bucket {
        unsigned came = 0;
        unsigned answered = 0;
        unsigned failed = 0;
        unsigned health = 0;
    };

    Behaviour behaviour_;
    Socket listener_;
    Epoll epoll_;
    std::unordered_map<std::uint64_t, std::unique_ptr<Connection>> connections_;  // by serial
    std::uint64_t serials_ = 0;
    std::multimap<std::uint64_t, std::uint64_t> in_work_;  // due time, serial
    std::deque<std::uint64_t> queue_;                      // serials
    Bucket bucket_;
    std::uint64_t next_report_ns_ = 0;
};

}  // namespace
}  // namespace outrider::bench

int main(int argc, char** argv) {
    unsigned long port = 0;
    if (argc > 1) port = std::strtoul(argv[1], nullptr, 10);
    outrider::bench::Behaviour behaviour;
    bool understood = port > 0 && port <= 65535;
    for (int i = 2; i < argc; ++i)
        understood = behaviour.set(argv[i]) && understood;
    if (!understood) {
        std::fprintf(stderr, "usage: %s PORT [service_us=N] [slots=N] [fail=STATUS]\n", argv[0]);
        return 2;
    }
    std::signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1);  // service times are part of what is measured
    outrider::bench::raise_open_files(65536);
    auto service = std::make_unique<outrider::bench::Service>(static_cast<std::uint16_t>(port), behaviour);
    service->run();
}
