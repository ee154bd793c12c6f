#include "filters/policy/weighted_choice.h"

#include "base/random.h"

namespace outrider::policy {

std::optional<std::size_t> weighted_choice(std::span<const std::uint32_t> weights, std::uint64_t random) {
    std::uint64_t total = 0;
    for (const std::uint32_t weight : weights) {
        total += weight;
    }
    if (total == 0) return std::nullopt;
    std::uint64_t point = scale64(random, total);
    std::size_t i = 0;
    while (point >= weights[i]) {
        point -= weights[i++];
    }
    return i;
}

}  // namespace outrider::policy
