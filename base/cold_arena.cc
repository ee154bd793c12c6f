#include "base/cold_arena.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace outrider {
namespace {

std::uintptr_t block_of(const char* piece) {
    return reinterpret_cast<std::uintptr_t>(piece) & ~(std::uintptr_t{ColdMemory::kBlockBytes} - 1);
}

}  // namespace

ColdArena::ColdArena(std::shared_ptr<ColdMemory> memory) : memory_(std::move(memory)) {}

ColdArena::~ColdArena() {
    for (const auto& [address, block] : blocks_)
        memory_->give_back(block.memory);
}

ColdArena::Block& ColdArena::add_block(std::size_t bytes) {
    const std::span<char> memory = memory_->take(bytes);
    Block& block = blocks_[block_of(memory.data())];
    block.memory = memory;
    return block;
}

char* ColdArena::take(std::size_t bytes) {
    const std::size_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (size > kPieceBytesMax) {
        cool(kCoolAgain);  // the one before it is full by now
        Block& block = add_block(size);
        block.pieces = 1;
        return block.memory.data();
    }
    if (current_ == nullptr || current_->memory.size() - used_ < size) {
        end_block();
        current_ = &add_block(ColdMemory::kBlockBytes);
        used_ = 0;
    }
    char* piece = current_->memory.data() + used_;
    used_ += size;
    ++current_->pieces;
    return piece;
}

void ColdArena::end_block() {
    if (current_ == nullptr) return;
    if (current_->pieces == 0) {
        const auto it = blocks_.find(block_of(current_->memory.data()));
        memory_->give_back(current_->memory);
        blocks_.erase(it);
    } else {
        memory_->cool(current_->memory);
    }
    current_ = nullptr;
    cool(kCoolAgain);
}

void ColdArena::cool(std::size_t blocks) {
    auto it = blocks_.upper_bound(cooled_);
    for (std::size_t i = std::min(blocks, blocks_.size()); i > 0; --i) {
        if (it == blocks_.end()) it = blocks_.begin();
        if (&it->second != current_) memory_->cool(it->second.memory);
        cooled_ = it->first;
        ++it;
    }
}

void ColdArena::give_back(const char* piece) {
    const auto it = blocks_.find(block_of(piece));
    require(it != blocks_.end() && it->second.pieces > 0, "a piece is given back once, to where it is from");
    if (--it->second.pieces > 0 || &it->second == current_) return;
    memory_->give_back(it->second.memory);
    blocks_.erase(it);
}

}  // namespace outrider
