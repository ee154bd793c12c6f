// One local store without its thread: rounds (local_rounds.h), made durable by the log (local_log.h) if the kind has one. Each
// call may block on the disk. Tests and simulations drive it with a clock and a disk of their own.
//
// A round: what was not written before, or is to move away from the log's beginning, goes first in a write of its own, so that it
// cannot make claims fail for want of space; then time passes; then questions, until there is enough to write.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "base/result.h"
#include "base/time.h"
#include "base/wal/files.h"
#include "config/settings.h"
#include "idempotency/local_log.h"
#include "idempotency/local_rounds.h"

namespace outrider::idempotency {

class LocalEngine {
  public:
    struct Surroundings {
        wal::FileSystem* files = nullptr;  // kind log; outlives the engine
        std::function<Instant()> clock;
        WallTime wall;             // now
        std::uint64_t secret = 0;  // random, of this process
        // For a predecessor that was killed and is not quite gone: how long to try for the lock.
        Duration patience = std::chrono::seconds(1);
        std::function<void(Duration)> pause;
        StoreCells cells{};
    };
    static constexpr std::size_t kQuestionsMax = 8192;  // of one round

    // kind memory or log. The error is a whole sentence.
    static Result<std::unique_ptr<LocalEngine>> open(const config::StoreSettings& settings,
                                                     Surroundings around);

    // Answers the first questions, how many is returned; not none, if there are any. Appends to `replies`.
    std::size_t round(std::span<Question> questions, std::vector<Reply>& replies);
    // The last round: its records were synced.
    bool waited_for_disk() const { return synced_; }
    // To be called after the replies of a round are handed out.
    void tidy();
    // When a round and tidy() are due though nobody asks; may lie in the past.
    std::optional<Instant> next_due() const;

    KeyView look(const policy::Digest& key) const { return rounds_->look(key, around_.clock()); }
    Result<policy::Forgotten> forget(const policy::Digest& key, std::vector<Reply>& replies);
    StoreStatus status() const;
    // What was written is durable, whatever [store.NAME].sync says.
    void finish();

    const LocalRounds& rounds() const { return *rounds_; }
    const LocalLog* log() const { return log_.get(); }

  private:
    LocalEngine(const config::StoreSettings& settings, Surroundings around);

    Result<std::unique_ptr<wal::FileLock>> take_lock(const std::string& file) const;
    Result<void> open_log();
    void make_rounds();
    void upkeep(Instant now);
    bool log_wants_moves() const;
    Result<void> commit();

    const config::StoreSettings settings_;
    const Surroundings around_;
    const Instant started_;
    std::unique_ptr<wal::FileLock> lock_;  // before log_: see local_log.h on reopening
    std::unique_ptr<LocalRounds> rounds_;
    std::unique_ptr<LocalLog> log_;    // kind log
    std::uint64_t next_position_ = 1;  // kind memory
    bool synced_ = false;
};

}  // namespace outrider::idempotency
