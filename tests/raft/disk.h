// A node's disk in memory: writes wait until they are synced, and a crash keeps any prefix of those that wait.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "control/raft/core.h"

namespace outrider::raft {

class Disk {
  public:
    // A founder's, or (with an empty configuration) that of a node that will be added.
    explicit Disk(ConfigurationRef founders) { snapshot_ = {{}, {}, std::move(founders)}; }

    struct Write {
        WriteId id;
        std::optional<HardState> hard_state;
        std::optional<StoreChunk> chunk;
        std::optional<SnapshotMeta> install;
        std::optional<LogIndex> truncate_after;
        std::vector<Entry> append;
    };
    void write(const Effects& effects);
    bool pending() const { return !pending_.empty(); }
    // The name of the last write so far: what a sync that begins now will make durable.
    WriteId last_written() const { return pending_.empty() ? WriteId{} : pending_.back().id; }
    // Those up to `last` are durable now.
    void sync(WriteId last);
    // What waits is lost, but for a prefix of it, torn in the middle of a write.
    void crash(Random& random);
    // The same, and nothing of what waits survives.
    void crash() { pending_.clear(); }

    void save_snapshot(SnapshotMeta meta, std::string data, LogIndex first_kept);

    const HardState& hard_state() const { return hard_state_; }
    const SnapshotMeta& snapshot() const { return snapshot_; }
    const std::string& snapshot_data() const { return *snapshot_data_; }
    std::vector<Entry> entries() const { return {log_.begin(), log_.end()}; }
    // Is that entry durable here, by itself or in the snapshot?
    bool holds(LogIndex index, Term term) const;

  private:
    // Only the first `parts` of: hard state, chunk, install, truncation, each entry.
    void carry_out(const Write& write, std::size_t parts);

    HardState hard_state_;
    SnapshotMeta snapshot_;
    std::shared_ptr<const std::string> snapshot_data_ = std::make_shared<const std::string>();
    std::deque<Entry> log_;
    std::string incoming_;
    std::deque<Write> pending_;
};

}  // namespace outrider::raft
