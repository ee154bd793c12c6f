#include "base/http/kept_head.h"

#include <gtest/gtest.h>

#include "base/http/head_writer.h"

namespace outrider::http {
namespace {

std::string fields_of(KeptHead& kept) {
    std::string out(4096, '\0');
    HeadWriter writer(out.data());
    writer.fields(kept.head());
    out.resize(writer.size());
    return out;
}

TEST(KeptHead, GivesBackWhatWasKept) {
    const std::string text = "Created\r\nX-A: 1\r\nSet-Cookie: a=b; c\r\nset-cookie: d\r\n";
    KeptHead kept;
    ASSERT_TRUE(kept.parse(text, 201));
    EXPECT_EQ(kept.head().status, 201);
    EXPECT_EQ(kept.head().reason(), "Created");
    EXPECT_EQ(fields_of(kept), "X-A: 1\r\nSet-Cookie: a=b; c\r\nset-cookie: d\r\n");
    EXPECT_EQ(kept_head(kept.head()), text);
}

TEST(KeptHead, LeavesOutWhatIsDropped) {
    const std::string text = "OK\r\nX-A: 1\r\nX-B: 2\r\n";
    KeptHead kept;
    ASSERT_TRUE(kept.parse(text, 200));
    kept.head().fields[0].dropped = true;
    EXPECT_EQ(kept_head(kept.head()), "OK\r\nX-B: 2\r\n");
}

TEST(KeptHead, KnowsTheFieldsThatOutriderActsOn) {
    KeptHead kept;
    ASSERT_TRUE(kept.parse("OK\r\nContent-Type: a/b\r\n", 200));
    EXPECT_EQ(kept.head().value_of(FieldId::kContentType), "a/b");
}

TEST(KeptHead, TakesAnEmptyReasonAndNoFields) {
    KeptHead kept;
    ASSERT_TRUE(kept.parse("\r\n", 204));
    EXPECT_EQ(kept.head().reason(), "");
    EXPECT_EQ(kept.head().field_count, 0u);
}

// A record of a shared store is not believed: nothing of it may end a line or frame a message.
TEST(KeptHead, RefusesWhatIsNotAHead) {
    for (const std::string_view text :
         {"", "OK", "OK\r\nX-A: 1", "OK\r\nX-A 1\r\n", "OK\r\n: 1\r\n", "OK\r\nX A: 1\r\n",
          "OK\r\nX-A: 1\n2\r\n", "OK\r\nX-A: 1\r2\r\n", "O\nK\r\n", "OK\r\nTransfer-Encoding: chunked\r\n",
          "OK\r\nConnection: close\r\n", "OK\r\nupgrade: h2c\r\n", "OK\r\n\r\nbody\r\n", "OK\r\nX-A:1\r\n"}) {
        KeptHead kept;
        EXPECT_FALSE(kept.parse(text, 200)) << text;
    }
    KeptHead kept;
    EXPECT_FALSE(kept.parse(std::string_view("OK\r\nX: a\0b\r\n", 12), 200));
    EXPECT_FALSE(kept.parse("OK\r\n", 100));
    EXPECT_FALSE(kept.parse("OK\r\n", 0));
}

TEST(KeptHead, BoundsTheFields) {
    std::string text = "OK\r\n";
    for (int i = 0; i < 1001; ++i)
        text += "X: 1\r\n";
    KeptHead kept;
    EXPECT_FALSE(kept.parse(text, 200));
}

TEST(QueryValue, IsTheFirstOfThatName) {
    EXPECT_EQ(query_value("a=1&b=2&a=3", "a"), "1");
    EXPECT_EQ(query_value("a=1&b", "b"), "");
    EXPECT_EQ(query_value("ab=1&b=", "b"), "");
    EXPECT_EQ(query_value("ab=1", "b"), std::nullopt);
    EXPECT_EQ(query_value("", "b"), std::nullopt);
}

}  // namespace
}  // namespace outrider::http
