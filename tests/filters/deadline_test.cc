#include "filters/policy/deadline.h"

#include <string>

#include <gtest/gtest.h>

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

TEST(Deadline, IsOneToTenDigitsOfMilliseconds) {
    const struct {
        const char* value;
        Duration time;
    } rows[] = {{"0", 0s},       {"1", 1ms},           {"250", 250ms},       {"0000000250", 250ms},
                {"60000", 1min}, {"2592000000", 720h}, {"2592000001", 720h}, {"9999999999", 720h}};
    for (const auto& row : rows) {
        EXPECT_EQ(parse_deadline_ms(row.value), std::optional<Duration>(row.time)) << row.value;
    }
}

TEST(Deadline, AnyOtherTextIsNone) {
    const char* const rows[] = {"",    " ",   "-1",       "+1",          " 1",         "1 ",
                                "1.0", "1ms", "1e3",      "0x1",         "abc",        "1,2",
                                "1 2", "\t1", "\xd9\xa3", "00000000001", "99999999999"};
    for (const char* value : rows) {
        EXPECT_EQ(parse_deadline_ms(value), std::nullopt) << value;
    }
    EXPECT_EQ(parse_deadline_ms(std::string_view("1\0", 2)), std::nullopt);
}

TEST(Deadline, TheExchangeGetsTheSmallerTime) {
    const struct {
        Duration route;
        std::optional<Duration> incoming;
        std::optional<Duration> time;
    } rows[] = {{0s, std::nullopt, std::nullopt},
                {0s, 3s, 3s},
                {0s, 0s, 0s},
                {5s, std::nullopt, 5s},
                {5s, 3s, 3s},
                {5s, 5s, 5s},
                {5s, 9s, 5s},
                {5s, 0s, 0s}};
    for (const auto& row : rows) {
        EXPECT_EQ(exchange_time(row.route, row.incoming), row.time);
    }
}

TEST(Deadline, TheNextHopIsToldRoundedDownAndNeverBelowNothing) {
    const struct {
        Duration left;
        std::uint64_t millis;
    } rows[] = {{0s, 0},      {1ns, 0},           {999'999ns, 0}, {1ms, 1}, {1'999'999ns, 1},
                {15s, 15000}, {720h, 2592000000}, {-1ns, 0},      {-1h, 0}, {Duration::min(), 0}};
    for (const auto& row : rows) {
        EXPECT_EQ(deadline_header_ms(row.left), row.millis) << row.left.count();
    }
}

TEST(Deadline, WhatIsToldIsReadBackNoLonger) {
    for (const Duration left :
         {Duration(0s), Duration(1ms), Duration(1'500'000ns), Duration(15s), kDeadlineMax}) {
        const std::optional<Duration> read = parse_deadline_ms(std::to_string(deadline_header_ms(left)));
        ASSERT_TRUE(read);
        EXPECT_LE(*read, left);
        EXPECT_GT(*read + 1ms, left);
    }
}

}  // namespace
}  // namespace outrider::policy
