// Prints what the store of kind log does on a disk, beside what the disk does: local_figures DIRECTORY [all]
//
// The directory must not exist; it is made and removed. `all`: also ten million keys (about 5.5 GB of memory).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "base/log.h"
#include "base/wal/posix_files.h"
#include "idempotency/local_store.h"

namespace {
using namespace outrider;
using namespace outrider::idempotency;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

double micros_since(Clock::time_point begin) {
    return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

[[noreturn]] void stop(const std::string& error) {
    fmt::print(stderr, "{}\n", error);
    std::exit(1);
}

std::string quantiles(std::vector<double> micros) {
    std::sort(micros.begin(), micros.end());
    return fmt::format("p50 {:6.0f}  p99 {:6.0f} us", micros[micros.size() / 2],
                       micros[micros.size() * 99 / 100]);
}

policy::Digest digest(std::uint64_t number) {
    policy::Digest digest;
    for (std::size_t i = 0; i < 8; ++i)
        digest.bytes[i] = static_cast<std::uint8_t>(number >> (8 * i));
    return digest;
}

config::StoreSettings settings_of(const std::string& directory, config::StoreKind kind) {
    config::StoreSettings settings;
    settings.name = "figures";
    settings.kind = kind;
    settings.path = directory;
    settings.max_memory = {std::uint64_t{8} << 30};
    return settings;
}

void print_disk(const std::string& directory) {
    std::filesystem::create_directory(directory);
    auto opened = wal::posix_files().open(directory + "/probe", wal::FileSystem::OpenMode::kCreate);
    if (opened.error) stop(opened.error.text());
    const std::string bytes(512, 'x');
    const std::vector<std::string_view> pieces{bytes};
    std::vector<double> micros;
    const std::vector<std::string> zeros(1, std::string(2 << 20, '\0'));
    const std::vector<std::string_view> ahead{zeros[0]};
    if (opened.file->write_at(0, ahead).error || opened.file->sync_data())
        stop("the probe cannot be written");
    for (std::uint64_t i = 0; i < 2000; ++i) {
        const auto begin = Clock::now();
        if (opened.file->write_at(512 * i, pieces).error || opened.file->sync_data()) stop("write");
        micros.push_back(micros_since(begin));
    }
    fmt::print("disk    512 B overwritten and fdatasync          {}\n", quantiles(std::move(micros)));
    std::filesystem::remove_all(directory);
}

// A worker that keeps `parallel` keyed exchanges going: claim, answer of 200 bytes at once, next key.
class Worker {
  public:
    Worker(LocalStore& store, std::uint64_t first_key, int parallel, int exchanges)
        : store_(store), next_key_(first_key), left_(exchanges) {
        for (int i = 0; i < parallel; ++i)
            exchanges_.push_back(std::make_unique<Exchange>(*this));
    }

    void run() {
        client_ = store_.connect(loop_, {});
        loop_.post([this] {
            for (auto& exchange : exchanges_)
                exchange->begin();
        });
        loop_.run();
        client_->close();
    }
    std::vector<double> claims, both;

  private:
    class Exchange final : public Call {
      public:
        explicit Exchange(Worker& worker) : worker_(worker) {}
        void begin() {
            key_ = digest(worker_.next_key_++);
            begin_ = Clock::now();
            worker_.client_->arrive(*this, key_, key_, {}, worker_.loop_.now());
        }
        void on_verdict(const policy::Verdict& verdict) override {
            claimed_ = micros_since(begin_);
            const auto* forward = std::get_if<policy::Forward>(&verdict);
            if (forward == nullptr) stop("a new key is not forwarded");
            worker_.client_->settle(
                *this, key_, forward->owner,
                Answered{{200, std::make_shared<const policy::StoredResponse>(
                                   policy::StoredResponse{std::string(80, 'h'), std::string(120, 'b')})}});
        }
        void on_settled(policy::Settled, bool durable) override {
            if (!durable) stop("an answer is not durable");
            worker_.claims.push_back(claimed_);
            worker_.both.push_back(micros_since(begin_));
            if (worker_.left_-- > 0) return begin();
            if (++worker_.finished_ == worker_.exchanges_.size()) worker_.loop_.stop();
        }

      private:
        Worker& worker_;
        policy::Digest key_;
        Clock::time_point begin_;
        double claimed_ = 0;
    };

    LocalStore& store_;
    std::uint64_t next_key_;
    int left_;
    std::size_t finished_ = 0;
    uv::Loop loop_;
    std::unique_ptr<StoreClient> client_;
    std::vector<std::unique_ptr<Exchange>> exchanges_;
};

void print_exchanges(const std::string& directory, config::StoreKind kind, int workers, int parallel) {
    uv::Loop main;
    Histogram syncs;
    auto store = LocalStore::open(settings_of(directory, kind), main, {.cells = {nullptr, &syncs, nullptr}});
    if (!store) stop(store.error());
    std::vector<std::unique_ptr<Worker>> list;
    std::vector<std::thread> threads;
    const int exchanges = std::min(100'000, 2000 * parallel);
    for (int i = 0; i < workers; ++i)
        list.push_back(std::make_unique<Worker>(
            **store, std::uint64_t{1'000'000'000} * static_cast<unsigned>(i), parallel, exchanges));
    const auto begin = Clock::now();
    for (auto& worker : list)
        threads.emplace_back([&worker] { worker->run(); });
    for (auto& thread : threads)
        thread.join();
    const double seconds = micros_since(begin) / 1e6;
    std::vector<double> claims, both;
    for (auto& worker : list) {
        claims.insert(claims.end(), worker->claims.begin(), worker->claims.end());
        both.insert(both.end(), worker->both.begin(), worker->both.end());
    }
    const auto count = static_cast<double>(both.size());
    std::uint64_t sync_count = 0;
    for (std::size_t i = 0; i <= Histogram::kBounds.size(); ++i)
        sync_count += syncs.bucket(i);
    fmt::print(
        "{:6}  {} x {:3} at a time: {:7.0f} exchanges/s, {:6.0f} syncs/s  claim {}  claim and answer {}\n",
        kind == config::StoreKind::kLog ? "log" : "memory", workers, parallel, count / seconds,
        static_cast<double>(sync_count) / seconds, quantiles(std::move(claims)), quantiles(std::move(both)));
    store = Error{""};
    std::filesystem::remove_all(directory);
}

// `keys` keys with a claim and an answer each, then a restart, then all of them expire.
void print_many(const std::string& directory, std::uint64_t keys) {
    const config::StoreSettings settings = settings_of(directory, config::StoreKind::kLog);
    Instant now{1000s};
    const auto open = [&] {
        auto engine = LocalEngine::open(
            settings, {.files = &wal::posix_files(),
                       .clock = [&now] { return now; },
                       .wall = {now.time_since_epoch().count() / 1000 + 1'700'000'000'000'000},
                       .secret = 7,
                       .pause = [](Duration) {}});
        if (!engine) stop(engine.error());
        return std::move(*engine);
    };
    const auto all = [](LocalEngine& engine, std::vector<Question>& questions, std::vector<Reply>& replies) {
        for (std::size_t taken = 0; taken < questions.size();) {
            taken += engine.round(std::span(questions).subspan(taken), replies);
            engine.tidy();
        }
        questions.clear();
    };
    const auto response = std::make_shared<const policy::StoredResponse>(
        policy::StoredResponse{std::string(80, 'h'), std::string(120, 'b')});
    auto engine = open();
    auto begin = Clock::now();
    std::vector<Question> questions;
    std::vector<Reply> replies;
    constexpr std::uint64_t kBatch = 4096;
    for (std::uint64_t key = 0; key < keys; key += kBatch) {
        const std::uint64_t end = std::min(keys, key + kBatch);
        for (std::uint64_t k = key; k < end; ++k)
            questions.push_back({{1, static_cast<std::uint32_t>(k - key)},
                                 Ask{digest(k), digest(k), {.window = 1h, .lease = 30s}, {k + 1}, now}});
        all(*engine, questions, replies);
        for (const Reply& reply : replies) {
            const auto* forward = std::get_if<policy::Forward>(&std::get<policy::Verdict>(reply.what));
            if (forward == nullptr) stop("a new key is not forwarded");
            questions.push_back({reply.ticket, Tell{digest(key + reply.ticket.slot), forward->owner,
                                                    Answered{{200, response}}}});
        }
        replies.clear();
        all(*engine, questions, replies);
        replies.clear();
    }
    const StoreStatus full = engine->status();
    fmt::print(
        "log     {} keys claimed and answered in {:.1f} s: {:.0f} MB in {} segments, {:.0f} MB of memory\n",
        keys, micros_since(begin) / 1e6, static_cast<double>(full.disk_bytes) / 1e6, full.segments,
        static_cast<double>(full.memory_bytes) / 1e6);
    for (int i = 0; i < 3; ++i) {
        engine.reset();
        begin = Clock::now();
        engine = open();
        fmt::print("log     opened again in {:.0f} ms ({} keys, {} records; files cached)\n",
                   micros_since(begin) / 1e3, engine->status().done, engine->log()->recovery().records);
    }
    now += 2h;
    begin = Clock::now();
    double longest = 0, longest_tidy = 0;
    std::uint64_t rounds = 0;
    while (engine->next_due() && *engine->next_due() <= now) {
        const auto at = Clock::now();
        engine->round({}, replies);
        longest = std::max(longest, micros_since(at));
        const auto tidied = Clock::now();
        engine->tidy();
        longest_tidy = std::max(longest_tidy, micros_since(tidied));
        ++rounds;
    }
    const StoreStatus after = engine->status();
    fmt::print(
        "log     all expired in {:.0f} ms and {} rounds, the longest {:.1f} ms (and {:.1f} to delete "
        "segments): {} keys, {:.1f} MB in {} "
        "segments\n",
        micros_since(begin) / 1e3, rounds, longest / 1e3, longest_tidy / 1e3, after.done,
        static_cast<double>(after.disk_bytes) / 1e6, after.segments);
    engine.reset();
    std::filesystem::remove_all(directory);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2 || std::filesystem::exists(argv[1])) {
        std::fputs("usage: local_figures DIRECTORY [all]   (which does not exist yet)\n", stderr);
        return 2;
    }
    if (auto set = set_log_level("warning"); !set) stop(set.error());
    const std::string directory = argv[1];
    print_disk(directory);
    for (const int parallel : {1, 16, 64})
        print_exchanges(directory, config::StoreKind::kLog, 1, parallel);
    print_exchanges(directory, config::StoreKind::kLog, 2, 64);
    print_exchanges(directory, config::StoreKind::kMemory, 1, 1);
    print_exchanges(directory, config::StoreKind::kMemory, 1, 64);
    print_many(directory, 1'000'000);
    if (argc > 2) print_many(directory, 10'000'000);
    return 0;
}
