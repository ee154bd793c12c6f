#include "filters/policy/weighted_pick.h"

#include <algorithm>

#include "base/check.h"

namespace outrider::policy {
namespace {

// With half of the weight usable, 16 draws miss once in 65,536; below that the exact pass is fair
// to pay.
constexpr int kDrawsBeforePass = 16;

}  // namespace

WeightedPick::WeightedPick(const std::vector<std::uint32_t>& weights) : weights_(weights) {
    require(weights.size() < (std::uint64_t{1} << 32), "a cluster has fewer than 2^32 endpoints");
    std::uint64_t total = 0;
    bool alike = true;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        if (weights[i] == 0) continue;
        candidates_.push_back(static_cast<std::uint32_t>(i));
        total += weights[i];
        alike = alike && weights[i] == weights[candidates_.front()];
    }
    if (!alike) build_aliases(total);
}

void WeightedPick::build_aliases(std::uint64_t total) {
    const std::size_t n = candidates_.size();
    std::vector<double> share(n);
    std::vector<std::uint32_t> small;
    std::vector<std::uint32_t> large;
    for (std::size_t slot = 0; slot < n; ++slot) {
        share[slot] = static_cast<double>(weights_[candidates_[slot]]) * static_cast<double>(n) /
                      static_cast<double>(total);
        (share[slot] < 1 ? small : large).push_back(static_cast<std::uint32_t>(slot));
    }
    constexpr double kFull = 4294967296.0;
    // Whatever is left over by rounding keeps its whole slot.
    aliases_.assign(n, Alias{.keep_below = std::uint64_t{1} << 32, .other = 0});
    while (!small.empty() && !large.empty()) {
        const std::uint32_t poor = small.back();
        const std::uint32_t rich = large.back();
        small.pop_back();
        aliases_[poor] = {.keep_below = static_cast<std::uint64_t>(share[poor] * kFull), .other = rich};
        share[rich] -= 1 - share[poor];
        if (share[rich] < 1) {
            large.pop_back();
            small.push_back(rich);
        }
    }
}

std::optional<std::size_t> WeightedPick::draw_usable(Usable usable, Random& random,
                                                     std::optional<std::size_t> except) const {
    if (candidates_.empty()) return std::nullopt;
    for (int i = 0; i < kDrawsBeforePass; ++i) {
        const std::size_t drawn = draw(random);
        if (drawn != except && usable(drawn)) return drawn;
    }
    // Weighted reservoir of one: after each element, it is the choice with probability weight / sum
    // so far.
    std::optional<std::size_t> chosen;
    std::uint64_t sum = 0;
    for (const std::uint32_t i : candidates_) {
        if (i == except || !usable(i)) continue;
        sum += weights_[i];
        if (random.below(sum) < weights_[i]) chosen = i;
    }
    return chosen;
}

}  // namespace outrider::policy
