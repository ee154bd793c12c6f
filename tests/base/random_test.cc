#include "base/random.h"

#include <vector>

#include <gtest/gtest.h>

namespace outrider {
namespace {

TEST(Random, SameSeedSameSequenceEverywhere) {
    Random a(42);
    Random b(42);
    for (int i = 0; i < 100; ++i) {
        EXPECT_EQ(a.next(), b.next());
    }
    // splitmix64's published first output for seed 0 fills the first word of the state.
    EXPECT_EQ(mix64(0x9e3779b97f4a7c15ULL), 0xe220a8397b1dcdafULL);
    EXPECT_NE(Random(1).next(), Random(2).next());
}

TEST(Random, BelowStaysBelowAndReachesEveryValue) {
    Random random(1);
    std::vector<int> seen(7);
    for (int i = 0; i < 70000; ++i) {
        ++seen.at(random.below(7));
    }
    for (const int count : seen) {
        EXPECT_NEAR(count, 10000, 500);
    }
    EXPECT_EQ(random.below(0), 0u);
    EXPECT_EQ(random.below(1), 0u);
}

TEST(Random, UnitIsInTheHalfOpenInterval) {
    Random random(3);
    double sum = 0;
    for (int i = 0; i < 10000; ++i) {
        const double x = random.unit();
        ASSERT_GE(x, 0);
        ASSERT_LT(x, 1);
        sum += x;
    }
    EXPECT_NEAR(sum / 10000, 0.5, 0.02);
}

}  // namespace
}  // namespace outrider
