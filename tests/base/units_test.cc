#include "base/units.h"

#include <gtest/gtest.h>

namespace outrider {
namespace {
using namespace std::chrono_literals;

TEST(Duration, ReadsEveryUnit) {
    EXPECT_EQ(parse_duration("10us").value(), 10us);
    EXPECT_EQ(parse_duration("250ms").value(), 250ms);
    EXPECT_EQ(parse_duration("1.5s").value(), 1500ms);
    EXPECT_EQ(parse_duration("2m").value(), 2min);
    EXPECT_EQ(parse_duration("24h").value(), 24h);
    EXPECT_EQ(parse_duration("0").value(), 0s);
}

TEST(Duration, RefusesWhatHasNoUnitOrIsNoNumber) {
    for (const char* bad : {"", "10", "s", "-1s", "1 s", "1.s", "1e3s", "1sec", "99999999999d", "0x1s"}) {
        EXPECT_FALSE(parse_duration(bad).ok()) << bad;
    }
}

TEST(Duration, ShortestFormReadsBack) {
    for (const Duration d : {Duration(1500ms), Duration(2min), Duration(0s), Duration(1ns)}) {
        EXPECT_EQ(parse_duration(to_string(d)).value(), d) << to_string(d);
    }
}

TEST(Bytes, ReadsBinaryAndDecimalUnits) {
    EXPECT_EQ(parse_bytes("500B").value().value, 500u);
    EXPECT_EQ(parse_bytes("64KiB").value().value, 65536u);
    EXPECT_EQ(parse_bytes("1.5KiB").value().value, 1024u + 512u);
    EXPECT_EQ(parse_bytes("1KB").value().value, 1000u);
    EXPECT_EQ(parse_bytes("0").value().value, 0u);
    for (const char* bad : {"", "64", "64kib", "-1B", "9999999TiB"}) {
        EXPECT_FALSE(parse_bytes(bad).ok()) << bad;
    }
}

}  // namespace
}  // namespace outrider
