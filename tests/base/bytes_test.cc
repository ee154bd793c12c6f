#include "base/bytes.h"

#include <gtest/gtest.h>

namespace outrider {
namespace {

TEST(PercentDecoded, ReplacesPairsOfDigits) {
    EXPECT_EQ(percent_decoded("a%2Fb%2f"), "a/b/");
    EXPECT_EQ(percent_decoded("%41"), "A");
    EXPECT_EQ(percent_decoded("a+b"), "a+b");
    EXPECT_EQ(percent_decoded(""), "");
    EXPECT_EQ(percent_decoded("%00"), std::string(1, '\0'));
}

TEST(PercentDecoded, RefusesAPercentSignAlone) {
    for (const std::string_view text : {"%", "%4", "a%", "%4g", "%g4", "%%41"})
        EXPECT_EQ(percent_decoded(text), std::nullopt) << text;
}

}  // namespace
}  // namespace outrider
