// History: settling, dropping, and what else goes over all of it.
#include <algorithm>

#include <xxhash.h>

#include "base/check.h"
#include "control/store/bugs.h"
#include "control/store/snapshot.h"
#include "control/store/store.h"

namespace outrider::store {

std::size_t Store::history_position(Revision from) const {
    return history_.partition_point([from](const Change& change) { return change.mod() < from; });
}

// nullptr: it is older than the history.
Change* Store::find_change(const Record* record) {
    const Revision mod = record->mod();
    for (std::size_t i = 0; bug(Bug::kRestoredHistoryByKey) && i < history_.size(); ++i) {
        if (history_[i].record() == record) return &history_[i];
    }
    if (history_.empty()) return nullptr;
    history_.front().require_same();  // whatever its record is by now
    if (mod < history_.front().mod()) return nullptr;
    std::size_t at = history_position(mod);
    require(at < history_.size(), "a record as late as the history is in it");
    // The changes of one revision are numbered without a gap; of the first, some may have been collected.
    const std::uint32_t sub = record->fields().sub;
    const std::uint32_t first = change(at).record()->fields().sub;
    if (sub < first && at == 0) return nullptr;
    at += sub - first;
    require(at < history_.size() && history_[at].record() == record,
            "a record of the history is in its place; is the disk of the data directory broken?");
    return &history_[at];
}

Record* Store::settle(Record* record) {
    Record* copy = Record::copy_to(cold_, *record);
    if (Change* change = find_change(record); change != nullptr) change->moved_to(copy);
    // Of the same command: its events are in the order of their numbers.
    if (record->mod() > revision_) events_[record->fields().sub] = copy;
    if (!tombstones_.empty() && tombstones_.erase(record) > 0) tombstones_.insert(copy);
    Record::destroy(cold_, record);
    return copy;
}

void Store::drop(Record* record) {
    bytes_ -= record->charge();
    --records_;
    Record::destroy(cold_, record);
}

void Store::drop_below(Record* record) {
    Record* below = record->prev();
    if (below == nullptr) return;
    tombstones_.erase(below);
    record->cut(nullptr);
    drop(below);
}

void Store::drop_tombstone(Record* record) {
    const auto at = index_.find(record->fields().key);
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

// Each record of the history below compacted() makes the one below it in its chain invisible to every reader that is
// still allowed; that one's own predecessor has been dropped already, by this pass or an earlier compaction. Records of
// the compaction's revision itself all stay, for watchers that begin there. A later compaction goes on where this one is.
void Store::collect(std::size_t records) {
    if (!collecting() || held()) return;
    cool();
    for (; !history_.empty(); --records) {
        const Change& first = change(0);
        if (first.mod() >= compacted_) break;
        if (records == 0) return;
        Record* record = first.record();
        history_.pop_front();
        drop_below(record);
        if (record->tombstone()) tombstones_.insert(record);
    }
    const Revision last = bug(Bug::kCompactionDropsVisible) ? compacted_ + 1 : compacted_;
    for (; boundary_ < history_.size(); --records) {
        const Change& next = change(boundary_);
        if (next.mod() > last) break;
        if (records == 0) return;
        ++boundary_;
        Record* record = next.record();
        if (record->prev() != nullptr && record->prev()->mod() != compacted_) drop_below(record);
    }
    if (bug(Bug::kCompactionTakesBoundary)) {
        while (!history_.empty() && change(0).mod() == compacted_)
            history_.pop_front();
    }
    // Sorted by nothing: the order of dropping shows nowhere.
    for (; !tombstones_.empty(); --records) {
        if (records == 0) return;
        Record* record = *tombstones_.begin();
        tombstones_.erase(tombstones_.begin());
        drop_tombstone(record);
    }
    collected_ = compacted_;
}

// ---- hashes ---------------------------------------------------------------------------------------------------------

struct HashWalk::State {
    XXH3_state_t* hash = XXH3_createState();
    State() { require(hash != nullptr && XXH3_64bits_reset(hash) == XXH_OK, "there is memory for a hash"); }
    ~State() { XXH3_freeState(hash); }
    State(const State&) = delete;
    State& operator=(const State&) = delete;
};

HashWalk::HashWalk(const Store& store, Revision revision)
    : store_(store), revision_(revision), compacted_(store.compacted()), state_(std::make_unique<State>()) {
    ++store_.walks_;
}

HashWalk::~HashWalk() {
    --store_.walks_;
}

void HashWalk::add(const Record& record) {
    struct Packed {
        std::int64_t mod, create, version, lease;
        std::uint64_t key_bytes, value_bytes, sub, tombstone;
    };
    const Record::Fields f = record.fields();
    const Packed packed{f.mod.value,  f.create.value, f.version, f.lease.value,
                        f.key.size(), f.value.size(), f.sub,     f.tombstone ? 1U : 0U};
    XXH3_64bits_update(state_->hash, &packed, sizeof packed);
    XXH3_64bits_update(state_->hash, f.key.data(), f.key.size());
    XXH3_64bits_update(state_->hash, f.value.data(), f.value.size());
}

bool HashWalk::next(std::size_t records) {
    if (rest_ != nullptr) rest_->require_whole();  // it may have been cooled since
    auto at = store_.index_.lower_bound(next_key_);
    for (; records > 0 && (rest_ != nullptr || at.valid()); --records) {
        if (rest_ == nullptr) {
            rest_ = at_revision(at.record(), revision_);
            at_boundary_ = false;
            next_key_.assign(at.record()->key()).push_back('\0');
            at.next();
            if (rest_ == nullptr) continue;
        }
        // What is below the compaction may be there though it is collected elsewhere.
        const bool below = rest_->mod() < compacted_;
        if (!below || (!at_boundary_ && !rest_->tombstone())) add(*rest_);
        at_boundary_ = at_boundary_ || rest_->mod() == compacted_;
        rest_ = below ? nullptr : rest_->prev();
    }
    store_.cool();
    return rest_ != nullptr || at.valid();
}

std::uint64_t HashWalk::digest() const {
    XXH3_64bits_update(state_->hash, &compacted_.value, sizeof compacted_.value);
    return XXH3_64bits_digest(state_->hash);
}

std::uint64_t Store::hash(Revision revision) const {
    HashWalk walk(*this, revision);
    while (walk.next(SIZE_MAX)) {
    }
    return walk.digest();
}

}  // namespace outrider::store
