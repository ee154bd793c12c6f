#include "idempotency/local_log.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/log.h"

namespace outrider::idempotency {
namespace {

// The layout of policy/idempotency_record.h. Another user of a log in this directory would have another number.
constexpr std::uint8_t kRecordType = 1;
// A log without one live key is begun anew when it is larger: what keys leave behind does not stay.
constexpr std::uint64_t kDeadBytesMax = std::uint64_t{1} << 20;

}  // namespace

Result<std::unique_ptr<LocalLog>> LocalLog::open(wal::FileSystem& files, Options options,
                                                 const OnRecord& on_record) {
    std::unique_ptr<LocalLog> log(new LocalLog(files, std::move(options)));
    std::string refused;
    auto opened =
        wal::Wal::open(files, log->options_.directory, log->wal_options(), [&](const wal::Entry& entry) {
            if (!refused.empty()) return;
            Result<void> taken =
                entry.type == kRecordType
                    ? on_record(entry.payload, entry.index.value)
                    : Error{fmt::format("it is of type {}, which is not this version's", entry.type)};
            if (!taken)
                refused =
                    fmt::format("record {} in {}/{}: {}; it needs the version of outrider that wrote it",
                                entry.index.value, log->options_.directory,
                                wal::segment_name(entry.position.segment), taken.error());
        });
    if (!opened) return Error{opened.error()};
    if (!refused.empty()) return Error{refused};
    log->wal_ = std::move(*opened);
    log->recovery_ = log->wal_->recovery();
    log->log_id_ = log->wal_->log_id();
    log->confirmed_ = log->wal_->next_index();
    return log;
}

Result<std::uint64_t> LocalLog::write(std::span<const std::string_view> records) {
    if (failed()) {
        // Said when it failed; counted each time.
        if (options_.errors != nullptr) options_.errors->add();
        return Error{problem_};
    }
    std::vector<wal::Record> list;
    list.reserve(records.size());
    for (const std::string_view record : records)
        list.push_back({kRecordType, record});
    const Result<wal::Index> first = wal_->append(list);
    if (!first) {
        write_failed(first.error());
        return Error{first.error()};
    }
    if (options_.sync) {
        if (const auto synced = sync(); !synced) {
            write_failed(synced.error());
            return Error{synced.error()};
        }
    }
    written();
    return first->value;
}

Result<void> LocalLog::sync() {
    const Instant begin = options_.clock();
    auto synced = wal_->sync();
    if (options_.sync_seconds != nullptr) options_.sync_seconds->observe(options_.clock() - begin);
    return synced;
}

void LocalLog::write_failed(const std::string& what) {
    if (options_.errors != nullptr) options_.errors->add();
    const Instant now = options_.clock();
    if (!problem_said_ && now >= quiet_until_) {
        log_error("store {}: {}; until it can be written, new keys are refused", options_.store, what);
        problem_said_ = true;
        quiet_until_ = now + kQuiet;
    }
    problem_ = what;
    if (wal_->failed() && !reopen_at_) reopen_at_ = now + reopen_after_;
}

void LocalLog::written() {
    confirmed_ = wal_->next_index();
    reopen_after_ = kReopenFirst;
    if (problem_.empty()) return;
    if (problem_said_)
        log_info("store {}: the write-ahead log in {} can be written again", options_.store,
                 options_.directory);
    problem_said_ = false;
    problem_.clear();
}

void LocalLog::finish() {
    if (failed()) return;
    if (const auto synced = sync(); !synced) write_failed(synced.error());
}

std::optional<Instant> LocalLog::next_due() const {
    return failed() ? reopen_at_ : trim_at_;
}

void LocalLog::tidy(std::optional<std::uint64_t> low_water) {
    if (failed()) {
        if (!reopen_at_) return;
        const Instant now = options_.clock();
        if (now >= *reopen_at_) reopen(now);
        return;
    }
    // The clock is read only if there is something to do.
    if (!trim_at_ && wal_->segment_count() == 1 && (low_water || wal_->disk_bytes() <= kDeadBytesMax)) return;
    trim(low_water, options_.clock());
}

// Reopening
// ---------------------------------------------------------------------------------------------------------

void LocalLog::reopen(Instant now) {
    if (const auto opened = open_again(); !opened) {
        if (options_.errors != nullptr) options_.errors->add();
        if (problem_ != opened.error()) log_error("store {}: {}", options_.store, opened.error());
        problem_ = opened.error();
        wal_.reset();
        reopen_after_ = std::min(2 * reopen_after_, kReopenMax);
        reopen_at_ = now + reopen_after_;
        if (lost_) reopen_at_.reset();
        return;
    }
    reopen_at_.reset();
    reopen_after_ = std::min(2 * reopen_after_, kReopenMax);  // until a write succeeds
    confirmed_ = wal_->next_index();
    log_info("store {}: the write-ahead log in {} is open again", options_.store, options_.directory);
    problem_said_ = false;
    problem_.clear();
}

Result<void> LocalLog::open_again() {
    wal_.reset();  // its lock
    auto opened = wal::Wal::open(files_, options_.directory, wal_options(), [](const wal::Entry&) {});
    if (!opened) return Error{opened.error()};
    if ((*opened)->log_id() != log_id_ || (*opened)->next_index() < confirmed_) {
        lost_ = true;
        return Error{
            fmt::format("the write-ahead log in {} has lost records that were durable: it ends before record "
                        "{}, not {}; new keys are refused until outrider is restarted",
                        options_.directory, (*opened)->next_index().value, confirmed_.value)};
    }
    wal_ = std::move(*opened);
    return {};
}

// The front
// ---------------------------------------------------------------------------------------------------------

void LocalLog::trim(std::optional<std::uint64_t> low_water, Instant now) {
    if (trim_at_ && now < *trim_at_) return;
    trim_at_.reset();
    const auto given = give_back(low_water);
    if (given) {
        if (!trim_problem_.empty())
            log_info("store {}: segments of the log in {} are deleted again", options_.store,
                     options_.directory);
        trim_problem_.clear();
        return;
    }
    if (wal_->failed()) return write_failed(given.error());
    if (options_.errors != nullptr) options_.errors->add();
    if (trim_problem_.empty())
        log_error("store {}: {}; tried again each second", options_.store, given.error());
    trim_problem_ = given.error();
    trim_at_ = now + kTrimAgain;
}

Result<void> LocalLog::give_back(std::optional<std::uint64_t> low_water) {
    const wal::Index before = low_water ? wal::Index{*low_water} : wal_->next_index();
    if (auto released = wal_->release(before); !released) return released;
    // Only the active segment is left; with no key alive all of it is of no use.
    if (low_water || wal_->disk_bytes() <= kDeadBytesMax) return {};
    if (auto rotated = wal_->rotate(); !rotated) return rotated;
    return wal_->release(wal_->next_index());
}

}  // namespace outrider::idempotency
