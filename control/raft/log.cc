#include "control/raft/log.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "control/raft/bugs.h"

namespace outrider::raft {

Log::Log(SnapshotMeta snapshot, std::vector<Entry> entries, const std::shared_ptr<ColdMemory>& memory,
         const WarmLog& warm)
    : warm_max_(warm),
      snapshot_(std::move(snapshot)),
      base_index_(snapshot_.index),
      base_term_(snapshot_.term),
      cold_(memory) {
    require(snapshot_.configuration != nullptr, "a snapshot names its configuration");
    configurations_.push_back({snapshot_.index, snapshot_.configuration});
    for (Entry& entry : entries) {
        if (entry.index > snapshot_.index) append(std::move(entry));
    }
    durable_index_ = last_index();
}

std::optional<Term> Log::term(LogIndex index) const {
    if (index == base_index_) return base_term_;
    if (index < base_index_ || index > last_index()) return std::nullopt;
    return is_cold(index) ? cold_.term(index.value - base_index_.value - 1) : warm(index).term;
}

Term Log::last_term() const {
    return *term(last_index());
}

Entry Log::at(LogIndex index) const {
    require(index > base_index_ && index <= last_index(), "the entry lies in the window");
    return is_cold(index) ? cold_.at(index.value - base_index_.value - 1) : warm(index);
}

std::uint64_t Log::bytes(LogIndex index) const {
    require(index > base_index_ && index <= last_index(), "the entry lies in the window");
    return is_cold(index) ? cold_.bytes(index.value - base_index_.value - 1) : warm(index).bytes();
}

void Log::append(Entry entry) {
    require(entry.index == last_index() + 1, "entries follow each other without a gap");
    require(entry.term >= last_term(), "terms never fall along the log");
    if (entry.type == EntryType::kConfiguration) {
        require(entry.configuration != nullptr, "a configuration entry has a configuration");
        configurations_.push_back({entry.index, entry.configuration});
    }
    warm_bytes_ += entry.bytes();
    warm_.push_back(std::move(entry));
}

void Log::truncate_after(LogIndex index) {
    require(index >= base_index_, "a truncation stays in the window");
    if (index >= last_index()) return;
    while (!warm_.empty() && last_index() > index) {
        warm_bytes_ -= warm_.back().bytes();
        warm_.pop_back();
    }
    cold_.truncate(index.value - base_index_.value);
    while (configurations_.size() > 1 && configurations_.back().index > index) {
        configurations_.pop_back();
    }
    durable_index_ = std::min(durable_index_, index);
    for (Write& write : writes_) {
        write.last = std::min(write.last, index);
    }
}

void Log::reset(SnapshotMeta snapshot) {
    std::vector<Entry> kept;
    if (bug(Bug::kSnapshotKeepsLog) && snapshot.index >= base_index_) {
        for (LogIndex index = snapshot.index + 1; index <= last_index(); index = index + 1)
            kept.push_back(at(index));
    }
    snapshot_ = std::move(snapshot);
    base_index_ = snapshot_.index;
    base_term_ = snapshot_.term;
    cold_.clear();
    warm_.clear();
    warm_bytes_ = 0;
    for (Entry& entry : kept) {
        warm_bytes_ += entry.bytes();
        warm_.push_back(std::move(entry));
    }
    configurations_.clear();
    configurations_.push_back({snapshot_.index, snapshot_.configuration});
    durable_index_ = {};
    for (Write& write : writes_) {
        write.last = {};
    }
}

void Log::compact(LogIndex snapshot, LogIndex first_kept) {
    require(snapshot >= snapshot_.index, "snapshots never go back");
    require(snapshot <= durable_index_, "a snapshot covers durable entries only");
    require(first_kept <= snapshot + 1, "what the snapshot lacks is kept");
    snapshot_ = {snapshot, *term(snapshot), configuration_at(snapshot)};
    if (first_kept <= first_index()) return;
    const LogIndex base = first_kept - 1;
    base_term_ = *term(base);
    std::uint64_t gone = base.value - base_index_.value;
    const std::uint64_t of_cold = std::min(gone, cold_.size());
    cold_.pop_front(of_cold);
    for (gone -= of_cold; gone > 0; --gone) {
        warm_bytes_ -= warm_.front().bytes();
        warm_.pop_front();
    }
    base_index_ = base;
    while (configurations_.size() > 1 && configurations_[1].index <= base) {
        configurations_.pop_front();
    }
}

void Log::settle(LogIndex applied) {
    while (!warm_.empty() && warm_.front().index <= applied &&
           (warm_.size() > warm_max_.entries || warm_bytes_ > warm_max_.bytes)) {
        warm_bytes_ -= warm_.front().bytes();
        cold_.push_back(warm_.front());
        warm_.pop_front();
    }
}

void Log::written(WriteId write) {
    writes_.push_back({write, last_index()});
}

void Log::persisted(WriteId write) {
    while (!writes_.empty() && writes_.front().id <= write) {
        durable_index_ = std::max(durable_index_, writes_.front().last);
        writes_.pop_front();
    }
}

LogIndex Log::last_with_term_at_most(LogIndex from, Term most) const {
    LogIndex index = std::min(from, last_index());
    while (index > base_index_ && *term(index) > most) {
        index = index - 1;
    }
    return index;
}

std::vector<Entry> Log::batch(LogIndex first, std::size_t entries_max, std::uint64_t bytes_max) const {
    std::vector<Entry> out;
    if (first > last_index()) return out;
    const std::uint64_t count = std::min<std::uint64_t>(entries_max, last_index().value - first.value + 1);
    out.reserve(count);
    std::uint64_t bytes = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
        bytes += this->bytes(first + i);
        if (i > 0 && bytes > bytes_max) break;
        out.push_back(at(first + i));
    }
    return out;
}

ConfigurationRef Log::previous_configuration() const {
    return configurations_[configurations_.size() > 1 ? configurations_.size() - 2 : 0].configuration;
}

ConfigurationRef Log::configuration_at(LogIndex index) const {
    for (auto it = configurations_.rbegin(); it != configurations_.rend(); ++it) {
        if (it->index <= index) return it->configuration;
    }
    return configurations_.front().configuration;
}

}  // namespace outrider::raft
