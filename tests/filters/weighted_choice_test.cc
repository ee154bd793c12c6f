#include "filters/policy/weighted_choice.h"

#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();

TEST(WeightedChoice, SharesCoverTheWholeRangeInOrder) {
    const std::vector<std::uint32_t> weights = {1, 0, 3};
    EXPECT_EQ(weighted_choice(weights, 0), 0u);
    EXPECT_EQ(weighted_choice(weights, kMax / 4), 0u);
    EXPECT_EQ(weighted_choice(weights, kMax / 4 + 2), 2u);
    EXPECT_EQ(weighted_choice(weights, kMax), 2u);
}

TEST(WeightedChoice, NothingWithoutWeight) {
    EXPECT_EQ(weighted_choice({}, 5), std::nullopt);
    const std::vector<std::uint32_t> zeros = {0, 0};
    EXPECT_EQ(weighted_choice(zeros, kMax), std::nullopt);
}

TEST(WeightedChoice, FollowsWeights) {
    const std::vector<std::uint32_t> weights = {90, 9, 1};
    std::vector<int> counts(3);
    Random random(1);
    for (int i = 0; i < 100000; ++i) {
        ++counts.at(weighted_choice(weights, random.next()).value());
    }
    EXPECT_NEAR(counts[0], 90000, 500);
    EXPECT_NEAR(counts[1], 9000, 400);
    EXPECT_NEAR(counts[2], 1000, 150);
}

TEST(WeightedChoice, LargestWeightsDoNotOverflow) {
    const std::uint32_t most = std::numeric_limits<std::uint32_t>::max();
    const std::vector<std::uint32_t> weights(1000, most);
    EXPECT_EQ(weighted_choice(weights, kMax), 999u);
}

}  // namespace
}  // namespace outrider::policy
