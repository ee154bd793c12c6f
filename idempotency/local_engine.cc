#include "idempotency/local_engine.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"

namespace outrider::idempotency {
namespace {

constexpr std::size_t kBucketsMax = std::size_t{4} << 20;
constexpr std::size_t kMoveBytes = std::size_t{512} << 10;  // in one round
constexpr Duration kLockAgain = std::chrono::milliseconds(20);

std::string hint(const wal::IoError& error) {
    switch (error.code) {
        case ENOENT:
            return "; the folder that holds it must exist";
        case ENOTDIR:
            return "; path must name a directory";
        case EACCES:
        case EPERM:
            return "; outrider's user must be allowed to write there";
        case EROFS:
            return "; keys must be written before requests are sent";
        default:
            return {};
    }
}

RoundLimits limits_of(const config::StoreSettings& settings) {
    RoundLimits limits;
    limits.table.bytes_max = settings.max_memory;
    // Half the keys that would fit without answers: 1 to 2% of max_memory, for a table that never stops to grow.
    limits.table.keys_expected = std::min<std::size_t>(
        kBucketsMax, settings.max_memory.value / (2 * policy::IdempotencyTable::key_bytes()));
    limits.waiting_max = settings.max_waiting;
    limits.log = settings.kind == config::StoreKind::kLog;
    return limits;
}

}  // namespace

LocalEngine::LocalEngine(const config::StoreSettings& settings, Surroundings around)
    : settings_(settings), around_(std::move(around)), started_(around_.clock()) {}

Result<std::unique_ptr<LocalEngine>> LocalEngine::open(const config::StoreSettings& settings,
                                                       Surroundings around) {
    std::unique_ptr<LocalEngine> engine(new LocalEngine(settings, std::move(around)));
    if (settings.kind == config::StoreKind::kMemory) {
        engine->make_rounds();
        return engine;
    }
    require(settings.kind == config::StoreKind::kLog, "a local store is of kind memory or log");
    if (auto opened = engine->open_log(); !opened)
        return Error{fmt::format("store {}: {}", settings.name, opened.error())};
    return engine;
}

void LocalEngine::make_rounds() {
    rounds_ = std::make_unique<LocalRounds>(limits_of(settings_), policy::ClockAnchor{started_, around_.wall},
                                            around_.secret);
}

// A killed process holds its locks until the kernel has taken it apart.
Result<std::unique_ptr<wal::FileLock>> LocalEngine::take_lock(const std::string& file) const {
    const std::string path = settings_.path + "/" + file;
    for (Duration waited{};; waited += kLockAgain) {
        wal::FileSystem::Locked locked = around_.files->lock(path);
        if (locked.error)
            return Error{fmt::format("cannot lock {}: {}{}", path, locked.error.text(), hint(locked.error))};
        if (locked.lock != nullptr) return std::move(locked.lock);
        if (waited >= around_.patience)
            return Error{
                fmt::format("{} is locked by {}: is another outrider using it? Each needs a path of its own",
                            settings_.path, locked.holder)};
        around_.pause(kLockAgain);
    }
}

Result<void> LocalEngine::open_log() {
    if (const wal::IoError failure = around_.files->make_directory(settings_.path))
        return Error{fmt::format("cannot use {}: {}{}", settings_.path, failure.text(), hint(failure))};
    auto locked = take_lock("store.lock");
    if (!locked) return Error{locked.error()};
    lock_ = std::move(*locked);
    // The log's own, which it takes again: a predecessor may hold it a moment longer than the other.
    if (auto free = take_lock("lock"); !free) return Error{free.error()};
    make_rounds();
    auto opened = LocalLog::open(*around_.files,
                                 {.store = settings_.name,
                                  .directory = settings_.path,
                                  .segment_bytes = settings_.segment_bytes.value,
                                  .sync = settings_.sync == config::SyncMode::kGroup,
                                  .clock = around_.clock,
                                  .sync_seconds = around_.cells.wal_sync,
                                  .errors = around_.cells.errors},
                                 [&](std::string_view bytes, std::uint64_t position) {
                                     return rounds_->recover(bytes, position, started_);
                                 });
    if (!opened) return Error{opened.error()};
    log_ = std::move(*opened);
    if (const auto& torn = log_->recovery().torn)
        log_info(
            "store {}: the last {} bytes of {} were not written completely and are cut off ({}): nothing "
            "depended on them",
            settings_.name, torn->bytes, torn->file, torn->reason);
    return {};
}

// Rounds
// ---------------------------------------------------------------------------------------------------------

std::size_t LocalEngine::round(std::span<Question> questions, std::vector<Reply>& replies) {
    const Instant now = around_.clock();
    upkeep(now);
    rounds_->begin(now);
    std::size_t taken = 0;
    while (taken < questions.size() && taken < kQuestionsMax && (taken == 0 || !rounds_->full()))
        rounds_->apply(std::move(questions[taken++]));
    synced_ = log_ != nullptr && rounds_->changes() != 0 && settings_.sync == config::SyncMode::kGroup;
    static_cast<void>(commit());
    rounds_->take_replies(replies);
    return taken;
}

void LocalEngine::upkeep(Instant now) {
    if (!log_ || log_->failed()) return;
    if (rounds_->rewrite(now, log_wants_moves() ? kMoveBytes : 0)) static_cast<void>(commit());
}

// When most of the log is of no use, and only a few keys that live long keep its front (log cleaning as in Rosenblum and
// Ousterhout, "The Design and Implementation of a Log-Structured File System", 1992). What is alive takes more memory than disk,
// so that a log moved once is below the bound.
bool LocalEngine::log_wants_moves() const {
    return log_ && log_->problem().empty() &&
           log_->disk_bytes() > 4 * settings_.segment_bytes.value + 2 * rounds_->bytes();
}

Result<void> LocalEngine::commit() {
    if (!log_ || rounds_->changes() == 0) {
        const std::uint64_t first = next_position_;
        next_position_ += rounds_->changes();
        rounds_->committed(first);
        return {};
    }
    const std::vector<std::string_view> records = rounds_->records();
    const Result<std::uint64_t> first = log_->write(records);
    if (first) {
        rounds_->committed(*first);
        return {};
    }
    rounds_->failed(log_->failed());
    return Error{first.error()};
}

Result<policy::Forgotten> LocalEngine::forget(const policy::Digest& key, std::vector<Reply>& replies) {
    rounds_->begin(around_.clock());
    const policy::Forgotten forgotten = rounds_->forget(key);
    const auto committed = commit();
    rounds_->take_replies(replies);
    if (!committed && forgotten == policy::Forgotten::kForgotten)
        return Error{
            fmt::format("the key is forgotten, but may be back after a restart: {}", committed.error())};
    return forgotten;
}

void LocalEngine::tidy() {
    if (log_) log_->tidy(rounds_->low_water());
}

std::optional<Instant> LocalEngine::next_due() const {
    if (log_ && !log_->failed() && log_wants_moves()) return Instant::min();
    std::optional<Instant> due = rounds_->next_due();
    const auto also = [&due](std::optional<Instant> other) {
        if (other && (!due || *other < *due)) due = other;
    };
    if (log_) also(log_->next_due());
    if (log_ && !log_->failed()) also(rounds_->rewrite_due());
    return due;
}

void LocalEngine::finish() {
    if (log_) log_->finish();
}

StoreStatus LocalEngine::status() const {
    StoreStatus status;
    status.kind = log_ ? "log" : "memory";
    rounds_->describe(status);
    if (log_) status.problem = log_->problem();
    if (status.problem.empty() && rounds_->memory_full())
        status.problem = "max_memory is in use: new keys are refused until older ones end";
    status.ok = status.problem.empty();
    if (!log_) return status;
    status.disk_bytes = log_->disk_bytes();
    status.segments = log_->segments();
    return status;
}

}  // namespace outrider::idempotency
