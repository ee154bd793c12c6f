// The write-ahead log of one local store, on the store's thread: what becomes of it when the disk is full or broken, and how
// its front is given back. Blocks on the disk. Positions are the log's indexes.
//
// Errors
//   * The disk is full (or read-only, or out of quota): write() fails, the log is whole, the next write() tries again.
//   * An fsync failed: nothing more is accepted. tidy() opens the log anew, after kReopenFirst, then twice as long each time
//     up to kReopenMax. That is as sound as a restart of the process (wal.h, "Errors"): open() writes again what is not
//     proven to be synced. The keys in memory know at least what the log knows, since the directory's lock is held in
//     between by the store itself. A record that was answered as failed may turn out to be there: harmless, see
//     policy::IdempotencyTable. If the log comes back shorter than what it had confirmed, or as another one, it is not used:
//     only a restart, with what is on the disk then, makes sense of that.
//   * Segments cannot be deleted: tried again after kTrimAgain.
// Each is told once in the application's log when it begins and once when it is over, and is in problem() meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/metrics.h"
#include "base/result.h"
#include "base/time.h"
#include "base/wal/wal.h"

namespace outrider::idempotency {

class LocalLog {
  public:
    static constexpr Duration kReopenFirst = std::chrono::seconds(1);
    static constexpr Duration kReopenMax = std::chrono::seconds(60);
    static constexpr Duration kTrimAgain = std::chrono::seconds(1);
    // On a disk that is nearly full small records fit and large ones do not: each answer would be two lines in the application log.
    static constexpr Duration kQuiet = std::chrono::seconds(10);

    struct Options {
        std::string store;  // its name, for messages
        std::string directory;
        std::uint64_t segment_bytes = std::uint64_t{64} << 20;
        bool sync = true;  // false: a crash of the machine may take what was confirmed
        std::function<Instant()> clock;
        Histogram* sync_seconds = nullptr;
        Counter* errors = nullptr;
    };
    using OnRecord = std::function<Result<void>(std::string_view bytes, std::uint64_t position)>;

    // Delivers every record. The first error of `on_record` fails it. `files` outlives the log.
    static Result<std::unique_ptr<LocalLog>> open(wal::FileSystem& files, Options options,
                                                  const OnRecord& on_record);

    // Appends and syncs. The first record's position.
    Result<std::uint64_t> write(std::span<const std::string_view> records);
    // After a failed write(): some of its records may be in the log.
    bool failed() const { return wal_ == nullptr || wal_->failed(); }
    // Records below `low_water` are of no use (nothing: none is). Opens a failed log anew when it is time.
    void tidy(std::optional<std::uint64_t> low_water);
    // All that was written is durable, whatever options.sync says.
    void finish();
    // When tidy() has something to do by itself.
    std::optional<Instant> next_due() const;

    std::uint64_t disk_bytes() const { return wal_ != nullptr ? wal_->disk_bytes() : 0; }
    std::uint64_t segments() const { return wal_ != nullptr ? wal_->segment_count() : 0; }
    // Empty: none.
    const std::string& problem() const { return problem_.empty() ? trim_problem_ : problem_; }
    // For measuring and tests.
    const wal::Recovery& recovery() const { return recovery_; }

  private:
    LocalLog(wal::FileSystem& files, Options options) : files_(files), options_(std::move(options)) {}

    Result<void> sync();
    void write_failed(const std::string& what);
    void written();
    void reopen(Instant now);
    Result<void> open_again();
    void trim(std::optional<std::uint64_t> low_water, Instant now);
    Result<void> give_back(std::optional<std::uint64_t> low_water);
    wal::WalOptions wal_options() const { return {.segment_bytes = options_.segment_bytes}; }

    wal::FileSystem& files_;
    const Options options_;
    std::unique_ptr<wal::Wal> wal_;  // null: it could not be opened anew
    wal::Recovery recovery_;
    std::uint64_t log_id_ = 0;
    wal::Index confirmed_;  // write() has answered for all below
    std::string problem_;
    bool problem_said_ = false;  // in the application log
    Instant quiet_until_{};      // about it
    std::string trim_problem_;
    std::optional<Instant> reopen_at_;
    Duration reopen_after_ = kReopenFirst;
    std::optional<Instant> trim_at_;  // not before
    bool lost_ = false;               // what came back is not what was confirmed
};

}  // namespace outrider::idempotency
