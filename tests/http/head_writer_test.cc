#include "base/http/head_writer.h"

#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "base/http/http1_parser.h"

namespace outrider::http {
namespace {

// The fields of a request as they are sent on.
std::string forwarded(const std::string& lines) {
    const std::string request = "GET / HTTP/1.1\r\n" + lines + "\r\n";
    ParserScratch scratch;
    const ParserLimits limits;
    Http1Parser parser(Http1Parser::Side::kRequest, limits, scratch);
    EXPECT_EQ(parser.step(request).kind, Step::Kind::kHead);
    std::string out(HeadWriter::bound(parser.request()), '?');
    HeadWriter writer(out.data());
    writer.fields(parser.request());
    EXPECT_LE(writer.size(), out.size());
    return out.substr(0, writer.size());
}

TEST(HeadWriter, KeepsCanonicalLinesAsTheyAre) {
    EXPECT_EQ(forwarded("Host: a\r\nX-A: 1\r\nx-b: 2\r\n"), "Host: a\r\nX-A: 1\r\nx-b: 2\r\n");
}

TEST(HeadWriter, RebuildsOtherLines) {
    EXPECT_EQ(forwarded("Host:a\r\nX-A: \t1 \r\nX-B:\r\nX-C: \r\n"),
              "Host: a\r\nX-A: 1\r\nX-B: \r\nX-C: \r\n");
}

TEST(HeadWriter, KeepsTheOrderOfLinesThatAreRebuiltAndLinesThatAreNot) {
    EXPECT_EQ(forwarded("Host: a\r\nX-For: 1\r\nX-For:2\r\nX-For: 3\r\n"),
              "Host: a\r\nX-For: 1\r\nX-For: 2\r\nX-For: 3\r\n");
}

TEST(HeadWriter, LeavesOutDroppedLinesWherever) {
    EXPECT_EQ(forwarded("Keep-Alive: 1\r\nHost: a\r\nTE: x\r\nX: 1\r\nX:2\r\nConnection: y\r\n"),
              "Host: a\r\nX: 1\r\nX: 2\r\n");
}

}  // namespace
}  // namespace outrider::http
