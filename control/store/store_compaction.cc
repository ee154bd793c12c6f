// Dropping history, and what else goes over all of it.
#include <algorithm>
#include <unordered_set>

#include <xxhash.h>

#include "base/check.h"
#include "control/store/bugs.h"
#include "control/store/snapshot.h"
#include "control/store/store.h"

namespace outrider::store {

std::size_t Store::history_position(Revision from) const {
    const auto it = std::partition_point(history_.begin(), history_.end(),
                                         [from](const Record* r) { return r->mod() < from; });
    return static_cast<std::size_t>(it - history_.begin());
}

void Store::drop(Record* record) {
    bytes_ -= record->charge();
    --records_;
    Record::destroy(record);
}

void Store::drop_tombstone(Record* record) {
    const auto at = index_.find(record->key());
    require(at.valid(), "a record's key is in the index");
    if (at.record() == record) {
        index_.erase(at);
    } else {
        Record* newer = at.record();
        while (newer->prev() != record)
            newer = newer->prev();
        newer->cut(nullptr);
    }
    drop(record);
}

// Each record of the history up to `revision` makes the one below it in its chain invisible to every reader that is
// still allowed; that one's own predecessor has been dropped already, by this pass or an earlier compaction. Records of
// `revision` itself all stay, for watchers that begin there.
void Store::compact(Revision revision) {
    for (SnapshotWriter* writer : std::vector<SnapshotWriter*>(writers_))
        writer->finish();
    compacted_ = revision;
    std::unordered_set<Record*> tombstones;
    while (!history_.empty() && history_.front()->mod() < revision) {
        Record* record = history_.front();
        history_.pop_front();
        if (Record* below = record->prev(); below != nullptr) {
            tombstones.erase(below);
            record->cut(nullptr);
            drop(below);
        }
        if (record->tombstone()) tombstones.insert(record);
    }
    const Revision last = bug(Bug::kCompactionDropsVisible) ? revision + 1 : revision;
    for (std::size_t i = 0; i < history_.size() && history_[i]->mod() <= last; ++i) {
        Record* below = history_[i]->prev();
        if (below == nullptr || below->mod() == revision) continue;
        tombstones.erase(below);
        history_[i]->cut(nullptr);
        drop(below);
    }
    if (bug(Bug::kCompactionTakesBoundary)) {
        while (!history_.empty() && history_.front()->mod() == revision)
            history_.pop_front();
    }
    // Sorted by nothing: the order of dropping shows nowhere.
    for (Record* record : tombstones)
        drop_tombstone(record);
}

std::uint64_t Store::hash(Revision revision) const {
    struct Packed {
        std::int64_t mod, create, version, lease;
        std::uint64_t key_bytes, value_bytes, sub, tombstone;
    };
    XXH3_state_t* state = XXH3_createState();
    require(state != nullptr, "there is memory for a hash");
    XXH3_64bits_reset(state);
    for (auto at = index_.begin(); at.valid(); at.next()) {
        for (const Record* r = at_revision(at.record(), revision); r != nullptr; r = r->prev()) {
            const Record::Fields f = r->fields();
            const Packed packed{f.mod.value,  f.create.value, f.version, f.lease.value,
                                f.key.size(), f.value.size(), f.sub,     f.tombstone ? 1U : 0U};
            XXH3_64bits_update(state, &packed, sizeof packed);
            XXH3_64bits_update(state, f.key.data(), f.key.size());
            XXH3_64bits_update(state, f.value.data(), f.value.size());
        }
    }
    XXH3_64bits_update(state, &compacted_.value, sizeof compacted_.value);
    const std::uint64_t digest = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return digest;
}

}  // namespace outrider::store
