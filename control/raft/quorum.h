// Majorities. Any two of one configuration share a node, and so do those of two that differ by one voter (thesis 4.1).
#pragma once

#include <array>
#include <cstdint>

#include "control/raft/types.h"

namespace outrider::raft {

// Collects one number per voter and tells which is reached by a majority. On the stack: it runs for every answer.
class Quorum {
  public:
    // `majority` of the configuration's voters.
    explicit Quorum(std::size_t majority) : majority_(majority) {}

    void add(std::uint64_t value);
    // The largest v such that a majority has at least v; 0 when there are no voters.
    std::uint64_t reached() const;

  private:
    std::size_t majority_;
    std::size_t count_ = 0;
    std::array<std::uint64_t, kMembersMax> values_{};  // falling
};

constexpr std::size_t majority_of(std::size_t voters) {
    return voters / 2 + 1;
}

}  // namespace outrider::raft
