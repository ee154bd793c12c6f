#include "tests/raft/shell.h"

#include <algorithm>
#include <utility>

namespace outrider::raft {

Shell::Shell(World& world, NodeId id, Options options, std::uint64_t seed, Disk& disk,
             std::unique_ptr<StateMachine> machine, std::size_t chunk_bytes, Instant now)
    : world_(world),
      disk_(disk),
      machine_(std::move(machine)),
      chunk_bytes_(chunk_bytes),
      core_({id, seed, options, disk.hard_state(), disk.snapshot(), disk.entries()}, now),
      machine_at_(disk.snapshot().index) {
    if (machine_at_ > LogIndex{}) machine_->restore(disk_.snapshot_data());
}

void Shell::step(Instant now, Event event) {
    Effects effects = core_.step(now, std::move(event));
    world_.stepped(*this, effects);
    carry_out(std::move(effects));
}

void Shell::carry_out(Effects effects) {
    outcome = effects.outcome;
    disk_.write(effects);
    if (effects.hard_state) hard_state_write_ = *effects.write;
    if (effects.install) {
        installing_ = *effects.install;
        install_write_ = *effects.write;
    }
    for (Message& message : effects.send) {
        if (hard_state_write_ <= durable_) {
            post(std::move(message));
        } else {
            held_.push_back({std::move(message), hard_state_write_});
        }
    }
    for (const Entry& entry : effects.apply) {
        machine_at_ = entry.index;
        std::string result = entry.type == EntryType::kCommand ? machine_->apply(entry) : std::string();
        world_.applied(*this, entry, std::move(result));
    }
    for (const std::uint64_t context : effects.reads_refused) {
        world_.read_refused(*this, context);
    }
    reads_.insert(reads_.end(), effects.reads.begin(), effects.reads.end());
    if (!reads_.empty()) release_reads();
}

void Shell::post(Message message) {
    if (auto* chunk = std::get_if<SnapshotChunk>(&message.body)) {
        if (chunk->meta.index != disk_.snapshot().index) return;  // gone
        const std::string& all = disk_.snapshot_data();
        if (chunk->offset > all.size()) return;
        chunk->data = std::make_shared<const std::string>(all.substr(chunk->offset, chunk_bytes_));
        chunk->last = chunk->offset + chunk->data->size() == all.size();
    }
    world_.send(std::move(message));
}

void Shell::synced(Instant now, WriteId last) {
    disk_.sync(last);
    durable_ = last;
    while (!held_.empty() && held_.front().after <= durable_) {
        post(std::move(held_.front().message));
        held_.pop_front();
    }
    if (installing_ && install_write_ <= last) {
        // Of several snapshots in one sync only the last counts, and none that came after it.
        machine_->restore(disk_.snapshot_data());
        machine_at_ = installing_->index;
        installing_.reset();
        release_reads();
    }
    step(now, Persisted{last});
}

void Shell::compact(Instant now, std::uint64_t keep) {
    const LogIndex index = machine_at_;
    if (installing_ || index <= core_.log().snapshot().index) return;
    const LogIndex first_kept{index.value + 1 - std::min(keep, index.value)};
    SnapshotMeta meta{index, core_.log().term(index).value_or(Term{}), core_.log().configuration_at(index)};
    disk_.save_snapshot(std::move(meta), machine_->snapshot(), first_kept);
    step(now, Compact{index, first_kept});
}

void Shell::release_reads() {
    std::vector<Read> later;
    for (const Read& read : std::exchange(reads_, {})) {
        if (read.index <= machine_at_) {
            world_.read(*this, read.context);
        } else {
            later.push_back(read);
        }
    }
    reads_.insert(reads_.end(), later.begin(), later.end());
}

}  // namespace outrider::raft
