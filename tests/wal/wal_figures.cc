// Prints what the log does on a disk, beside what the disk does by itself: wal_figures DIRECTORY
//
// The directory must not exist; it is made and removed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <semaphore>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/wal/posix_files.h"
#include "base/wal/wal_thread.h"

namespace {
using namespace outrider;
using namespace outrider::wal;
using Clock = std::chrono::steady_clock;

constexpr int kSyncs = 1000;

double micros_since(Clock::time_point begin) {
    return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

void stop(const std::string& error) {
    fmt::print(stderr, "{}\n", error);
    std::exit(1);
}

std::string quantiles(std::vector<double> micros) {
    std::sort(micros.begin(), micros.end());
    double sum = 0;
    for (const double m : micros)
        sum += m;
    return fmt::format("mean {:5.0f}  p50 {:5.0f}  p99 {:5.0f} us", sum / static_cast<double>(micros.size()),
                       micros[micros.size() / 2], micros[micros.size() * 99 / 100]);
}

std::unique_ptr<Wal> open(const std::string& directory, const WalOptions& options, const OnEntry& on_entry) {
    auto log = Wal::open(posix_files(), directory, options, on_entry);
    if (!log) stop(log.error());
    return std::move(*log);
}

std::unique_ptr<Wal> create(const std::string& directory, const WalOptions& options) {
    std::filesystem::remove_all(directory);
    return open(directory, options, [](const Entry&) {});
}

void print_disk(const std::string& directory, bool written_before) {
    std::filesystem::create_directory(directory);
    auto opened = posix_files().open(directory + "/probe", FileSystem::OpenMode::kCreate);
    if (opened.error) stop(opened.error.text());
    const std::string bytes(4096, 'x');
    const std::vector<std::string_view> pieces{bytes};
    std::vector<double> micros;
    for (int round = written_before ? 0 : 1; round < 2; ++round) {
        for (int i = 0; i < kSyncs; ++i) {
            if (opened.file->write_at(std::uint64_t{4096} * static_cast<unsigned>(i), pieces).error)
                stop("write");
            if (round == 0 && i + 1 < kSyncs) continue;
            const auto begin = Clock::now();
            if (const IoError failure = opened.file->sync_data()) stop(failure.text());
            if (round == 1) micros.push_back(micros_since(begin));
        }
    }
    fmt::print("disk    4 KiB and fdatasync, {}   {}\n", written_before ? "overwriting" : "appending  ",
               quantiles(std::move(micros)));
    std::filesystem::remove_all(directory);
}

void print_lone_writer(const std::string& directory, std::size_t size, std::uint64_t ahead) {
    auto log = create(directory, {.preallocate_bytes = ahead});
    const std::string payload(size, 'x');
    const Record record{1, payload};
    std::vector<double> micros;
    for (int i = 0; i < kSyncs; ++i) {
        const auto begin = Clock::now();
        if (!log->append({&record, 1}) || !log->sync()) stop("append");
        micros.push_back(micros_since(begin));
    }
    fmt::print("log     {:4} B and sync, {:4} KiB ahead   {}\n", size, ahead / 1024,
               quantiles(std::move(micros)));
}

// `clients` records of 100 bytes are under way at any time.
void print_group_commit(const std::string& directory, int clients) {
    const int records = std::min(200'000, clients * 2000);
    std::vector<double> micros(static_cast<std::size_t>(records));
    double seconds = 0;
    const std::string payload(100, 'x');
    {
        WalThread thread(create(directory, {}), {});
        std::counting_semaphore<> free(clients);
        const auto begin = Clock::now();
        for (int i = 0; i < records; ++i) {
            free.acquire();
            Batch batch;
            batch.add(1, payload);
            const auto at = Clock::now();
            if (!thread.append(std::move(batch), [&, i, at](const Result<Index>& first) {
                    if (!first) stop(first.error());
                    micros[static_cast<std::size_t>(i)] = micros_since(at);
                    free.release();
                }))
                stop("the queue is full");
        }
        for (int i = 0; i < clients; ++i)
            free.acquire();
        seconds = micros_since(begin) / 1e6;
    }
    fmt::print("log     {:4} at a time: {:7.0f} records/s  {}\n", clients,
               static_cast<double>(micros.size()) / seconds, quantiles(micros));
}

void print_recovery(const std::string& directory) {
    constexpr int kRecords = 1'000'000;
    const std::string payload(100, 'x');
    {
        auto log = create(directory, {});
        const std::vector<Record> batch(100, Record{1, payload});
        const auto begin = Clock::now();
        for (int i = 0; i < kRecords / 100; ++i) {
            if (!log->append(batch)) stop("append");
            if (i % 100 == 99 && !log->sync()) stop("sync");
        }
        fmt::print("log     1,000,000 x 100 B appended by 100 with 100 syncs in {:.0f} ms",
                   micros_since(begin) / 1e3);
        fmt::print(", {:.0f} MB in {} segments\n", static_cast<double>(log->disk_bytes()) / 1e6,
                   log->segment_count());
    }
    std::vector<double> millis;
    std::uint64_t bytes = 0;
    for (int i = 0; i < 5; ++i) {
        const auto begin = Clock::now();
        const auto log = open(directory, {}, [&](const Entry& entry) { bytes += entry.payload.size(); });
        millis.push_back(micros_since(begin) / 1e3);
        if (log->recovery().records != kRecords) stop("records are missing");
    }
    fmt::print("log     opened in {:.0f} ms, at best {:.0f} ms (files cached)\n", millis.front(),
               *std::min_element(millis.begin(), millis.end()));
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2 || std::filesystem::exists(argv[1])) {
        std::fputs("usage: wal_figures DIRECTORY   (which does not exist yet)\n", stderr);
        return 2;
    }
    const std::string directory = argv[1];
    print_disk(directory, false);
    print_disk(directory, true);
    for (const std::size_t size : {100, 4000}) {
        for (const std::uint64_t ahead : {0, 256, 1024, 4096})
            print_lone_writer(directory, size, ahead * 1024);
    }
    for (const int clients : {1, 16, 64, 256})
        print_group_commit(directory, clients);
    print_recovery(directory);
    std::filesystem::remove_all(directory);
    return 0;
}
