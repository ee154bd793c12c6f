#include "control/node/complaints.h"

#include <gtest/gtest.h>

namespace outrider::node {
namespace {

using namespace std::chrono_literals;

constexpr Instant kStart{100s};

TEST(Complaints, AProblemIsSaidAtOnceAndAgainAfterAWhile) {
    Complaints complaints;
    EXPECT_TRUE(complaints.due("refused", kStart));
    EXPECT_FALSE(complaints.due("refused", kStart));
    EXPECT_FALSE(complaints.due("refused", kStart + Complaints::kSaidAgain - 1ns));
    EXPECT_TRUE(complaints.due("refused", kStart + Complaints::kSaidAgain));
    EXPECT_FALSE(complaints.due("refused", kStart + Complaints::kSaidAgain + 1ns));
}

TEST(Complaints, ProblemsThatAlternateAreSaidOnceEach) {
    Complaints complaints;
    EXPECT_TRUE(complaints.due("refused", kStart));
    EXPECT_TRUE(complaints.due("silent", kStart + 1s));
    EXPECT_FALSE(complaints.due("refused", kStart + 2s));
    EXPECT_FALSE(complaints.due("silent", kStart + 3s));
}

TEST(Complaints, AProblemThatComesBackAfterAllWasWellIsSaid) {
    Complaints complaints;
    EXPECT_TRUE(complaints.due("refused", kStart));
    complaints.clear();
    EXPECT_TRUE(complaints.due("refused", kStart));
}

TEST(Complaints, OnlySoManyAreSaidWithinAWhile) {
    Complaints complaints;
    for (std::size_t i = 0; i < Complaints::kProblemsMax; ++i)
        EXPECT_TRUE(complaints.due(std::to_string(i), kStart));
    EXPECT_FALSE(complaints.due("one more", kStart));
    EXPECT_TRUE(complaints.due("one more", kStart + Complaints::kSaidAgain));
}

}  // namespace
}  // namespace outrider::node
