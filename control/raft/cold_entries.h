// Entries of the log that everybody should have by now: applied here, and kept for followers that lag. In cold memory, one behind the
// other, and with a check each, since a follower must never be sent what a broken disk made of one: the process ends instead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/cold_memory.h"
#include "control/raft/types.h"

namespace outrider::raft {

// By their place from the front, from 0 on.
class ColdEntries {
  public:
    explicit ColdEntries(std::shared_ptr<ColdMemory> memory) : memory_(std::move(memory)) {}
    ~ColdEntries() { clear(); }
    ColdEntries(const ColdEntries&) = delete;
    ColdEntries& operator=(const ColdEntries&) = delete;

    std::uint64_t size() const { return end_ - begin_; }
    Entry at(std::uint64_t place) const;
    Term term(std::uint64_t place) const;
    // The room that it takes, told without looking at it.
    std::uint64_t bytes(std::uint64_t place) const;

    void push_back(const Entry& entry);
    void pop_front(std::uint64_t count);
    // Leaves so many.
    void truncate(std::uint64_t size);
    void clear();

  private:
    static constexpr std::size_t kCoolAgain = 4;
    struct Header;
    struct Block {
        std::span<char> memory;
        std::uint64_t first = 0;  // the number of its first entry; numbers are never used again
        std::size_t used = 0;
        std::vector<std::uint32_t> offsets;
    };
    const Block& block_of(std::uint64_t number) const;
    // Where its data is.
    const char* read(std::uint64_t number, Header& header) const;
    char* room_for(std::size_t bytes);

    std::shared_ptr<ColdMemory> memory_;
    std::deque<Block> blocks_;
    std::uint64_t begin_ = 0;
    std::uint64_t end_ = 0;
    std::size_t cooled_ = 0;
    std::map<std::uint64_t, ConfigurationRef> configurations_;  // by number, of configuration entries
};

}  // namespace outrider::raft
