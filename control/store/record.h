// One version of one key, as small as it goes: a single allocation with the key and the value inside.
//
// Every key has a chain of these, the newest first; the newest of all keys are in KeyIndex, those since the last
// compaction in the store's log too. A record never changes but for `prev`, which compaction cuts.
//
// The newest of a key is on the heap. One that a newer takes the place of is moved to cold memory (base/cold_memory.h), where
// it gets two checks: cold memory may be a file's, and what a disk gives back is looked at before it is used. prev() looks at
// what a walk along a chain needs, fields() at the rest. There is nobody who could be told: the process ends, as it does when
// the log cannot be synced. The checks count in where the record stands, so that one of another place is not taken for it;
// only an earlier record of the same place, of a write that the disk has lost, is not noticed.
//
// In memory: prev (8 bytes), mod revision (8), flags (1); if cold the size of what is packed (4) and the check of all that (4);
// then packed: key length, key, number in its transaction, and for a value: mod - create revision, version, value length, value,
// lease (8, if any); and if cold the check of what is packed (4). Lengths and small numbers are LEB128 varints. A key of 20 bytes
// with a value of 100 takes 142 bytes, where a struct of two strings takes 216 in three allocations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/cold_arena.h"
#include "control/store/types.h"

namespace outrider::store {

// What does not hold when a process ends for what its disk gave back.
inline constexpr const char* kBrokenDisk =
    "history is read as it was written; is the disk of the data directory broken?";

class Record {
  public:
    struct Fields {
        std::string_view key;
        Revision mod;
        std::uint32_t sub = 0;  // the how-manieth change of its revision
        bool tombstone = false;
        // Of a value only.
        Revision create;
        std::int64_t version = 0;
        LeaseId lease;
        std::string_view value;
    };

    // On the heap.
    static Record* make(const Fields& fields, Record* prev);
    static Record* copy_to(ColdArena& cold, const Record& record);
    // `cold` is where it was copied to, if it was.
    static void destroy(ColdArena& cold, Record* record);

    // It is cold. Ends the process if it has not the link that was written there.
    Record* prev() const {
        if (prev_ != nullptr) prev_->require_link(mod_);
        return prev_;
    }
    void cut(Record* prev);
    Revision mod() const { return {mod_}; }
    bool tombstone() const { return (flags_ & kTombstone) != 0; }
    bool cold() const { return (flags_ & kPlace) == kCold; }
    // Cold, and with the link that was written there.
    bool whole_link() const;
    // What mod() and tombstone() say may be believed, or the process ends. Of what was not just taken from the index or prev().
    void require_whole() const {
        if ((flags_ & kPlace) != kOnHeap) require_link(mod_);
    }
    std::string_view key() const;
    // Ends the process if the record is cold and not what it was.
    Fields fields() const;
    KeyValue key_value() const;
    // What the record counts for in the database's size: the same on every member, whatever the allocator does.
    std::uint64_t charge() const;

  private:
    static constexpr std::uint8_t kTombstone = 1;
    static constexpr std::uint8_t kLeased = 2;
    // Far from each other and from most other bytes: what a disk gave back is not taken for what is on the heap.
    static constexpr std::uint8_t kPlace = 0xFC;
    static constexpr std::uint8_t kOnHeap = 0x54;
    static constexpr std::uint8_t kCold = 0xA8;

    Record() = default;
    static constexpr std::size_t kHead = 17;         // prev_, mod_, flags_
    static constexpr std::size_t kLink = kHead + 4;  // with the size
    static constexpr std::size_t kCheck = 4;
    void require_link(std::int64_t mod_max) const;
    void write_link_check();
    std::uint32_t link_check() const;
    std::uint32_t packed_check(std::size_t bytes) const;
    const unsigned char* unpack(Fields& fields) const;
    const unsigned char* begin() const { return reinterpret_cast<const unsigned char*>(this); }
    const unsigned char* packed() const { return begin() + (cold() ? kLink + kCheck : kHead); }

    Record* prev_ = nullptr;
    std::int64_t mod_ = 0;
    std::uint8_t flags_ = 0;
};

// The record that was the newest at a revision, from the newest of all on; nullptr if there was none.
inline const Record* at_revision(const Record* newest, Revision revision) {
    while (newest != nullptr && newest->mod() > revision)
        newest = newest->prev();
    return newest;
}

}  // namespace outrider::store
