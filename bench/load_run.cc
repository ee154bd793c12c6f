#include "bench/load_run.h"

#include <algorithm>
#include <cstdio>
#include <deque>
#include <string_view>
#include <vector>

#include <sys/resource.h>

#include "bench/cpu_use.h"
#include "bench/histogram.h"
#include "bench/load_connection.h"
#include "bench/load_record.h"
#include "bench/net.h"

namespace outrider::bench {
namespace {

constexpr double kSecond = 1e9;
constexpr std::string_view kKeyPlace =
    "0123456789abcdef-0123456789abcdef";                   // in a request: what is to be replaced
constexpr std::string_view kNumberPlace = "########";      // in a JSON body: the same
constexpr std::uint64_t kCountedRunMax = 300'000'000'000;  // under callgrind a proxy is slow

std::uint64_t own_cpu_ns() {
    rusage use{};
    getrusage(RUSAGE_SELF, &use);
    const auto nanoseconds = [](const timeval& t) {
        return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 +
               static_cast<std::uint64_t>(t.tv_usec) * 1000;
    };
    return nanoseconds(use.ru_utime) + nanoseconds(use.ru_stime);
}

void write_hex(char* out, std::uint64_t value, int digits = 16) {
    for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4)
        *out++ = "0123456789abcdef"[(value >> shift) & 15];
}

// A prepared request whose key and numbers, if it has any, can be changed.
class Request {
  public:
    Request(const LoadOptions& options, const std::string& path)
        : text_(make_request(options, path)),
          key_(options.keys == Keys::kNone ? std::string::npos : text_.find(kKeyPlace)) {
        if (options.numbers == 0) return;
        for (std::size_t at = text_.find(kNumberPlace); at != std::string::npos;
             at = text_.find(kNumberPlace, at + kNumberPlace.size()))
            numbers_.push_back(at);
    }

    const std::string& text() const { return text_; }
    // Whether two requests are ever different.
    bool changes() const { return key_ != std::string::npos || !numbers_.empty(); }
    void set_key(std::uint64_t of_process, std::uint64_t number) {
        write_hex(&text_[key_], of_process);
        write_hex(&text_[key_ + kKeyPlace.size() / 2 + 1], number);
    }
    void set_numbers(std::uint64_t number) {
        for (const std::size_t at : numbers_)
            write_hex(&text_[at], number, static_cast<int>(kNumberPlace.size()));
    }

  private:
    std::string text_;
    std::size_t key_;
    std::vector<std::size_t> numbers_;
};

// Counters at one instant; the difference of two describes the measured window.
struct Reading {
    std::uint64_t at_ns = 0;
    std::uint64_t answered = 0;
    std::uint64_t replayed = 0;
    std::uint64_t bytes = 0;
    std::uint64_t own_cpu_ns = 0;
    CpuUse target;
};

void print_latencies(const char* name, const Histogram& h) {
    std::printf(
        "\"%s\":{\"count\":%llu,\"mean\":%.2f,\"p50\":%.2f,\"p90\":%.2f,\"p99\":%.2f,"
        "\"p99.9\":%.2f,\"max\":%.2f}",
        name, static_cast<unsigned long long>(h.count()), h.mean() / 1e3, h.quantile(0.5) / 1e3,
        h.quantile(0.9) / 1e3, h.quantile(0.99) / 1e3, h.quantile(0.999) / 1e3,
        static_cast<double>(h.max()) / 1e3);
}

class LoadRun {
  public:
    explicit LoadRun(const LoadOptions& options)
        : options_(options),
          key_of_process_(options.keys == Keys::kUnique ? now_ns() : 0),
          request_(options, options.path),
          slow_request_(options, options.slow_path),
          connections_(std::max(options.connections, options.connections_max)),
          in_free_list_(connections_.size(), false),
          begun_(options.connections),
          record_(options.record) {}

    int run() {
        for (std::size_t i = 0; i < begun_; ++i)
            open(connections_[i]);
        if (open_connections() == 0) die("cannot connect to 127.0.0.1:" + std::to_string(options_.port));
        start_ns_ = now_ns();
        if (!counted()) {
            measure_from_ns_ = start_ns_ + static_cast<std::uint64_t>(options_.warmup * kSecond);
            end_ns_ = measure_from_ns_ + static_cast<std::uint64_t>(options_.seconds * kSecond);
        }
        begin_when_due();
        for (LoadConnection& connection : connections_)
            ready_to_send(connection);
        while (!over()) {
            if (open_loop()) send_due();
            turn();
            begin_when_due();
        }
        const Reading end = read_counters();
        if (open_loop()) record_unanswered(end.at_ns);
        if (!measuring_) die("lost every connection before the measured window");
        record_.close();
        print(end);
        return 0;
    }

  private:
    bool counted() const { return options_.requests > 0; }
    bool open_loop() const { return options_.rate > 0; }

    std::size_t open_connections() const {
        std::size_t count = 0;
        for (const LoadConnection& connection : connections_)
            count += connection.is_open() ? 1 : 0;
        return count;
    }

    void begin_when_due() {
        if (measuring_ || now_ns() < measure_from_ns_) return;
        measuring_ = true;
        begin_ = read_counters();
    }

    bool over() {
        const std::uint64_t now = now_ns();
        if (nothing_open_) return true;
        if (!counted()) return now >= end_ns_;
        return answered_ + errors_ >= options_.requests || now - start_ns_ > kCountedRunMax;
    }

    bool may_send() const { return counted() ? sent_ < options_.requests : now_ns() < end_ns_; }

    void open(LoadConnection& connection) {
        if (connection.open(options_.port, epoll_)) return;
        ++errors_;
        if (open_connections() == 0) nothing_open_ = true;
    }

    // Called for a fresh connection and after every answer.
    void ready_to_send(LoadConnection& connection) {
        if (!connection.is_open()) return;
        if (open_loop()) {
            const auto index = static_cast<std::size_t>(&connection - connections_.data());
            if (in_free_list_[index]) return;
            in_free_list_[index] = true;
            free_.push_back(index);
            return;
        }
        while (connection.outstanding() < options_.depth && may_send()) {
            const std::uint64_t now = now_ns();
            send(connection, now, now);
        }
    }

    void send(LoadConnection& connection, std::uint64_t scheduled, std::uint64_t now) {
        const bool slow = options_.slow_every > 0 && sent_ % options_.slow_every == 0;
        Request& request = slow ? slow_request_ : request_;
        if (request.changes()) {
            if (options_.keys != Keys::kNone)
                request.set_key(key_of_process_,
                                options_.keys == Keys::kPool ? sent_ % options_.keys_in_pool : sent_);
            if (options_.numbers > 0) request.set_numbers(sent_ % options_.numbers);
            connection.send_copy(request.text(), {scheduled, now, slow});
        } else {
            connection.send(request.text(), {scheduled, now, slow});
        }
        ++sent_;
    }

    std::uint64_t next_scheduled_ns() const {
        return start_ns_ + static_cast<std::uint64_t>(static_cast<double>(sent_) * kSecond / options_.rate);
    }

    // Sends what is due, as far as there are connections with nothing outstanding; the rest stays
    // due.
    void send_due() {
        const std::uint64_t now = now_ns();
        for (std::uint64_t due = next_scheduled_ns(); due <= now && may_send_more();
             due = next_scheduled_ns()) {
            if (free_.empty() && !open_another()) {
                ++sent_;
                record_.add(due, now_ns(), RequestRecord::kLost);
                continue;
            }
            const std::size_t index = free_.front();
            free_.pop_front();
            in_free_list_[index] = false;
            if (connections_[index].is_open()) send(connections_[index], due, now_ns());
        }
    }

    bool may_send_more() const { return !free_.empty() || begun_ < connections_.size(); }

    // Puts a fresh connection on the empty free list. False: refused.
    bool open_another() {
        LoadConnection& connection = connections_[begun_++];
        open(connection);
        ready_to_send(connection);
        return connection.is_open();
    }

    std::uint64_t time_to_wait() const {
        const std::uint64_t now = now_ns();
        std::uint64_t until = measuring_ ? end_ns_ : measure_from_ns_;
        if (counted()) until = now + 100'000'000;
        if (open_loop() && may_send_more()) until = std::min(until, next_scheduled_ns());
        return until > now ? until - now : 0;
    }

    void turn() {
        for (const epoll_event& event : epoll_.wait(time_to_wait())) {
            auto& connection = *static_cast<LoadConnection*>(event.data.ptr);
            const std::uint64_t had = connection.bytes_received();
            completed_.clear();
            const bool alive = connection.on_event(event.events, completed_);
            bytes_ += connection.bytes_received() - had;
            for (const Completed& answer : completed_)
                record(answer);
            if (!alive) reopen(connection);
            if (!alive || !completed_.empty()) ready_to_send(connection);
        }
    }

    void reopen(LoadConnection& connection) {
        errors_ += connection.outstanding();
        for (const Sent& request : connection.waiting())
            record_.add(request.scheduled_ns, now_ns(), RequestRecord::kLost);
        ++reconnects_;
        connection.close();
        open(connection);
    }

    void record(const Completed& answer) {
        ++answered_;
        if (answer.status != 200) ++non_200_;
        if (answer.replayed) ++replayed_;
        const Sent& request = answer.request;
        record_.add(request.scheduled_ns, answer.answered_ns, answer.status);
        if (!measuring_) return;
        const std::uint64_t latency = answer.answered_ns - request.scheduled_ns;
        if (request.slow) {
            slow_.record(latency);
        } else {
            from_schedule_.record(latency);
            from_send_.record(answer.answered_ns - request.sent_ns);
        }
    }

    // Open loop: what was due within the window and has waited longer than most already counts with
    // the time it has waited, so that a stall at the very end is not lost.
    void record_unanswered(std::uint64_t now) {
        const auto usual = static_cast<std::uint64_t>(from_schedule_.quantile(0.5));
        const auto add = [&](std::uint64_t scheduled) {
            ++unanswered_;
            record_.add(scheduled, now, RequestRecord::kUnanswered);
            if (now > scheduled && now - scheduled > usual) from_schedule_.record(now - scheduled);
        };
        for (const LoadConnection& connection : connections_) {
            for (const Sent& request : connection.waiting()) {
                if (!request.slow) add(request.scheduled_ns);
            }
        }
        for (; next_scheduled_ns() < end_ns_; ++sent_)
            add(next_scheduled_ns());
    }

    Reading read_counters() const {
        return {now_ns(), answered_, replayed_, bytes_, own_cpu_ns(), cpu_use_of(options_.pids)};
    }

    void print(const Reading& end) const {
        const double seconds = static_cast<double>(end.at_ns - begin_.at_ns) / kSecond;
        const std::uint64_t answered = end.answered - begin_.answered;
        const double per_request_us = answered == 0 ? 0 : 1e-3 / static_cast<double>(answered);
        const CpuUse target = end.target - begin_.target;
        const double ticks = static_cast<double>(target.user_ticks + target.system_ticks);
        std::printf(
            "{\"requests\":%llu,\"seconds\":%.4f,\"rps\":%.1f,\"errors\":%llu,\"non_200\":%llu,"
            "\"reconnects\":%llu,\"unanswered\":%llu,\"replayed\":%llu,\"bytes_per_second\":%.0f,",
            static_cast<unsigned long long>(answered), seconds, static_cast<double>(answered) / seconds,
            static_cast<unsigned long long>(errors_), static_cast<unsigned long long>(non_200_),
            static_cast<unsigned long long>(reconnects_), static_cast<unsigned long long>(unanswered_),
            static_cast<unsigned long long>(end.replayed - begin_.replayed),
            static_cast<double>(end.bytes - begin_.bytes) / seconds);
        std::printf("\"cpu_us\":%.3f,\"cpu_share\":%.4f,\"system_share\":%.3f,\"load_cpu_us\":%.3f,",
                    static_cast<double>(target.run_ns) * per_request_us,
                    static_cast<double>(target.run_ns) / kSecond / seconds,
                    ticks > 0 ? static_cast<double>(target.system_ticks) / ticks : 0.0,
                    static_cast<double>(end.own_cpu_ns - begin_.own_cpu_ns) * per_request_us);
        print_latencies("latency_us", from_schedule_);
        std::printf(",");
        print_latencies("latency_from_send_us", from_send_);
        std::printf(",");
        print_latencies("slow_us", slow_);
        std::printf("}\n");
    }

    const LoadOptions& options_;
    const std::uint64_t key_of_process_;
    Request request_;
    Request slow_request_;
    Epoll epoll_;
    std::vector<LoadConnection> connections_;
    std::deque<std::size_t> free_;  // open loop: connections with nothing outstanding, longest first
    std::vector<bool> in_free_list_;
    std::size_t begun_;  // connections_ from here on were never opened
    RequestRecord record_;
    std::vector<Completed> completed_;

    std::uint64_t start_ns_ = 0;
    std::uint64_t measure_from_ns_ = 0;
    std::uint64_t end_ns_ = 0;
    bool measuring_ = false;
    bool nothing_open_ = false;
    Reading begin_;

    std::uint64_t sent_ = 0;
    std::uint64_t answered_ = 0;
    std::uint64_t errors_ = 0;
    std::uint64_t non_200_ = 0;
    std::uint64_t replayed_ = 0;
    std::uint64_t reconnects_ = 0;
    std::uint64_t unanswered_ = 0;
    std::uint64_t bytes_ = 0;
    Histogram from_schedule_;
    Histogram from_send_;
    Histogram slow_;
};

}  // namespace

std::string make_request(const LoadOptions& options, const std::string& path) {
    constexpr std::uint64_t kChunk = std::uint64_t{16} * 1024;
    std::string request = (options.body > 0 || !options.json.empty() ? "POST " : "GET ") + path +
                          " HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(options.port) +
                          "\r\nUser-Agent: bench/1\r\nAccept: */*\r\n";
    for (unsigned i = 0; i < options.extra_fields; ++i) {
        const std::string number = std::to_string(i + 100).substr(1);
        request += "X-Trace-" + number + ": 0123456789abcdef0123\r\n";
    }
    if (options.keys != Keys::kNone) request += "Idempotency-Key: \"" + std::string(kKeyPlace) + "\"\r\n";
    if (!options.json.empty()) {
        return request +
               "Content-Type: application/json\r\nContent-Length: " + std::to_string(options.json.size()) +
               "\r\n\r\n" + options.json;
    }
    if (options.body == 0) return request + "\r\n";
    request += "Content-Type: text/plain\r\n";
    if (!options.chunked) {
        return request + "Content-Length: " + std::to_string(options.body) + "\r\n\r\n" +
               std::string(options.body, 'x');
    }
    request += "Transfer-Encoding: chunked\r\n\r\n";
    for (std::uint64_t left = options.body; left > 0; left -= std::min(left, kChunk)) {
        const std::uint64_t size = std::min(left, kChunk);
        char line[32];
        std::snprintf(line, sizeof line, "%llx\r\n", static_cast<unsigned long long>(size));
        request += line + std::string(size, 'x') + "\r\n";
    }
    return request + "0\r\n\r\n";
}

int run_load(const LoadOptions& options) {
    return LoadRun(options).run();
}

}  // namespace outrider::bench
