#include <gtest/gtest.h>
#include <uv.h>

#include "base/uv/loop.h"

namespace outrider::uv {
namespace {

TEST(EndText, OneEndReadsTheSameHoweverItIsMet) {
    for (const int met : {0, static_cast<int>(UV_EPIPE), static_cast<int>(UV_ECONNRESET)})
        EXPECT_EQ(end_text(met), "it closed the connection") << met;
    EXPECT_EQ(end_text(UV_ETIMEDOUT), error_text(UV_ETIMEDOUT));
}

}  // namespace
}  // namespace outrider::uv
