#include "proxy/shared_body.h"

#include <string>

#include <gtest/gtest.h>

namespace outrider::proxy {
namespace {

TEST(SharedBody, PositionsCountFromTheFirstByte) {
    SharedBody body;
    body.append("abc");
    body.append("defg");
    EXPECT_EQ(body.begin(), 0u);
    EXPECT_EQ(body.end(), 7u);
    EXPECT_EQ(body.from(0, 100), "abcdefg");
    EXPECT_EQ(body.from(2, 3), "cde");
    EXPECT_EQ(body.from(7, 3), "");
}

TEST(SharedBody, WhatIsDroppedIsGoneAndPositionsStay) {
    SharedBody body;
    body.append("abcdefg");
    body.drop_before(3);
    EXPECT_EQ(body.begin(), 3u);
    EXPECT_EQ(body.size(), 4u);
    EXPECT_EQ(body.from(3, 2), "de");
    body.drop_before(2);  // already
    EXPECT_EQ(body.begin(), 3u);
    body.drop_before(100);  // no further than its end
    EXPECT_EQ(body.begin(), 7u);
    EXPECT_EQ(body.size(), 0u);
    body.append("hi");
    EXPECT_EQ(body.end(), 9u);
    EXPECT_EQ(body.from(8, 9), "i");
}

TEST(SharedBody, ALongStreamKeepsItsPlaceWhileItsBeginningGoes) {
    SharedBody body;
    std::uint64_t total = 0;
    for (int piece = 0; piece < 2000; ++piece) {
        body.append(std::string(1000, static_cast<char>('a' + piece % 26)));
        total += 1000;
        if (total > 5000) body.drop_before(total - 5000);
        ASSERT_EQ(body.end(), total);
        ASSERT_LE(body.size(), 5000u);
        ASSERT_EQ(body.from(total - 1, 1).front(), 'a' + piece % 26);
        ASSERT_EQ(body.from(body.begin(), 1).front(), 'a' + static_cast<int>((body.begin() / 1000) % 26));
    }
}

}  // namespace
}  // namespace outrider::proxy
