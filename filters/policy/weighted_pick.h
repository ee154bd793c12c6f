// Draws an index in proportion to integer weights in constant time: the alias method of Walker as
// Vose builds it (1991). Shared by the balancers that draw, and by their fallback when a choice is
// unusable.
//
// Invariant: draw() never returns an index whose weight is 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/random.h"
#include "filters/policy/usable.h"

namespace outrider::policy {

class WeightedPick {
  public:
    explicit WeightedPick(const std::vector<std::uint32_t>& weights);

    bool empty() const { return candidates_.empty(); }
    // Indices with a weight, ascending.
    const std::vector<std::uint32_t>& candidates() const { return candidates_; }

    // In proportion to weight. Requires !empty().
    std::size_t draw(Random& random) const {
        const std::uint64_t bits = random.next();
        const std::size_t slot = scale64(bits, candidates_.size());
        if (aliases_.empty()) return candidates_[slot];  // all weights alike
        // The low half decides within the slot; it is independent of the high bits that chose the
        // slot as long as there are fewer than 2^32 slots.
        const Alias& alias = aliases_[slot];
        return (bits & 0xffffffffU) < alias.keep_below ? candidates_[slot] : candidates_[alias.other];
    }

    // In proportion to weight among the usable ones other than `except`: some draws first, then one
    // pass over all, which is exact. Nothing when there is none.
    std::optional<std::size_t> draw_usable(Usable usable, Random& random,
                                           std::optional<std::size_t> except = {}) const;

  private:
    struct Alias {
        std::uint64_t keep_below = 0;  // of 2^32
        std::uint32_t other = 0;       // slot
    };
    void build_aliases(std::uint64_t total);

    std::vector<std::uint32_t> weights_;
    std::vector<std::uint32_t> candidates_;
    std::vector<Alias> aliases_;
};

}  // namespace outrider::policy
