#include "tests/raft/disk.h"

#include <limits>
#include <utility>

#include "base/check.h"

namespace outrider::raft {

void Disk::write(const Effects& effects) {
    if (!effects.write) return;
    pending_.push_back({*effects.write, effects.hard_state, effects.chunk, effects.install,
                        effects.truncate_after, effects.append});
}

void Disk::sync(WriteId last) {
    while (!pending_.empty() && pending_.front().id <= last) {
        carry_out(pending_.front(), std::numeric_limits<std::size_t>::max());
        pending_.pop_front();
    }
}

void Disk::crash(Random& random) {
    const std::uint64_t whole = random.below(pending_.size() + 1);
    for (std::uint64_t i = 0; i < whole; ++i) {
        carry_out(pending_[i], std::numeric_limits<std::size_t>::max());
    }
    if (whole < pending_.size()) {
        carry_out(pending_[whole], random.below(5 + pending_[whole].append.size()));
    }
    pending_.clear();
}

void Disk::carry_out(const Write& write, std::size_t parts) {
    const auto next = [&parts] { return parts > 0 && parts-- > 0; };
    if (!next()) return;
    if (write.hard_state) hard_state_ = *write.hard_state;
    if (!next()) return;
    if (write.chunk) {
        if (write.chunk->offset == 0) incoming_.clear();
        require(incoming_.size() == write.chunk->offset, "chunks come in order");
        incoming_ += *write.chunk->data;
    }
    if (!next()) return;
    if (write.install) {
        snapshot_ = *write.install;
        snapshot_data_ = std::make_shared<const std::string>(std::exchange(incoming_, {}));
        log_.clear();
    }
    if (!next()) return;
    while (write.truncate_after && !log_.empty() && log_.back().index > *write.truncate_after) {
        log_.pop_back();
    }
    for (const Entry& entry : write.append) {
        if (!next()) return;
        log_.push_back(entry);
    }
}

void Disk::save_snapshot(SnapshotMeta meta, std::string data, LogIndex first_kept) {
    snapshot_ = std::move(meta);
    snapshot_data_ = std::make_shared<const std::string>(std::move(data));
    while (!log_.empty() && log_.front().index < first_kept) {
        log_.pop_front();
    }
}

bool Disk::holds(LogIndex index, Term term) const {
    if (index <= snapshot_.index) return true;  // what is in a snapshot was committed
    if (log_.empty() || index < log_.front().index || index > log_.back().index) return false;
    return log_[index.value - log_.front().index.value].term == term;
}

}  // namespace outrider::raft
