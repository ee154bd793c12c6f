// Histories of a log on a disk that lies as disks do (virtual_disk.h), each from a seed.
//
// Held here, after every end of the process and of the machine, between and within the log's operations:
//   * the log opens, whatever unsynced bytes, sectors and names survived
//   * every confirmed record that was not released or truncated is there, unchanged and in its place
//   * nothing else is there, apart from a beginning of what was appended and not confirmed
//   * what open() delivers stays
//
// OUTRIDER_WAL_SEEDS=100000 wal_test --gtest_filter=WalCrash.*     more of them
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/wal/wal.h"
#include "tests/wal/virtual_disk.h"

namespace outrider::wal {
namespace {

class History {
  public:
    explicit History(std::uint64_t seed) : disk_(seed), random_(~seed) {
        options_.segment_bytes = 4096 + random_.below(3) * 4096;
        options_.preallocate_bytes = random_.below(2) * 2048;
        if (random_.below(4) != 0) {
            faults_.short_write = random_.below(2) * 10;
            faults_.write_error = random_.below(2) * 60;
            faults_.sync_error = random_.below(2) * 30;
            faults_.directory_sync_error = random_.below(2) * 20;
            faults_.name_error = random_.below(2) * 20;
        }
    }

    void run(int steps) {
        reopen();
        for (int i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i)
            step();
    }
    std::uint64_t torn = 0;
    std::uint64_t lost = 0;  // unconfirmed records that a crash took

  private:
    void step() {
        if (random_.below(20) == 0) disk_.die_after(1 + random_.below(12));
        if (random_.below(15) == 0) disk_.capacity = disk_.used() + random_.below(3000);
        if (random_.below(5) == 0) disk_.capacity = UINT64_MAX;
        switch (random_.below(16)) {
            case 0:
                return end(true);
            case 1:
                return end(false);
            case 2:
                static_cast<void>(log_->rotate());
                break;
            case 3:
                release();
                break;
            case 4:
                truncate();
                break;
            case 5:
            case 6:
            case 7:
            case 8:
            case 9:
                sync();
                break;
            default:
                append();
                break;
        }
        if (disk_.dead()) return end(true);
        if (log_->failed()) end(random_.below(2) == 0);
    }

    void append() {
        std::vector<std::string> payloads;
        std::vector<Record> batch;
        for (std::uint64_t n = 1 + random_.below(6); n > 0; --n) {
            std::string payload = fmt::format("{} ", ++written_);
            payload.resize(random_.below(random_.below(20) == 0 ? 5000 : 300),
                           static_cast<char>(random_.next()));
            payloads.push_back(std::move(payload));
        }
        for (const std::string& payload : payloads)
            batch.push_back({type_of(payload), payload});
        const Index next = log_->next_index();
        auto first = log_->append(batch);
        if (first) {
            ASSERT_EQ(*first, next);
            ASSERT_EQ(log_->next_index().value, next.value + batch.size());
        } else {
            ASSERT_EQ(log_->next_index(), next);
            if (!log_->failed() && !disk_.dead()) return;  // it must never be seen
        }
        records_.insert(records_.end(), payloads.begin(), payloads.end());
    }

    void sync() {
        if (log_->sync()) confirmed_ = log_->next_index().value;
        ASSERT_LE(log_->durable_index(), log_->next_index());
    }

    void release() {
        const std::uint64_t before = 1 + random_.below(confirmed_);
        released_ = std::max(released_, before);
        if (log_->release({before})) {
            ASSERT_LE(log_->first_index().value, released_);
            first_ = log_->first_index().value;
        }
    }

    void truncate() {
        const std::uint64_t first = log_->first_index().value;
        const std::uint64_t last = first - 1 + random_.below(log_->next_index().value - first + 1);
        const bool done = log_->truncate_after({last}).ok();
        confirmed_ = std::min(confirmed_, last + 1);
        if (!done) return;
        ASSERT_EQ(log_->next_index().value, last + 1);
        records_.resize(last);
        confirmed_ = log_->durable_index().value;
    }

    void end(bool power) {
        log_.reset();
        if (power || disk_.dead()) disk_.power_loss();
        reopen();
    }

    void reopen() {
        disk_.faults = faults_;
        for (int attempt = 0;; ++attempt) {
            if (attempt == 2) {  // without faults it must open
                disk_.faults = {};
                disk_.capacity = UINT64_MAX;
            }
            if (attempt < 2 && random_.below(8) == 0) disk_.die_after(1 + random_.below(5));
            std::vector<Entry> entries;
            std::vector<std::string> payloads;
            auto log = Wal::open(disk_, "d", options_, [&](const Entry& entry) {
                entries.push_back(entry);
                payloads.emplace_back(entry.payload);
            });
            if (disk_.dead()) {
                if (log) log->reset();
                disk_.power_loss();
                if (!log) continue;
                log = Wal::open(disk_, "d", options_, [](const Entry&) {});
                if (!log) continue;
            }
            if (!log) {
                ASSERT_LT(attempt, 2) << log.error();
                continue;
            }
            log_ = std::move(*log);
            disk_.faults = faults_;
            return check(entries, payloads);
        }
    }

    void check(const std::vector<Entry>& entries, const std::vector<std::string>& payloads) {
        const std::uint64_t first = log_->first_index().value;
        const std::uint64_t next = log_->next_index().value;
        ASSERT_EQ(entries.size(), next - first);
        ASSERT_GE(first, first_) << "what was released came back";
        ASSERT_LE(first, released_) << "more was released than asked for";
        ASSERT_GE(next, confirmed_) << "a confirmed record is gone";
        ASSERT_LE(next, records_.size() + 1) << "a record was invented";
        for (std::size_t i = 0; i < entries.size(); ++i) {
            ASSERT_EQ(entries[i].index.value, first + i);
            ASSERT_EQ(payloads[i], records_[first + i - 1]);
            ASSERT_EQ(entries[i].type, type_of(payloads[i]));
        }
        if (log_->recovery().torn) ++torn;
        lost += records_.size() + 1 - next;
        records_.resize(next - 1);
        confirmed_ = next;
        first_ = first;
    }

    static std::uint8_t type_of(std::string_view payload) {
        return static_cast<std::uint8_t>(payload.size() * 7);
    }

    VirtualDisk disk_;
    Random random_;
    WalOptions options_;
    VirtualDisk::Faults faults_;
    std::unique_ptr<Wal> log_;
    std::vector<std::string> records_;  // record i is at i - 1; those that may be there
    std::uint64_t confirmed_ = 1;       // records below must be there
    std::uint64_t released_ = 1;        // asked for
    std::uint64_t first_ = 1;           // done
    std::uint64_t written_ = 0;
};

TEST(WalCrash, NoConfirmedRecordIsLostAndNoneIsInvented) {
    const char* wanted = std::getenv("OUTRIDER_WAL_SEEDS");
    const std::uint64_t seeds = wanted == nullptr ? 1500 : std::strtoull(wanted, nullptr, 10);
    std::uint64_t torn = 0;
    std::uint64_t lost = 0;
    for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
        SCOPED_TRACE(fmt::format("seed {}", seed));
        History history(seed);
        history.run(150);
        torn += history.torn;
        lost += history.lost;
        if (HasFatalFailure()) return;
    }
    // That the disk did its worst.
    EXPECT_GT(torn, seeds / 4);
    EXPECT_GT(lost, seeds);
}

}  // namespace
}  // namespace outrider::wal
