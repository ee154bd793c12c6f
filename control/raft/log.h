// The log's window in memory: the entries behind the last compaction.
//
// Invariants
//   * Entries have indexes base_index() + 1 … last_index(), without a gap; terms never fall.
//   * base_index() is the entry before the window; its term is known, its content is in the snapshot.
//   * durable_index() <= last_index(). Entries up to it are on the disk as they are in the window. After a reset() it
//     is 0 until that write is durable.
//   * Configurations follow the log: the one in force is that of the last configuration entry in the window, else of the
//     snapshot (thesis 4.1). A truncation brings an earlier one back.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "base/cold_memory.h"
#include "control/raft/cold_entries.h"
#include "control/raft/effects.h"
#include "control/raft/options.h"
#include "control/raft/types.h"

namespace outrider::raft {

class Log {
  public:
    // `entries` follow each other, and may begin before or at snapshot.index + 1; all are durable.
    Log(SnapshotMeta snapshot, std::vector<Entry> entries, const std::shared_ptr<ColdMemory>& memory,
        const WarmLog& warm);

    LogIndex base_index() const { return base_index_; }
    LogIndex first_index() const { return base_index_ + 1; }
    LogIndex last_index() const { return base_index_ + (cold_.size() + warm_.size()); }
    Term last_term() const;
    LogIndex durable_index() const { return durable_index_; }
    // Nothing outside base_index() … last_index().
    std::optional<Term> term(LogIndex index) const;
    bool matches(LogIndex index, Term at) const { return term(index) == at; }
    Entry at(LogIndex index) const;
    // As Entry::bytes(), or about that.
    std::uint64_t bytes(LogIndex index) const;
    const SnapshotMeta& snapshot() const { return snapshot_; }

    void append(Entry entry);
    // Not below base_index().
    void truncate_after(LogIndex index);
    // The snapshot replaces everything.
    void reset(SnapshotMeta snapshot);
    void compact(LogIndex snapshot, LogIndex first_kept);

    // Everything up to `applied` is applied here. Of that, what exceeds options.warm goes to cold memory.
    void settle(LogIndex applied);

    // The state of the log as it is now is what `write` writes.
    void written(WriteId write);
    void persisted(WriteId write);

    // The last index up to `from` whose term is at most `term`: no later one can agree with a log that has `term` at
    // `from`. base_index() when there is none.
    LogIndex last_with_term_at_most(LogIndex from, Term term) const;

    // As many entries from `first` on as the limits allow, at least one if there is one.
    std::vector<Entry> batch(LogIndex first, std::size_t entries_max, std::uint64_t bytes_max) const;

    ConfigurationRef configuration() const { return configurations_.back().configuration; }
    LogIndex configuration_index() const { return configurations_.back().index; }
    // In force before it; the same when there is none.
    ConfigurationRef previous_configuration() const;
    ConfigurationRef configuration_at(LogIndex index) const;

  private:
    const Entry& warm(LogIndex index) const {
        return warm_[index.value - base_index_.value - 1 - cold_.size()];
    }
    bool is_cold(LogIndex index) const { return index.value - base_index_.value <= cold_.size(); }

    struct ConfigurationAt {
        LogIndex index;
        ConfigurationRef configuration;
    };
    struct Write {
        WriteId id;
        LogIndex last;  // of the log that it makes durable
    };

    const WarmLog warm_max_;
    SnapshotMeta snapshot_;
    LogIndex base_index_;
    Term base_term_;
    ColdEntries cold_;        // from first_index() on
    std::deque<Entry> warm_;  // what follows
    std::uint64_t warm_bytes_ = 0;
    std::deque<ConfigurationAt>
        configurations_;  // the first is the snapshot's, or an earlier one; never empty
    LogIndex durable_index_;
    std::deque<Write> writes_;  // not durable yet
};

}  // namespace outrider::raft
