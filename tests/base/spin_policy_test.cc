// When a loop polls and when it sleeps, by tables: each row is what the loop knows before one poll.
#include "base/spin_policy.h"

#include <vector>

#include <gtest/gtest.h>

namespace outrider {
namespace {

using namespace std::chrono_literals;

struct Row {
    Duration at;
    SpinPolicy::Turn turn;
    bool polls;
};
SpinPolicy::Turn nothing(std::size_t awaited) {
    return {.awaited = awaited};
}
SpinPolicy::Turn events(std::size_t awaited) {
    return {.events = true, .awaited = awaited};
}
SpinPolicy::Turn answer(std::size_t awaited) {
    return {.events = true, .awaited = awaited, .answered = true};
}

void check(Duration most, const std::vector<Row>& rows) {
    SpinPolicy policy;
    policy.set_most(most);
    for (const Row& row : rows) {
        EXPECT_EQ(policy.polls(Instant(1h) + row.at, row.turn), row.polls)
            << "at " << row.at.count() << " ns";
    }
}

TEST(SpinPolicy, SleepsByDefault) {
    SpinPolicy policy;
    EXPECT_FALSE(policy.on());
    EXPECT_FALSE(policy.polls(Instant(1h), answer(1)));
}

TEST(SpinPolicy, PollsFromTheLastEventUntilItsTimeIsSpent) {
    check(50us, {{0us, events(1), true},
                 {20us, nothing(1), true},
                 {49us, nothing(1), true},
                 {50us, nothing(1), false},
                 {60us, nothing(1), false}});
}

TEST(SpinPolicy, EachEventBeginsAnew) {
    check(50us, {{0us, events(1), true},
                 {40us, events(1), true},
                 {80us, nothing(1), true},
                 {90us, nothing(1), false},
                 {1000us, events(1), true},
                 {1049us, nothing(1), true},
                 {1050us, nothing(1), false}});
}

TEST(SpinPolicy, SleepsWhenNothingIsExpected) {
    check(50us, {{0us, events(0), false},
                 {1us, nothing(0), false},
                 {2us, events(1), true},
                 {3us, events(0), false},
                 // Only an event begins it anew.
                 {4us, nothing(1), false}});
}

TEST(SpinPolicy, BehindTheLastAnswerTheNextRequestIsExpected) {
    check(50us, {{0us, events(1), true},
                 {20us, answer(0), true},
                 {69us, nothing(0), true},
                 {70us, nothing(0), false},
                 {80us, answer(0), true},
                 {90us, events(0), false},  // something else happened: nobody is about to ask again
                 {91us, nothing(0), false}});
}

TEST(SpinPolicy, WhatATurnTakesDoesNotCount) {
    check(50us, {{0us, events(2), true},
                 {200us, events(2), true},
                 {249us, nothing(2), true},
                 {250us, nothing(2), false}});
}

TEST(SpinPolicy, ChangedWhileItRuns) {
    SpinPolicy policy;
    policy.set_most(50us);
    EXPECT_TRUE(policy.polls(Instant(1h), events(1)));
    policy.set_most(10us);
    EXPECT_FALSE(policy.polls(Instant(1h) + 20us, nothing(1)));
    policy.set_most(0us);
    EXPECT_FALSE(policy.polls(Instant(1h) + 21us, events(1)));
}

}  // namespace
}  // namespace outrider
