// The keys of one store in memory: each key's state (idempotency.h), what must be written for each step, a bound on
// memory, expiry in the order of time, and what of the log is still needed. Pure: the caller appends records, carries
// out effects and arms one timer for next_due(). Owned by one thread.
//
// What the caller must do for "at most once" to hold
//   * Carry out the fields of an effect in their order: `persist` is durable before anything else of it, and before
//     anything of every effect that was returned later (so no duplicate sees an answer that a crash could undo).
//   * If a claim (the record of a Forward) could not be made durable, forward nothing: call released(), drop the record
//     that it returns, and answer verdict_without_store(). Whether the claim is in the log after all does not matter.
//     Any other record that could not be written may be dropped too: the log then says less than the table, and a
//     restart makes of it "unknown", never a second execution.
//   * After a restart, recover() every record of the log in its order, before the first arrival.
//   * Report each Forward once. released() only if no byte left in ANY attempt; cut() if in doubt.
//   * Look at lease_end again before a request leaves: the claim's record may have taken long to become durable.
//
// Invariants
//   * bytes() is at most bytes_max, except that recover() takes whatever the log holds. A new key that has no place is
//     answered StoreFull, an answer that has none is not kept (duplicates get Conflict). `reserve` of each key in
//     flight is set aside so that this is rare: refused before it runs is better than done and not replayable. What is
//     expired goes first; nothing else is ever evicted.
//   * A key is dropped only when its window is over, it never left, or an operator forgot it.
//   * A step takes O(log keys); advance() that for each of its steps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/time.h"
#include "base/units.h"
#include "filters/policy/idempotency.h"
#include "filters/policy/idempotency_record.h"

namespace outrider::policy {

struct TableLimits {
    Bytes bytes_max{256 << 20};  // at least a key and its reserve
    Bytes reserve{16 << 10};     // of the answer, while a key is in flight
    // Buckets from the start. A table that grows to a million keys otherwise stops for 0.1 to 0.3 s on its way.
    std::size_t keys_expected = 0;
};

struct ArrivalEffects {             // carried out in this order
    std::optional<Record> persist;  // durable BEFORE the request is forwarded
    Verdict verdict;
};

struct OwnerEffects {               // carried out in this order
    std::optional<Record> persist;  // durable BEFORE the answer's last byte goes to the client
    Settled settled = Settled::kTooLate;
    bool wake = false;  // those who wait for the key
};

struct ForgetEffects {              // carried out in this order
    std::optional<Record> persist;  // durable BEFORE the operator is told
    Forgotten forgotten{};
};

struct Advanced {
    std::vector<Digest> lapsed;  // leases have passed: wake those who wait for these keys
    std::size_t expired = 0;     // keys that are gone
};

struct KeyCounts {
    std::size_t in_flight = 0;  // also with a lease that has passed, until advance() sees it
    std::size_t done = 0;
    std::size_t unknown = 0;
    std::size_t all() const { return in_flight + done + unknown; }
};

struct OldestKey {
    Digest key;
    std::uint64_t position = 0;
    Instant claimed{};
};

class IdempotencyTable {
    struct Node;
    using Entry = std::pair<const Digest, Node>;

  public:
    // `secret`: random, of this process.
    IdempotencyTable(TableLimits limits, ClockAnchor anchor, std::uint64_t secret);
    IdempotencyTable(const IdempotencyTable&) = delete;
    IdempotencyTable& operator=(const IdempotencyTable&) = delete;

    ArrivalEffects arrive(const Digest& key, const Arrival& arrival, const IdempotencyPolicy& policy);
    OwnerEffects answered(const Digest& key, const Owner& owner, Answer answer, RecordAnswers record,
                          Instant now);
    OwnerEffects released(const Digest& key, const Owner& owner, Instant now);
    OwnerEffects cut(const Digest& key, const Owner& owner, Instant now);
    ForgetEffects forget(const Digest& key, Instant now);

    // Passed leases and windows that are over, at most `steps_max` of them; there are more if next_due() <= now.
    Advanced advance(Instant now, std::size_t steps_max);
    // When advance() has something to do; may lie in the past.
    std::optional<Instant> next_due() const;

    // The log's record of this key and generation lies at `position` and is durable. In the log's order. Without
    // effect if the key has gone on since.
    void located(const Digest& key, Generation generation, std::uint64_t position);
    // The key with the lowest position. Everything in the log before it is of no use any more; with none, everything
    // located so far.
    std::optional<OldestKey> oldest() const;
    // From the oldest position on, until `visit` says false.
    void visit_oldest(const std::function<bool(const Digest& key, const KeyState& state)>& visit) const;

    // A record read from the log, in its order. Takes about a microsecond with keys_expected set, 2 without.
    void recover(const Record& record, std::uint64_t position, Instant now);

    // Null: absent.
    const KeyState* find(const Digest& key) const;
    const KeyCounts& counts() const { return counts_; }
    std::uint64_t bytes() const { return bytes_; }

    // What a key takes without its answer, and an answer without its key.
    static std::uint64_t key_bytes();
    static std::uint64_t answer_bytes(const StoredResponse& response);

  private:
    struct Node {
        KeyState state;
        Entry* older = nullptr;  // by position; null in both: not located, or the only one
        Entry* newer = nullptr;
        std::uint64_t position = 0;
        std::size_t due_index = 0;  // in due_
        bool located = false;
    };

    Entry* lookup(const Digest& key);
    OwnerEffects settle(Entry& entry, const Owner& owner, OwnerStep step);
    bool make_room(std::uint64_t bytes, Instant now);
    bool step_due(Instant now, std::size_t& expired);
    void count(const KeyState& state, bool in);
    std::uint64_t held_bytes(const KeyState& state) const;
    void reinsert(Entry& entry);  // after a change of its state
    void erase(Entry& entry);

    void link_newest(Entry& entry, std::uint64_t position);
    void unlink(Entry& entry);

    // A binary heap by due(), each entry knowing its place.
    void due_add(Entry& entry);
    void due_remove(Entry& entry);
    void due_moved(Entry& entry);
    void due_place(std::size_t index, Entry* entry);
    void due_up(std::size_t index);
    void due_down(std::size_t index);

    TableLimits limits_;
    ClockAnchor anchor_;
    std::unordered_map<Digest, Node, DigestHash> entries_;
    std::vector<Entry*> due_;
    std::vector<Digest> lapsed_;  // not yet returned by advance()
    Entry* oldest_ = nullptr;
    Entry* newest_ = nullptr;
    KeyCounts counts_;
    std::uint64_t bytes_ = 0;
    Generation last_generation_;
};

}  // namespace outrider::policy
