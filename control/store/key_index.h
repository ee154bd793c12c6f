// The newest record of every key, in the order of the keys.
//
// A B+ tree of two levels: blocks of up to 126 pointers, and an array of the blocks. With 10 million keys the array has
// about 110,000 entries, and moving it for a new block costs less than the allocation of the records that filled it.
// A std::map would take 48 bytes a key beside the record; this takes 8 to 16, and keys that come in ascending order fill
// their blocks entirely. (Debian has absl::btree_set; it would be the only thing that needs Abseil.)
//
// Invariants: no block is empty; keys ascend within and across blocks, without duplicates.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "control/store/record.h"

namespace outrider::store {

class KeyIndex {
  public:
    // Valid until the next insert or erase.
    class Cursor {
      public:
        bool valid() const { return block_ < index_->blocks_.size(); }
        Record* record() const { return index_->blocks_[block_]->slots[slot_]; }
        void replace(Record* record) { index_->blocks_[block_]->slots[slot_] = record; }
        void next() {
            if (++slot_ < index_->blocks_[block_]->count) return;
            slot_ = 0;
            ++block_;
        }

      private:
        friend class KeyIndex;
        Cursor(KeyIndex* index, std::size_t block, std::uint32_t slot)
            : index_(index), block_(block), slot_(slot) {}
        KeyIndex* index_;
        std::size_t block_;
        std::uint32_t slot_;
    };

    // The first key that is not less; and the cursor is on `key` itself if valid and equal.
    Cursor lower_bound(std::string_view key) const;
    Cursor begin() const { return lower_bound({}); }
    // On the key's record; not valid when it is not there.
    Cursor find(std::string_view key) const;
    // The key must not be there. `at` is lower_bound(key).
    void insert(Cursor at, Record* record);
    void erase(Cursor at);
    std::size_t size() const { return size_; }

    // For what comes in order; last() and replace_last() need a key to be there.
    Record* last() const { return blocks_.back()->slots[blocks_.back()->count - 1]; }
    void replace_last(Record* record) { blocks_.back()->slots[blocks_.back()->count - 1] = record; }
    void append(Record* record) { insert({this, blocks_.size(), 0}, record); }

  private:
    static constexpr std::uint32_t kSlots = 126;
    struct Block {
        std::array<Record*, kSlots> slots;
        std::uint32_t count = 0;
    };

    // Makes room in a full block; the cursor's position moves along.
    void split(Cursor& at);
    // When both are nearly empty: what a mass deletion leaves behind.
    void merge_with_next(std::size_t block);

    std::vector<std::unique_ptr<Block>> blocks_;
    std::size_t size_ = 0;
};

}  // namespace outrider::store
