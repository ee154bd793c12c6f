#include "control/store/lease_clock.h"

#include <gtest/gtest.h>

namespace outrider::store {
namespace {

using namespace std::chrono_literals;

constexpr Instant t0{1000s};

TEST(LeaseClock, HandsOutALeaseAtItsDeadlineAndNotBefore) {
    LeaseClock clock;
    EXPECT_FALSE(clock.next_deadline().has_value());
    clock.granted(t0, {7}, 10);
    EXPECT_EQ(clock.next_deadline(), t0 + 10s);
    EXPECT_TRUE(clock.expired(t0 + 10s - 1ns, 9).empty());
    EXPECT_EQ(clock.expired(t0 + 10s, 9), (std::vector<LeaseId>{{7}}));
}

TEST(LeaseClock, AKeepaliveGivesTheWholeTtlAgain) {
    LeaseClock clock;
    clock.granted(t0, {7}, 10);
    EXPECT_EQ(clock.keep_alive(t0 + 9s, {7}), 10);
    EXPECT_EQ(clock.seconds_left(t0 + 9s + 1ms, {7}), 9);
    EXPECT_TRUE(clock.expired(t0 + 18s, 9).empty());
    EXPECT_EQ(clock.keep_alive(t0, {8}), std::nullopt);
    EXPECT_EQ(clock.seconds_left(t0, {8}), -1);
}

TEST(LeaseClock, WhatHasExpiredStaysSo) {
    LeaseClock clock;
    clock.granted(t0, {7}, 10);
    EXPECT_EQ(clock.keep_alive(t0 + 10s, {7}), std::nullopt) << "late, though nobody has asked yet";
    clock.expired(t0 + 10s, 9);
    EXPECT_EQ(clock.keep_alive(t0 + 11s, {7}), std::nullopt);
    EXPECT_EQ(clock.seconds_left(t0 + 11s, {7}), -1);
}

TEST(LeaseClock, AnExpiryThatWasLostIsProposedAgain) {
    LeaseClock clock;
    clock.granted(t0, {7}, 10);
    EXPECT_EQ(clock.expired(t0 + 10s, 9).size(), 1U);
    EXPECT_TRUE(clock.expired(t0 + 11s, 9).empty());
    EXPECT_EQ(clock.next_deadline(), t0 + 13s);
    EXPECT_EQ(clock.expired(t0 + 13s, 9).size(), 1U);
    clock.revoked({7});
    EXPECT_TRUE(clock.expired(t0 + 99s, 9).empty());
    EXPECT_FALSE(clock.next_deadline().has_value());
}

TEST(LeaseClock, ANewLeaderGivesEveryLeaseItsTtlAndAnElection) {
    LeaseTable leases;
    leases.grant({1}, 10, 1);
    leases.grant({2}, 20, 1);
    LeaseClock clock;
    clock.granted(t0, {9}, 1);  // of an earlier time as leader
    clock.lead(t0, leases, 1s);
    EXPECT_EQ(clock.size(), 2U);
    EXPECT_TRUE(clock.expired(t0 + 10s, 9).empty());
    EXPECT_EQ(clock.expired(t0 + 11s, 9), (std::vector<LeaseId>{{1}}));
    clock.step_down();
    EXPECT_FALSE(clock.next_deadline().has_value());
}

TEST(LeaseClock, ExpiresInBatchesTheLongestOverdueFirst) {
    LeaseClock clock;
    for (std::int64_t id = 1; id <= 5; ++id)
        clock.granted(t0, {id}, 20 - id);
    EXPECT_EQ(clock.expired(t0 + 1min, 2), (std::vector<LeaseId>{{5}, {4}}));
    EXPECT_EQ(clock.expired(t0 + 1min, 9), (std::vector<LeaseId>{{3}, {2}, {1}}));
}

TEST(LeaseClock, TheLongestTtlDoesNotOverflow) {
    LeaseClock clock;
    clock.granted(t0, {7}, kLeaseTtlSecondsMax);
    EXPECT_GT(*clock.next_deadline(), t0 + 24h * 365 * 90);
}

}  // namespace
}  // namespace outrider::store
