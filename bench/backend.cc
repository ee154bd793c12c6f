// outrider-bench-backend: the application that every proxy of the bench stands in front of.
//
//   outrider-bench-backend PORT            listens on 127.0.0.1
//
//   GET /SIZE            200 with SIZE bytes ('x'), up to 1 TiB; HEAD as well
//   GET /SIZE/DELAY      the same, DELAY milliseconds after the request was complete
//   POST, PUT, … /SIZE   the same, once the request's body (Content-Length or chunked) was
//   swallowed anything else        404
//
// One thread. Keep-alive and pipelining, answers in order. It must never be what limits a proxy:
// heads and bodies up to 1 MiB are built once for each size and sent from there.
#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "bench/framing.h"
#include "bench/net.h"

namespace outrider::bench {
namespace {

constexpr std::size_t kScratchBytes = std::size_t{64} * 1024;
constexpr std::size_t kHeadBytesMax = std::size_t{64} * 1024;
constexpr std::size_t kAnswersMax = 1024;       // queued on one connection before it is read no further
constexpr std::size_t kResponseSizesMax = 256;  // different sizes kept; more than that: 404
constexpr std::uint64_t kBlockBytes = std::uint64_t{1024} * 1024;
constexpr std::uint64_t kBodyBytesMax = 1ULL << 40;
constexpr std::size_t kSlicesMax = 64;

struct Response {
    std::string start;      // head and up to kBlockBytes of body
    std::size_t head = 0;   // length of the head alone
    std::uint64_t end = 0;  // length of head and body; what `start` lacks comes out of the block
};

struct Answer {
    const Response* response;
    std::uint64_t sent;
    std::uint64_t end;  // response->head for HEAD
};

struct Target {
    std::uint64_t size = 0;
    std::uint64_t delay_ns = 0;
};

struct Connection {
    Socket socket;
    std::string pending;  // read and not parsed: part of a head, or what follows a delayed request
    std::deque<Answer> answers;
    Body body;  // of the request being read
    bool in_body = false;
    Answer answer{};  // to that request
    std::uint64_t delay_ns = 0;
    bool delayed = false;  // `answer` waits for due_ns; later requests wait behind it
    std::uint64_t due_ns = 0;
    bool readable = false;
    bool input_ended = false;
    bool last = false;  // takes no further request; closed once everything is answered
};

std::string make_head(std::string_view status, std::uint64_t length) {
    return "HTTP/1.1 " + std::string(status) +
           "\r\nServer: bench\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: "
           "text/plain\r\n"
           "Content-Length: " +
           std::to_string(length) + "\r\n\r\n";
}

Response make_response(std::string_view status, std::uint64_t length) {
    Response response;
    response.start = make_head(status, length);
    response.head = response.start.size();
    response.end = response.head + length;
    response.start.append(static_cast<std::size_t>(std::min(length, kBlockBytes)), 'x');
    return response;
}

// "/1024", "/1024/20"; a query is ignored.
std::optional<Target> parse_target(std::string_view target) {
    target = target.substr(0, target.find('?'));
    if (!target.starts_with('/')) return std::nullopt;
    Target result;
    const char* end = target.data() + target.size();
    auto [at, error] = std::from_chars(target.data() + 1, end, result.size);
    if (error != std::errc() || result.size > kBodyBytesMax) return std::nullopt;
    if (at == end) return result;
    std::uint64_t delay_ms = 0;
    if (*at != '/') return std::nullopt;
    auto [delay_at, delay_error] = std::from_chars(at + 1, end, delay_ms);
    if (delay_error != std::errc() || delay_at != end || delay_ms > 3'600'000) return std::nullopt;
    result.delay_ns = delay_ms * 1'000'000;
    return result;
}

class Backend {
  public:
    explicit Backend(std::uint16_t port)
        : listener_(listen_on_loopback(port)), not_found_(make_response("404 Not Found", 0)) {
        epoll_.add(listener_.fd(), nullptr);
    }

    [[noreturn]] void run() {
        while (true) {
            for (const epoll_event& event : epoll_.wait(until_next_delayed())) {
                if (event.data.ptr == nullptr) {
                    accept_all();
                } else {
                    on_event(static_cast<Connection*>(event.data.ptr), event.events);
                }
            }
            release_delayed();
        }
    }

  private:
    void accept_all() {
        while (true) {
            auto connection = std::make_unique<Connection>();
            connection->socket = accept_from(listener_);
            if (!connection->socket.open()) return;
            Connection* key = connection.get();
            epoll_.add(key->socket.fd(), key);
            connections_.emplace(key, std::move(connection));
        }
    }

    void on_event(Connection* c, std::uint32_t events) {
        if ((events & (EPOLLERR | EPOLLHUP)) != 0) return close(c);
        if ((events & EPOLLRDHUP) != 0) c->input_ended = true;
        if ((events & (EPOLLIN | EPOLLRDHUP)) != 0) c->readable = true;
        if (!pump(*c)) close(c);
    }

    void close(Connection* c) {
        if (c->delayed) delayed_.erase({c->due_ns, c});
        connections_.erase(c);
    }

    // Parses what is there, answers, and reads on while the socket has more. False: to be closed.
    bool pump(Connection& c) {
        std::string_view fresh;  // in scratch_: read, not kept yet
        while (true) {
            if (c.pending.empty()) {
                const std::size_t used = take_requests(c, fresh);
                c.pending.assign(fresh.substr(used));
            } else {
                c.pending.append(fresh);
                c.pending.erase(0, take_requests(c, c.pending));
            }
            if (!flush(c)) return false;
            const bool waiting = c.delayed || !c.answers.empty();
            if (c.last && !c.in_body) return waiting;
            if (c.delayed || !c.readable || c.answers.size() >= kAnswersMax) return true;
            const auto read = receive(c);
            if (!read) return false;
            fresh = *read;
        }
    }

    // What the socket has, up to a scratch buffer; nothing when the connection is broken.
    std::optional<std::string_view> receive(Connection& c) {
        const ssize_t count = recv(c.socket.fd(), scratch_.data(), scratch_.size(), 0);
        if (count > 0) {
            const auto bytes = static_cast<std::size_t>(count);
            // A short read has emptied the socket, unless the end of input waits behind it
            // (epoll(7)).
            if (bytes < scratch_.size() && !c.input_ended) c.readable = false;
            return std::string_view(scratch_.data(), bytes);
        }
        c.readable = false;
        if (count < 0) return errno == EAGAIN ? std::optional<std::string_view>("") : std::nullopt;
        c.last = true;  // the end of input; answers that are due still go out
        c.in_body = false;
        return "";
    }

    // Answers every whole request at the front of `input`, stops behind one that has to wait.
    std::size_t take_requests(Connection& c, std::string_view input) {
        std::size_t used = 0;
        while (used < input.size() && !c.delayed) {
            const std::string_view rest = input.substr(used);
            if (c.in_body) {
                used += c.body.take(rest);
                if (c.body.failed()) give_up(c);
                if (!c.body.done()) break;
                request_complete(c);
                continue;
            }
            if (c.last) break;
            const std::size_t length = head_length(rest);
            if (length == 0) {
                if (rest.size() > kHeadBytesMax) give_up(c);
                break;
            }
            used += length;
            take_head(c, rest.substr(0, length));
        }
        return used;
    }

    void take_head(Connection& c, std::string_view head) {
        const std::size_t method_end = head.find(' ');
        const std::size_t target_end = head.find(' ', method_end + 1);
        if (target_end == std::string_view::npos) return give_up(c);
        const auto target = parse_target(head.substr(method_end + 1, target_end - method_end - 1));
        const Response& response = target ? response_of(target->size) : not_found_;
        const bool head_only = head.substr(0, method_end) == "HEAD";
        c.answer = {&response, 0, head_only ? response.head : response.end};
        c.delay_ns = target ? target->delay_ns : 0;

        const Fields fields = read_fields(head);
        c.last = fields.close;
        if (fields.chunked) {
            c.body.start_chunked();
        } else {
            c.body.start_length(fields.length);
        }
        c.in_body = !c.body.done();
        if (!c.in_body) request_complete(c);
    }

    void request_complete(Connection& c) {
        c.in_body = false;
        if (c.delay_ns == 0) {
            c.answers.push_back(c.answer);
            return;
        }
        c.delayed = true;
        c.due_ns = now_ns() + c.delay_ns;
        delayed_.insert({c.due_ns, &c});
    }

    static void give_up(Connection& c) {
        c.last = true;
        c.in_body = false;
    }

    const Response& response_of(std::uint64_t size) {
        const auto known = responses_.find(size);
        if (known != responses_.end()) return known->second;
        if (responses_.size() >= kResponseSizesMax) return not_found_;
        return responses_.emplace(size, make_response("200 OK", size)).first->second;
    }

    // Sends until everything is out or the socket is full. False: the peer is gone.
    bool flush(Connection& c) {
        while (!c.answers.empty()) {
            std::array<iovec, kSlicesMax> slices;
            const auto [count, offered] = gather(c, slices);
            msghdr message{};
            message.msg_iov = slices.data();
            message.msg_iovlen = count;
            const ssize_t sent = sendmsg(c.socket.fd(), &message, MSG_NOSIGNAL);
            if (sent < 0) return errno == EAGAIN;
            auto left = static_cast<std::uint64_t>(sent);
            while (left > 0) {
                Answer& front = c.answers.front();
                const std::uint64_t taken = std::min(left, front.end - front.sent);
                front.sent += taken;
                left -= taken;
                if (front.sent == front.end) c.answers.pop_front();
            }
            if (static_cast<std::uint64_t>(sent) < offered) return true;  // writability will be reported
        }
        return true;
    }

    // The next bytes to send as slices: how many slices, how many bytes.
    std::pair<std::size_t, std::uint64_t> gather(const Connection& c, std::array<iovec, kSlicesMax>& slices) {
        std::size_t count = 0;
        std::uint64_t offered = 0;
        for (const Answer& answer : c.answers) {
            std::uint64_t at = answer.sent;
            while (at < answer.end && count < slices.size()) {
                const std::string& start = answer.response->start;
                const bool in_start = at < start.size();
                const std::uint64_t available = in_start ? start.size() - at : block_.size();
                const std::uint64_t length = std::min(available, answer.end - at);
                const char* from = in_start ? start.data() + at : block_.data();
                slices[count++] = {const_cast<char*>(from), static_cast<std::size_t>(length)};
                at += length;
                offered += length;
            }
            if (count == slices.size()) break;
        }
        return {count, offered};
    }

    std::optional<std::uint64_t> until_next_delayed() const {
        if (delayed_.empty()) return std::nullopt;
        const std::uint64_t now = now_ns();
        const std::uint64_t due = delayed_.begin()->first;
        return due > now ? due - now : 0;
    }

    void release_delayed() {
        if (delayed_.empty()) return;
        const std::uint64_t now = now_ns();
        while (!delayed_.empty() && delayed_.begin()->first <= now) {
            Connection* c = delayed_.begin()->second;
            delayed_.erase(delayed_.begin());
            c->delayed = false;
            c->answers.push_back(c->answer);
            if (!pump(*c)) close(c);
        }
    }

    Socket listener_;
    Epoll epoll_;
    std::unordered_map<Connection*, std::unique_ptr<Connection>> connections_;
    std::set<std::pair<std::uint64_t, Connection*>> delayed_;  // by due time
    std::unordered_map<std::uint64_t, Response> responses_;    // by size; never shrinks
    Response not_found_;
    std::string block_ = std::string(kBlockBytes, 'x');
    std::array<char, kScratchBytes> scratch_{};
};

}  // namespace
}  // namespace outrider::bench

int main(int argc, char** argv) {
    unsigned long port = 0;
    if (argc == 2) port = std::strtoul(argv[1], nullptr, 10);
    if (port == 0 || port > 65535) {
        std::fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    std::signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1);  // delays are part of what is measured
    outrider::bench::raise_open_files(65536);
    auto backend = std::make_unique<outrider::bench::Backend>(static_cast<std::uint16_t>(port));
    backend->run();
}
