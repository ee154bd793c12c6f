#include "control/node/read_rounds.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace outrider::node {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr Instant t0{};
constexpr Duration kPatience = 1s;

class ReadRoundsTest : public testing::Test {
  protected:
    static std::vector<std::uint64_t> numbers(const ReadRounds::Items& items) {
        std::vector<std::uint64_t> out;
        for (const ReadRounds::Item& item : items)
            out.push_back(item.sequence);
        std::sort(out.begin(), out.end());
        return out;
    }
    // A read that came, and was asked about.
    void read(std::uint64_t sequence, std::uint64_t context, Instant now) {
        rounds_.add({.sequence = sequence});
        rounds_.ask(context, now);
    }
    std::vector<std::uint64_t> anew(Instant now, Duration age = kPatience) {
        return numbers(rounds_.ask_anew(now, age, [this](const ReadRounds::Item& item) {
            return std::find(gone_.begin(), gone_.end(), item.sequence) == gone_.end();
        }));
    }
    std::vector<std::uint64_t> answered(std::uint64_t context) { return numbers(rounds_.answered(context)); }
    std::vector<std::uint64_t> refused(std::uint64_t context) { return numbers(rounds_.refused(context)); }

    ReadRounds rounds_;
    std::vector<std::uint64_t> gone_;
};

// A leader whose every answer takes longer than the follower waits: the answer to the first question comes when the third is out.
TEST_F(ReadRoundsTest, AnAnswerCountsThoughItsReadsHaveBeenAskedAboutAnew) {
    read(1, 10, t0);
    for (const std::uint64_t context : {11, 12}) {
        const Instant now = t0 + static_cast<std::int64_t>(context - 10) * kPatience;
        EXPECT_THAT(anew(now), IsEmpty());
        ASSERT_TRUE(rounds_.waiting());
        rounds_.ask(context, now);
    }
    EXPECT_THAT(answered(10), ElementsAre(1));
    EXPECT_THAT(answered(11), IsEmpty());
    EXPECT_THAT(answered(12), IsEmpty());
}

TEST_F(ReadRoundsTest, TheNewQuestionCountsWhenTheFirstWasLost) {
    read(1, 10, t0);
    anew(t0 + kPatience);
    rounds_.ask(11, t0 + kPatience);
    EXPECT_THAT(answered(11), ElementsAre(1));
    EXPECT_FALSE(rounds_.waiting());
}

TEST_F(ReadRoundsTest, AnAnswerSaysNothingOfReadsThatCameAfterItsQuestion) {
    read(1, 10, t0);
    anew(t0 + kPatience);
    read(2, 11, t0 + kPatience);
    EXPECT_THAT(answered(10), ElementsAre(1));
    EXPECT_THAT(answered(11), ElementsAre(2));
}

TEST_F(ReadRoundsTest, AreAskedAboutAnewOnlyWhenTheirLastQuestionIsOld) {
    read(1, 10, t0);
    anew(t0 + kPatience - 1ms);
    EXPECT_FALSE(rounds_.waiting());
    anew(t0 + kPatience);
    rounds_.ask(11, t0 + kPatience);
    anew(t0 + kPatience + kPatience / 2);
    EXPECT_FALSE(rounds_.waiting());
}

TEST_F(ReadRoundsTest, AnAnswerThatComesBeforeTheNewQuestionMakesItNeedless) {
    read(1, 10, t0);
    anew(t0 + kPatience);
    EXPECT_TRUE(rounds_.waiting());
    EXPECT_THAT(answered(10), ElementsAre(1));
    EXPECT_FALSE(rounds_.waiting());
}

TEST_F(ReadRoundsTest, ARefusalCountsWhenNoOtherQuestionIsOpen) {
    read(1, 10, t0);
    EXPECT_THAT(refused(10), ElementsAre(1));

    read(2, 11, t0);
    anew(t0 + kPatience);
    EXPECT_THAT(refused(11), IsEmpty());  // it waits for the next
    rounds_.ask(12, t0 + kPatience);
    anew(t0 + 2 * kPatience);
    rounds_.ask(13, t0 + 2 * kPatience);
    EXPECT_THAT(refused(12), IsEmpty());
    EXPECT_THAT(answered(13), ElementsAre(2));
}

TEST_F(ReadRoundsTest, WhatIsNotToBeAskedAgainComesBackAndIsNotAnswered) {
    rounds_.add({.sequence = 1});
    rounds_.add({.sequence = 2});
    rounds_.ask(10, t0);
    gone_ = {1};
    EXPECT_THAT(anew(t0, 0s), ElementsAre(1));
    EXPECT_THAT(answered(10), ElementsAre(2));
    read(3, 11, t0);
    gone_ = {3};
    EXPECT_THAT(anew(t0, 0s), ElementsAre(3));
    EXPECT_FALSE(rounds_.waiting());
    EXPECT_THAT(answered(11), IsEmpty());
}

}  // namespace
}  // namespace outrider::node
