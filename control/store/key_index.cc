#include "control/store/key_index.h"

#include <algorithm>

namespace outrider::store {

KeyIndex::Cursor KeyIndex::lower_bound(std::string_view key) const {
    // The reading of a cursor is const, its replace() is not: the store, which owns both, hands out neither.
    auto* self = const_cast<KeyIndex*>(this);
    const auto after =
        std::upper_bound(blocks_.begin(), blocks_.end(), key,
                         [](std::string_view k, const auto& block) { return k < block->slots[0]->key(); });
    if (after == blocks_.begin()) return {self, 0, 0};
    const auto block = static_cast<std::size_t>(after - blocks_.begin()) - 1;
    const Block& b = *blocks_[block];
    const auto* end = b.slots.data() + b.count;
    const auto* slot = std::lower_bound(b.slots.data(), end, key,
                                        [](const Record* r, std::string_view k) { return r->key() < k; });
    if (slot == end) return {self, block + 1, 0};
    return {self, block, static_cast<std::uint32_t>(slot - b.slots.data())};
}

KeyIndex::Cursor KeyIndex::find(std::string_view key) const {
    Cursor at = lower_bound(key);
    if (at.valid() && at.record()->key() != key) at.block_ = blocks_.size();
    return at;
}

void KeyIndex::split(Cursor& at) {
    const std::size_t block = at.block_;
    Block& full = *blocks_[block];
    // Behind the last key of all: a new block, since more such keys are likely to follow.
    const bool appends = block + 1 == blocks_.size() && at.slot_ == full.count;
    const std::uint32_t keep = appends ? full.count : full.count / 2;
    auto upper = std::make_unique<Block>();
    upper->count = full.count - keep;
    std::copy(full.slots.begin() + keep, full.slots.begin() + full.count, upper->slots.begin());
    full.count = keep;
    blocks_.insert(blocks_.begin() + static_cast<std::ptrdiff_t>(block) + 1, std::move(upper));
    if (at.slot_ > keep || appends) {
        ++at.block_;
        at.slot_ -= keep;
    }
}

void KeyIndex::insert(Cursor at, Record* record) {
    ++size_;
    if (blocks_.empty()) {
        blocks_.push_back(std::make_unique<Block>());
        at = {this, 0, 0};
    } else if (at.slot_ == 0 && at.block_ > 0) {
        // Between two blocks: the end of the one before, so that its keys stay below the next one's.
        --at.block_;
        at.slot_ = blocks_[at.block_]->count;
    }
    if (blocks_[at.block_]->count == kSlots) split(at);
    Block& b = *blocks_[at.block_];
    std::copy_backward(b.slots.begin() + at.slot_, b.slots.begin() + b.count, b.slots.begin() + b.count + 1);
    b.slots[at.slot_] = record;
    ++b.count;
}

void KeyIndex::erase(Cursor at) {
    --size_;
    Block& b = *blocks_[at.block_];
    std::copy(b.slots.begin() + at.slot_ + 1, b.slots.begin() + b.count, b.slots.begin() + at.slot_);
    if (--b.count == 0) {
        blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(at.block_));
        return;
    }
    if (b.count >= kSlots / 4) return;
    if (at.block_ + 1 < blocks_.size())
        merge_with_next(at.block_);
    else if (at.block_ > 0)
        merge_with_next(at.block_ - 1);
}

void KeyIndex::merge_with_next(std::size_t block) {
    Block& b = *blocks_[block];
    const Block& next = *blocks_[block + 1];
    // Not to the brim, or the next insert would split it again.
    if (b.count + next.count > kSlots * 3 / 4) return;
    std::copy(next.slots.begin(), next.slots.begin() + next.count, b.slots.begin() + b.count);
    b.count += next.count;
    blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(block) + 1);
}

}  // namespace outrider::store
