// A queue of small values in cold memory: what was pushed long ago leaves the process until it is asked for again.
//
// The first value of every block is kept at hand, so that a search through the whole queue touches one block only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "base/cold_memory.h"

namespace outrider {

template <typename T>
class ColdQueue {
    static_assert(std::is_trivially_copyable_v<T> && ColdMemory::kBlockBytes >= sizeof(T));

  public:
    static constexpr std::size_t kInBlock = ColdMemory::kBlockBytes / sizeof(T);

    explicit ColdQueue(std::shared_ptr<ColdMemory> memory) : memory_(std::move(memory)) {}
    ~ColdQueue() {
        for (const Block& block : blocks_)
            give_back(block);
    }
    ColdQueue(const ColdQueue&) = delete;
    ColdQueue& operator=(const ColdQueue&) = delete;

    std::size_t size() const { return end_ - begin_; }
    bool empty() const { return begin_ == end_; }
    // By the place from the front.
    T& operator[](std::size_t i) { return *at(begin_ + i); }
    const T& operator[](std::size_t i) const { return *at(begin_ + i); }
    const T& front() const { return *at(begin_); }

    void push_back(const T& value) {
        if (end_ == blocks_.size() * kInBlock) {
            // The last few: they may have been looked at since they were full.
            for (std::size_t i = blocks_.size(); i > 0 && i + kCoolAgain > blocks_.size(); --i)
                memory_->cool(bytes(blocks_[i - 1]));
            blocks_.push_back({reinterpret_cast<T*>(memory_->take(ColdMemory::kBlockBytes).data()), value});
        }
        ++end_;
        new (at(end_ - 1)) T(value);
    }
    void pop_front() {
        if (++begin_ < kInBlock) return;
        give_back(blocks_.front());
        blocks_.pop_front();
        begin_ -= kInBlock;
        end_ -= kInBlock;
    }

    // The first place whose value is not `before`: all those that are, stand in front of the others.
    template <typename Before>
    std::size_t partition_point(Before before) const {
        const auto behind = std::partition_point(blocks_.begin(), blocks_.end(),
                                                 [&](const Block& block) { return before(block.first); });
        if (behind == blocks_.begin()) return 0;
        const std::size_t from = static_cast<std::size_t>(behind - blocks_.begin() - 1) * kInBlock;
        const T* const block = (behind - 1)->values;
        const std::size_t skipped = from < begin_ ? begin_ - from : 0;
        const T* const first = block + skipped;
        const T* const last = block + std::min(kInBlock, end_ - from);
        const T* const found = std::partition_point(first, last, before);
        return from + static_cast<std::size_t>(found - block) - begin_;
    }

  private:
    static constexpr std::size_t kCoolAgain = 8;
    struct Block {
        T* values;
        T first;
    };
    static std::span<char> bytes(const Block& block) {
        return {reinterpret_cast<char*>(block.values), ColdMemory::kBlockBytes};
    }
    void give_back(const Block& block) { memory_->give_back(bytes(block)); }
    T* at(std::size_t place) const { return blocks_[place / kInBlock].values + place % kInBlock; }

    std::shared_ptr<ColdMemory> memory_;
    std::deque<Block> blocks_;
    std::size_t begin_ = 0;  // in the first block
    std::size_t end_ = 0;
};

}  // namespace outrider
