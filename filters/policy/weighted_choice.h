// Splits traffic among weighted clusters (a route's `clusters = [...]`): pure, one random number
// in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace outrider::policy {

// The index whose share of [0, 2^64) contains `random`, shares in the order given and in proportion
// to weight. Nothing when all weights are 0; never an index of weight 0. The same number gives the
// same index, so a caller may feed a hash to keep a user on one side of a split. O(n): clusters of
// a route are few.
std::optional<std::size_t> weighted_choice(std::span<const std::uint32_t> weights, std::uint64_t random);

}  // namespace outrider::policy
