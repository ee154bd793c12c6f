// outrider-bench-watch: many watchers of one key of a quorum, and how long after a put each of them hears of it.
//
// It speaks etcd v3's API over HTTP/1.1 JSON. One connection for each watcher, in turn to the given ports; one more to the
// first port, for the puts. The value of a put is its number as 8 hex digits, which are base64 as well: what an event
// carries tells which put it is about, and a watcher that misses one, or hears one twice, shows.
#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <sys/prctl.h>
#include <sys/socket.h>

#include "bench/cpu_use.h"
#include "bench/histogram.h"
#include "bench/net.h"

namespace outrider::bench {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kPatience = 30'000 * kMillisecond;  // for a watch to stand, or an event to come
constexpr std::string_view kValue = "\"value\":\"";
constexpr std::string_view kCreated = "\"created\":true";
constexpr std::size_t kDigits = 8;

constexpr const char* kUsage = R"(usage: outrider-bench-watch --port PORT[,PORT…] [options]

Watchers of one key on 127.0.0.1; a put goes to the first port when all have heard of the one before.
Prints one JSON object.

  --watchers N     default 100, in turn at the ports
  --seconds S      of the measured window (default 2)
  --warmup S       default 0.5
  --rate R         at most so many puts a second (default: no limit)
  --pids PID,PID   report the CPU time these processes used within the measured window
)";

struct Options {
    std::vector<std::uint16_t> ports;
    std::vector<pid_t> pids;
    std::size_t watchers = 100;
    double seconds = 2;
    double warmup = 0.5;
    double rate = 0;
};

[[noreturn]] void usage_error(const std::string& reason) {
    std::fprintf(stderr, "outrider-bench-watch: %s (--help shows the options)\n", reason.c_str());
    std::exit(2);
}

template <typename Number>
Number number(std::string_view text) {
    Number out{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (error != std::errc() || end != text.data() + text.size() || out < Number{})
        usage_error("not a number that fits here: " + std::string(text));
    return out;
}

template <typename Number>
std::vector<Number> numbers(std::string_view text) {
    std::vector<Number> out;
    for (std::size_t comma = 0; comma != std::string_view::npos; text.remove_prefix(comma + 1)) {
        comma = text.find(',');
        out.push_back(number<Number>(text.substr(0, comma)));
        if (comma == std::string_view::npos) break;
    }
    return out;
}

Options parse(const std::vector<std::string_view>& arguments) {
    Options options;
    for (std::size_t i = 0; i < arguments.size(); i += 2) {
        const std::string_view name = arguments[i];
        if (name == "--help") {
            std::fputs(kUsage, stdout);
            std::exit(0);
        }
        if (i + 1 == arguments.size()) usage_error(std::string(name) + " wants a value");
        const std::string_view value = arguments[i + 1];
        if (name == "--port") {
            options.ports = numbers<std::uint16_t>(value);
        } else if (name == "--pids") {
            options.pids = numbers<pid_t>(value);
        } else if (name == "--watchers") {
            options.watchers = number<std::size_t>(value);
        } else if (name == "--seconds") {
            options.seconds = number<double>(value);
        } else if (name == "--warmup") {
            options.warmup = number<double>(value);
        } else if (name == "--rate") {
            options.rate = number<double>(value);
        } else {
            usage_error("unknown option " + std::string(name));
        }
    }
    if (options.ports.empty()) usage_error("--port is missing");
    if (options.watchers == 0) usage_error("--watchers must be at least 1");
    return options;
}

std::string post(std::string_view path, const std::string& body) {
    return "POST " + std::string(path) +
           " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: " +
           std::to_string(body.size()) + "\r\n\r\n" + body;
}

// One stream, or the connection of the puts. What it reads is searched, not parsed: a line of the stream is written in one
// chunk, so that the framing never stands within what is looked for.
struct Connection {
    Socket socket;
    std::string tail;  // what may be the beginning of something
    bool created = false;
    std::uint64_t next = 0;  // the number it is to hear of next
};

class Watch {
  public:
    explicit Watch(const Options& options) : options_(options), watchers_(options.watchers) {}

    int run() {
        open_all();
        writer_.socket = connect_to_loopback(options_.ports.front());
        if (!writer_.socket.open())
            die("cannot connect to 127.0.0.1:" + std::to_string(options_.ports.front()));
        epoll_.add(writer_.socket.fd(), &writer_);
        const std::uint64_t start = now_ns();
        const std::uint64_t from = start + static_cast<std::uint64_t>(options_.warmup * 1e9);
        const std::uint64_t end = from + static_cast<std::uint64_t>(options_.seconds * 1e9);
        CpuUse used;
        std::uint64_t begun = 0;
        for (std::uint64_t now = start; now < end; now = now_ns()) {
            if (!measuring_ && now >= from) {
                measuring_ = true;
                used = cpu_use_of(options_.pids);
                begun = now;
            }
            put();
            await([this] { return heard_ == watchers_.size() && answered_ == puts_; }, "an event");
            if (measuring_) measured_puts_ += 1;
            rest(start);
        }
        const std::uint64_t over = now_ns();
        print(static_cast<double>(over - begun) / 1e9, cpu_use_of(options_.pids) - used);
        return 0;
    }

  private:
    void open_all() {
        const std::string request = post("/v3/watch", R"({"create_request":{"key":"d2F0Y2hlZA=="}})");
        std::size_t at = 0;
        for (Connection& watcher : watchers_) {
            const std::uint16_t port = options_.ports[at++ % options_.ports.size()];
            watcher.socket = connect_to_loopback(port);
            if (!watcher.socket.open()) die("cannot connect to 127.0.0.1:" + std::to_string(port));
            epoll_.add(watcher.socket.fd(), &watcher);
            send_all(watcher, request);
        }
        await([this] { return created_ == watchers_.size(); }, "a watch to stand");
    }

    static void send_all(Connection& connection, std::string_view bytes) {
        // Far below what a socket's buffer takes.
        if (::send(connection.socket.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL) !=
            static_cast<ssize_t>(bytes.size()))
            die("send");
    }

    void put() {
        char digits[kDigits + 1];
        std::snprintf(digits, sizeof digits, "%08llx", static_cast<unsigned long long>(puts_));
        heard_ = 0;
        ++puts_;
        const std::string request =
            post("/v3/kv/put", R"({"key":"d2F0Y2hlZA==","value":")" + std::string(digits) + "\"}");
        put_ns_ = now_ns();
        send_all(writer_, request);
    }

    template <typename Condition>
    void await(Condition condition, const char* what) {
        const std::uint64_t until = now_ns() + kPatience;
        while (!condition()) {
            const std::uint64_t now = now_ns();
            if (now >= until) {
                errno = ETIMEDOUT;
                die(std::string("waiting for ") + what);
            }
            turn(until - now);
        }
    }

    // Until the next put is due, if there is a rate.
    void rest(std::uint64_t start) {
        if (options_.rate <= 0) return;
        const auto due = start + static_cast<std::uint64_t>(static_cast<double>(puts_) * 1e9 / options_.rate);
        for (std::uint64_t now = now_ns(); now < due; now = now_ns())
            turn(due - now);
    }

    void turn(std::uint64_t timeout_ns) {
        for (const epoll_event& event : epoll_.wait(timeout_ns)) {
            if ((event.events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
                read(*static_cast<Connection*>(event.data.ptr));
        }
    }

    void read(Connection& connection) {
        static std::array<char, std::size_t{64} * 1024> room;
        while (true) {
            const ssize_t count = recv(connection.socket.fd(), room.data(), room.size(), 0);
            if (count < 0 && errno == EAGAIN) return;
            if (count <= 0)
                die(&connection == &writer_ ? "the server closed the writer's connection"
                                            : "the server closed a watch");
            connection.tail.append(room.data(), static_cast<std::size_t>(count));
            if (&connection == &writer_) {
                take_answers();
            } else {
                take_events(connection, now_ns());
            }
            if (static_cast<std::size_t>(count) < room.size()) return;
        }
    }

    // A successful put's answer has one "revision"; anything else ends the program.
    void take_answers() {
        constexpr std::string_view kRevision = "\"revision\"";
        if (writer_.tail.starts_with("HTTP/1.1 ") && writer_.tail.size() > 12 &&
            writer_.tail.compare(9, 3, "200") != 0) {
            errno = EPROTO;
            die("a put was refused: " + writer_.tail.substr(0, 500));
        }
        if (writer_.tail.find(kRevision) == std::string::npos || !writer_.tail.ends_with('}')) return;
        writer_.tail.clear();
        ++answered_;
    }

    void take_events(Connection& watcher, std::uint64_t now) {
        std::string_view text = watcher.tail;
        if (!watcher.created) {
            const std::size_t at = text.find(kCreated);
            if (at == std::string_view::npos) return;
            watcher.created = true;
            ++created_;
            text.remove_prefix(at + kCreated.size());
        }
        std::size_t at = text.find(kValue);
        for (; at != std::string_view::npos; at = text.find(kValue)) {
            if (text.size() - at < kValue.size() + kDigits) break;
            take_event(watcher, text.substr(at + kValue.size(), kDigits), now);
            text.remove_prefix(at + kValue.size() + kDigits);
        }
        if (at == std::string_view::npos) at = text.size() - std::min(text.size(), kValue.size() - 1);
        watcher.tail.erase(0, watcher.tail.size() - text.size() + at);
    }

    void take_event(Connection& watcher, std::string_view digits, std::uint64_t now) {
        std::uint64_t put = 0;
        std::from_chars(digits.data(), digits.data() + digits.size(), put, 16);
        if (put != watcher.next) ++out_of_order_;
        watcher.next = put + 1;
        ++heard_;
        if (!measuring_) return;
        ++events_;
        delays_.record(now - put_ns_);
        if (heard_ == watchers_.size()) last_delays_.record(now - put_ns_);
    }

    static void print_delays(const char* name, const Histogram& delays) {
        std::printf("\"%s\":{\"p50\":%.2f,\"p90\":%.2f,\"p99\":%.2f,\"max\":%.2f},", name,
                    delays.quantile(0.5) / 1e3, delays.quantile(0.9) / 1e3, delays.quantile(0.99) / 1e3,
                    static_cast<double>(delays.max()) / 1e3);
    }

    void print(double seconds, const CpuUse& used) const {
        const double events = static_cast<double>(std::max<std::uint64_t>(events_, 1));
        std::printf("{\"watchers\":%zu,\"puts\":%llu,\"events\":%llu,\"out_of_order\":%llu,\"seconds\":%.4f,",
                    watchers_.size(), static_cast<unsigned long long>(measured_puts_),
                    static_cast<unsigned long long>(events_), static_cast<unsigned long long>(out_of_order_),
                    seconds);
        print_delays("delay_us", delays_);
        print_delays("last_us", last_delays_);
        std::printf("\"events_per_second\":%.1f,\"cpu_us\":%.3f,\"cpu_share\":%.4f}\n",
                    static_cast<double>(events_) / seconds, static_cast<double>(used.run_ns) / 1e3 / events,
                    static_cast<double>(used.run_ns) / 1e9 / seconds);
    }

    const Options& options_;
    Epoll epoll_;
    std::vector<Connection> watchers_;
    Connection writer_;
    Histogram delays_;       // of each event
    Histogram last_delays_;  // of the last watcher to hear of a put
    std::uint64_t created_ = 0;
    std::uint64_t puts_ = 0;
    std::uint64_t answered_ = 0;
    std::uint64_t put_ns_ = 0;
    std::uint64_t heard_ = 0;  // of the last put
    std::uint64_t events_ = 0;
    std::uint64_t measured_puts_ = 0;
    std::uint64_t out_of_order_ = 0;  // lost, repeated or out of order
    bool measuring_ = false;
};

}  // namespace
}  // namespace outrider::bench

int main(int argc, char** argv) {
    using namespace outrider::bench;
    const Options options = parse({argv + 1, argv + argc});
    std::signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1);  // the default of 50 us would be measured as latency
    raise_open_files(options.watchers + 64);
    return Watch(options).run();
}
