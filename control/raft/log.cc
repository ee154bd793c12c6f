#include "control/raft/log.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "control/raft/bugs.h"

namespace outrider::raft {

Log::Log(SnapshotMeta snapshot, std::vector<Entry> entries)
    : snapshot_(std::move(snapshot)), base_index_(snapshot_.index), base_term_(snapshot_.term) {
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
    return entries_[index.value - base_index_.value - 1].term;
}

const Entry& Log::at(LogIndex index) const {
    require(index > base_index_ && index <= last_index(), "the entry lies in the window");
    return entries_[index.value - base_index_.value - 1];
}

void Log::append(Entry entry) {
    require(entry.index == last_index() + 1, "entries follow each other without a gap");
    require(entry.term >= last_term(), "terms never fall along the log");
    if (entry.type == EntryType::kConfiguration) {
        require(entry.configuration != nullptr, "a configuration entry has a configuration");
        configurations_.push_back({entry.index, entry.configuration});
    }
    entries_.push_back(std::move(entry));
}

void Log::truncate_after(LogIndex index) {
    require(index >= base_index_, "a truncation stays in the window");
    if (index >= last_index()) return;
    entries_.resize(index.value - base_index_.value);
    while (configurations_.size() > 1 && configurations_.back().index > index) {
        configurations_.pop_back();
    }
    durable_index_ = std::min(durable_index_, index);
    for (Write& write : writes_) {
        write.last = std::min(write.last, index);
    }
}

void Log::reset(SnapshotMeta snapshot) {
    std::deque<Entry> kept;
    if (bug(Bug::kSnapshotKeepsLog) && last_index() > snapshot.index && snapshot.index >= base_index_) {
        kept.assign(entries_.begin() + static_cast<std::ptrdiff_t>(snapshot.index.value - base_index_.value),
                    entries_.end());
    }
    snapshot_ = std::move(snapshot);
    base_index_ = snapshot_.index;
    base_term_ = snapshot_.term;
    entries_ = std::move(kept);
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
    entries_.erase(entries_.begin(),
                   entries_.begin() + static_cast<std::ptrdiff_t>(base.value - base_index_.value));
    base_index_ = base;
    while (configurations_.size() > 1 && configurations_[1].index <= base) {
        configurations_.pop_front();
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
        const Entry& entry = at(first + i);
        bytes += entry.bytes();
        if (i > 0 && bytes > bytes_max) break;
        out.push_back(entry);
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
