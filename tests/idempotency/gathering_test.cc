#include "idempotency/gathering.h"

#include <gtest/gtest.h>

namespace outrider::idempotency {
namespace {

constexpr Duration kQuick = std::chrono::microseconds(5);
constexpr Duration kSlow = Gathering::kForeign + std::chrono::nanoseconds(1);

TEST(Gathering, BeginsAtOnceAfterASmallRoundAndAfterOneThatWaitedForNoDisk) {
    Gathering gathering;
    EXPECT_FALSE(gathering.begins()) << "the first";
    gathering.finished(Gathering::kWorthwhile - 1, true);
    EXPECT_FALSE(gathering.begins());
    gathering.finished(1000, false);
    EXPECT_FALSE(gathering.begins());
    gathering.finished(Gathering::kWorthwhile, true);
    EXPECT_TRUE(gathering.begins());
}

TEST(Gathering, YieldsAsLongAsThatBringsMoreAndWithinABound) {
    Gathering gathering;
    gathering.finished(64, true);
    ASSERT_TRUE(gathering.begins());
    EXPECT_TRUE(gathering.yielded(5, kQuick));
    EXPECT_FALSE(gathering.yielded(0, kQuick));
    ASSERT_TRUE(gathering.begins());
    int yields = 1;
    while (yields < 1000 && gathering.yielded(1, kQuick))
        ++yields;
    EXPECT_EQ(yields, Gathering::kYields);
}

TEST(Gathering, AYieldThatWentToOthersPausesThem) {
    Gathering gathering;
    gathering.finished(64, true);
    ASSERT_TRUE(gathering.begins());
    EXPECT_FALSE(gathering.yielded(50, kSlow));
    for (int i = 0; i < Gathering::kPause; ++i)
        EXPECT_FALSE(gathering.begins()) << i;
    EXPECT_TRUE(gathering.begins());
}

}  // namespace
}  // namespace outrider::idempotency
