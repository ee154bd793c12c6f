#include "control/agent/stream_reader.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "control/agent/wire.h"

namespace outrider::agent {
namespace {

std::vector<std::string> lines_of(StreamReader& reader) {
    std::vector<std::string> lines;
    for (;;) {
        const auto line = reader.next();
        if (!line || !*line) return lines;
        lines.emplace_back(**line);
    }
}

TEST(StreamReader, HandsOutWholeLinesOnly) {
    StreamReader reader(100);
    reader.add("{\"a\":1}\r\n\n{\"b\"");
    EXPECT_EQ(lines_of(reader), (std::vector<std::string>{"{\"a\":1}"}));
    EXPECT_EQ(reader.kept(), 4u);
    reader.add(":2}");
    EXPECT_TRUE(lines_of(reader).empty());
    reader.add("\n");
    EXPECT_EQ(lines_of(reader), (std::vector<std::string>{"{\"b\":2}"}));
    EXPECT_EQ(reader.kept(), 0u);
}

TEST(StreamReader, ALineThatIsTooLongIsTheEnd) {
    StreamReader reader(5);
    reader.add("12345\n123456");
    EXPECT_EQ(lines_of(reader), (std::vector<std::string>{"12345"}));
    EXPECT_FALSE(reader.next().ok());
    reader.add("\nok\n");
    EXPECT_FALSE(reader.next().ok());
    EXPECT_EQ(reader.kept(), 0u);
}

TEST(StreamReader, HowItIsCutDoesNotMatter) {
    Random random(3);
    std::string text;
    std::vector<std::string> expected;
    for (int i = 0; i < 200; ++i) {
        std::string line(random.below(40), static_cast<char>('a' + random.below(26)));
        text += line + "\n";
        if (!line.empty()) expected.push_back(line);
    }
    for (int round = 0; round < 50; ++round) {
        StreamReader reader(40);
        std::vector<std::string> lines;
        std::string_view rest = text;
        while (!rest.empty()) {
            const std::size_t size = std::min<std::size_t>(rest.size(), 1 + random.below(60));
            reader.add(rest.substr(0, size));
            rest.remove_prefix(size);
            for (std::string& line : lines_of(reader))
                lines.push_back(std::move(line));
        }
        ASSERT_EQ(lines, expected);
    }
}

TEST(Wire, RefusalsAreReadAndWhatIsNoneSaysSo) {
    const auto refused = refusal_from(
        400,
        R"({"error":"etcdserver: key is not provided","message":"etcdserver: key is not provided","code":3})");
    EXPECT_EQ(refused.code(), 3);
    EXPECT_EQ(refused.error(), "etcdserver: key is not provided");
    EXPECT_EQ(refused.message(), "etcdserver: key is not provided");
    const auto one_text = refusal_from(503, R"({"message":"etcdserver: no leader","code":14})");
    EXPECT_EQ(one_text.error(), "etcdserver: no leader");
    EXPECT_EQ(refusal_from(404, "Not Found\n").code(), 0);
    EXPECT_EQ(refusal_from(502, "").message(), "the endpoint answered with HTTP status 502");
    EXPECT_EQ(refusal_from(500, R"({"code":"many"})").code(), 0);
}

TEST(Wire, RequestsHaveTheGatewaysForm) {
    v3::PutRequest put;
    put.set_key(std::string("\x00\xff", 2));
    put.set_value("v");
    put.set_lease(9'007'199'254'740'993);
    EXPECT_EQ(to_json(put), R"({"key":"AP8=","value":"dg==","lease":"9007199254740993"})");
    v3::WatchLine line;
    EXPECT_TRUE(from_json(R"({"result":{"header":{"revision":"2"},"created":true,"news":[1]}})", line));
    EXPECT_TRUE(line.result().created());
    EXPECT_FALSE(from_json(R"({"result":)", line));
    EXPECT_FALSE(from_json(std::string(100'000, '['), line));
}

TEST(Wire, ThePrefixesEnd) {
    EXPECT_EQ(prefix_end("a/"), "a0");
    EXPECT_EQ(prefix_end(std::string("a\xff\xff")), "b");
    EXPECT_EQ(prefix_end("\xff"), std::string(1, '\0'));
    EXPECT_EQ(prefix_end(""), std::string(1, '\0'));
}

}  // namespace
}  // namespace outrider::agent
