// Pieces of any size in cold memory: taken one behind the other, given back in any order. A block is given back when nothing of
// it is left, so pieces should go in about the order in which they came.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>

#include "base/cold_memory.h"

namespace outrider {

class ColdArena {
  public:
    static constexpr std::size_t kAlignment = 8;

    explicit ColdArena(std::shared_ptr<ColdMemory> memory);
    // Pieces that were not given back become invalid.
    ~ColdArena();
    ColdArena(const ColdArena&) = delete;
    ColdArena& operator=(const ColdArena&) = delete;

    // Aligned to kAlignment. 1 byte or more.
    char* take(std::size_t bytes);
    void give_back(const char* piece);
    // Of the blocks that are full, the next so many, in turns: they may have been looked at.
    void cool(std::size_t blocks);

    std::size_t blocks() const { return blocks_.size(); }

  private:
    // A larger piece gets blocks of its own. So at most half of the memory is wasted.
    static constexpr std::size_t kPieceBytesMax = ColdMemory::kBlockBytes;
    // With each block that is full.
    static constexpr std::size_t kCoolAgain = 8;

    struct Block {
        std::span<char> memory;
        std::size_t pieces = 0;
    };

    Block& add_block(std::size_t bytes);
    void end_block();

    std::shared_ptr<ColdMemory> memory_;
    std::map<std::uintptr_t, Block> blocks_;  // by address
    Block* current_ = nullptr;
    std::size_t used_ = 0;  // of the current one
    std::uintptr_t cooled_ = 0;
};

}  // namespace outrider
