// The key space: etcd v3's semantics as a pure state machine that a replicated log drives.
//
//   log entry -> apply(index, command) -> response, and the records that the command wrote (the watchers' events)
//
// Every member that applies the same commands at the same indexes has the same state: the same answers, the same
// hash(), the same bytes() once collected, and a snapshot of the same bytes (snapshot.h). Nothing here reads a clock, draws a random
// number, looks at a setting or depends on an address. What settings bound is refused before the log: admit().
//
// How it is kept
//   * KeyIndex holds the newest record of each key; a record points to the key's next older one. A read at a revision walks
//     down from the newest: short, since compaction bounds the chain.
//   * The log (`history`) holds the records of all revisions since the last compaction in the order in which they
//     were made: what watchers that are behind read, and what the next compaction looks at. So compaction costs what was
//     written since the last one, not the size of the store.
//   * After compaction at R a key keeps every record of R and later, and one below R only if it is a value
//     and still what a reader at R sees. In memory that is all there is, once it is collected.
//   * The newest records are on the heap, all others in cold memory: what a reader or writer of today looks at stays small
//     however long the history is.
//
// Compaction takes effect with its command, and the first kCollectedAtOnce records of history with it. What is left of a long
// history is collected in pieces (collect()): until then it takes room and counts in bytes(), and shows nowhere else.
//
// Invariants
//   * compacted() <= revision(); revision() never falls; a command changes it by at most 1.
//   * Records within a key's chain and in the history are in strictly rising (revision, number).
//   * A record in the index is on the heap; all that are reached by prev() are cold.
//   * A command that is refused changes nothing but its session and the store's time.
//
// Pointers to records (Applied::events, history()) are valid until the next apply() or collect().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/cold_arena.h"
#include "base/cold_queue.h"
#include "control/store/change.h"
#include "control/store/key_index.h"
#include "control/store/leases.h"
#include "control/store/record.h"
#include "control/store/sessions.h"
#include "control/store/types.h"

namespace outrider::store {

class HashWalk;
class SnapshotWriter;
class SnapshotReader;
class Planned;
class Transaction;

class Store {
  public:
    static constexpr std::size_t kCollectedAtOnce = 10'000;

    explicit Store(std::shared_ptr<ColdMemory> memory = heap_memory())
        : cold_(memory), history_(std::move(memory)) {}
    ~Store();
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;

    // Before a command is proposed: what no state can make right (empty keys, sizes, duplicate keys, depth) …
    static Status check(const Command& command, const Limits& limits);
    // … and with it the quota. Commands that write nothing new are never refused for it, so that a full store can be
    // compacted and emptied. What was proposed at once may exceed it by as much.
    Status admit(const Command& command, const Limits& limits) const;

    struct Applied {
        Response response;
        std::span<const Record* const> events;
        bool repeated = false;  // answered from the session; nothing took effect
    };
    // The index rises from call to call.
    Applied apply(std::uint64_t index, const Command& command);
    // An entry that is none of ours (a leader's first, a membership change).
    void skip(std::uint64_t index);

    struct RangeResult {
        Status status = Status::kOk;
        RangeResponse response;
    };
    RangeResult range(const RangeRequest& request, const Limits& limits) const;
    // A transaction that writes nothing need not go through the log.
    static bool read_only(const TxnRequest& txn);
    Response read(const TxnRequest& txn) const;
    // Its keys are bounded like those that are put: a read keeps them while it waits.
    static Status check(const RangeRequest& request, const Limits& limits);

    Revision revision() const { return revision_; }
    // Reads and watches below are refused; 0: all history is there.
    Revision compacted() const { return compacted_; }
    std::uint64_t applied_index() const { return applied_index_; }
    std::int64_t time_millis() const { return time_millis_; }
    const LeaseTable& leases() const { return leases_; }
    // What the leader proposes when its clock has handed the lease out (LeaseClock::expired).
    LeaseRevokeRequest expiry(LeaseId id) const;
    const SessionTable& sessions() const { return sessions_; }
    // Keys with history, deleted ones included.
    std::size_t key_count() const { return index_.size(); }
    // Of all keys' chains.
    std::uint64_t record_count() const { return records_; }
    // What all records and leases count for; about the memory of the records.
    std::uint64_t bytes() const { return bytes_; }

    // The changes of all revisions from max(compacted(), 1) on, in order; before them those that are not collected yet.
    const ColdQueue<Change>& history() const { return history_; }
    // One of them, looked at: what is read of the history is read by this.
    const Change& change(std::size_t i) const {
        history_[i].require_whole();
        return history_[i];
    }
    // Where in it the first change of `from` or later stands.
    std::size_t history_position(Revision from) const;

    // Something that compaction has made invisible is still there.
    bool collecting() const { return collected_ < compacted_; }
    // Looks at up to so many records. Does nothing while somebody walks over the state (held()).
    void collect(std::size_t records);
    bool held() const { return walks_ > 0; }

    // Of what a reader at `revision` or above `compacted()` up to it could see: members with the same compacted() agree
    // on it whatever they have applied beyond. Costs a pass over all records; HashWalk does it in pieces.
    std::uint64_t hash(Revision revision) const;

  private:
    static constexpr std::size_t kCooledAStep = 64;

    friend class HashWalk;
    friend class SnapshotWriter;
    friend class SnapshotReader;
    friend class Transaction;

    struct Found {
        std::vector<const Record*> records;
        std::int64_t count = 0;
        bool more = false;
    };
    // What the range answers, but for the keys that `planned` (if any) touches.
    Found find(const RangeRequest& request, const Planned* planned) const;
    // Of a revision that may be read; a revision above all: with what is not committed yet.
    RangeResult range_at(const RangeRequest& request, const Limits& limits) const;

    Response execute(std::uint64_t index, const Command& command);
    Response execute(const PutRequest& put);
    Response execute(const DeleteRequest& request);
    Response execute(const TxnRequest& txn);
    Response execute(const CompactRequest& request);
    Response execute(std::uint64_t index, const LeaseGrantRequest& request);
    Response execute(const LeaseRevokeRequest& request);
    Response refuse(Status status) const;

    // A newer record has taken its place in the index: moves it to cold memory, and says where it is now.
    Record* settle(Record* record);
    Change* find_change(const Record* record);
    void drop(Record* record);
    void drop_below(Record* record);
    // Frees a deletion below compacted() that is its key's newest record there.
    void drop_tombstone(Record* record);

    // After a step of a walk, which has looked at more than is used.
    void cool() const { cold_.cool(kCooledAStep); }

    mutable ColdArena cold_;  // cooling changes nothing
    KeyIndex index_;
    ColdQueue<Change> history_;
    LeaseTable leases_;
    SessionTable sessions_;
    Revision revision_{1};
    Revision compacted_;
    std::uint64_t applied_index_ = 0;
    std::int64_t time_millis_ = 0;
    std::uint64_t bytes_ = 0;
    std::uint64_t records_ = 0;
    std::vector<const Record*> events_;

    Revision collected_;
    std::size_t boundary_ = 0;                // of the changes of compacted(), how many have been looked at
    std::unordered_set<Record*> tombstones_;  // below compacted(), with nothing above them there
    mutable unsigned walks_ = 0;              // under way: nothing is collected
};

// Store::hash in pieces, while the store goes on to apply commands.
class HashWalk {
  public:
    HashWalk(const Store& store, Revision revision);
    ~HashWalk();
    HashWalk(const HashWalk&) = delete;
    HashWalk& operator=(const HashWalk&) = delete;

    // Over up to so many records; false when all are done.
    bool next(std::size_t records);
    std::uint64_t digest() const;
    Revision revision() const { return revision_; }

  private:
    struct State;
    void add(const Record& record);

    const Store& store_;
    const Revision revision_;
    const Revision compacted_;
    const Record* rest_ = nullptr;  // of the key under way; cold, and stays while the walk is there
    bool at_boundary_ = false;      // that key has a record of the compaction's revision
    std::string next_key_;          // behind it, what comes next is not less
    std::unique_ptr<State> state_;
};

}  // namespace outrider::store
