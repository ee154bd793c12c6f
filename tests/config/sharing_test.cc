// [route.collapse] and [route.batch]: values, contradictions, what is warned about.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_helpers.h"

namespace outrider::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string forwarding(std::string_view lines) {
    return file_with_route("cluster = \"app\"\n" + std::string(lines));
}
std::string batching(std::string_view keys) {
    return forwarding("match = { path = \"/orders\" }\nbatch = { " + std::string(keys) + " }");
}
constexpr std::string_view kBatch = "format = \"json-array\", path = \"/orders/bulk\"";

TEST(ConfigCollapse, AnEmptyTableTurnsItOn) {
    const LoadResult result = parse_text(forwarding("collapse = {}"));
    ASSERT_TRUE(result.settings) << testing::PrintToString(lines_of(result));
    EXPECT_EQ(result.settings->routes.at(0).collapse, CollapseSettings{});
    EXPECT_FALSE(parse_text(forwarding("")).settings->routes.at(0).collapse);
}

TEST(ConfigCollapse, VaryNamesFields) {
    const LoadResult result = parse_text(forwarding("collapse.vary = [\"Accept\", \"authorization\"]"));
    ASSERT_TRUE(result.settings) << testing::PrintToString(lines_of(result));
    EXPECT_THAT(result.settings->routes.at(0).collapse->vary, ElementsAre("Accept", "authorization"));
}

TEST(ConfigCollapse, MistakesInVaryAreNamed) {
    const std::pair<const char*, const char*> cases[] = {
        {"[\"*\"]", "'*' is no field"},
        {"[\"a b\"]", "a b"},
        {"[\"Range\"]", "never collapsed"},
        {"[\"cache-control\"]", "never collapsed"},
        {"[\"Content-Length\"]", "never collapsed"},
        {"[\"host\"]", "Host is always a part"},
        {"[\"Accept\", \"ACCEPT\"]", "listed twice"},
    };
    for (const auto& [vary, said] : cases) {
        const LoadResult result = parse_text(forwarding("collapse.vary = " + std::string(vary)));
        EXPECT_FALSE(result.settings) << vary;
        EXPECT_THAT(lines_of(result), ElementsAre(HasSubstr(said))) << vary;
    }
}

TEST(ConfigSharing, NeedsACluster) {
    for (const char* table :
         {"collapse = {}", "match.path = \"/o\"\nbatch = { format = \"ndjson\", path = \"/b\" }"}) {
        const LoadResult result = parse_text(file_with_route("respond = {}\n" + std::string(table)));
        EXPECT_THAT(lines_of(result), testing::Contains(HasSubstr("this route has no cluster"))) << table;
    }
}

TEST(ConfigBatch, FormatAndPathAreRequiredTheRestHasDefaults) {
    const LoadResult result = parse_text(batching(kBatch));
    ASSERT_TRUE(result.settings) << testing::PrintToString(lines_of(result));
    EXPECT_THAT(result.diagnostics, IsEmpty());
    BatchSettings expected;
    expected.path = "/orders/bulk";
    EXPECT_EQ(result.settings->routes.at(0).batch, expected);
    EXPECT_THAT(lines_of(parse_text(batching(""))), ElementsAre(HasSubstr("format"), HasSubstr("path")));
}

TEST(ConfigBatch, MistakesAreNamed) {
    const std::pair<const char*, const char*> cases[] = {
        {"format = \"csv\", path = \"/b\"", "csv"},
        {"format = \"ndjson\", path = \"b\"", "must begin with '/'"},
        {"format = \"ndjson\", path = \"/b?x=1\"", "without '?'"},
        {"format = \"ndjson\", path = \"/b\", max_items = 0", "max_items"},
        {"format = \"ndjson\", path = \"/b\", max_bytes = \"17MiB\"", "max_bytes"},
        {"format = \"ndjson\", path = \"/b\", linger = \"2s\"", "linger"},
        {"format = \"json-rpc\", path = \"/b\", envelope = true", "not for json-rpc"},
    };
    for (const auto& [keys, said] : cases) {
        const LoadResult result = parse_text(batching(keys));
        EXPECT_FALSE(result.settings) << keys;
        EXPECT_THAT(lines_of(result), ElementsAre(HasSubstr(said))) << keys;
    }
}

TEST(ConfigBatch, ARouteOfManyPathsIsWarnedAboutAndOneWithoutPostIsRefused) {
    const std::string batch = "\nbatch = { " + std::string(kBatch) + " }";
    EXPECT_THAT(lines_of(parse_text(forwarding("match.path_prefix = \"/o\"" + batch))),
                ElementsAre(HasSubstr("all calls go to batch.path")));
    EXPECT_THAT(lines_of(parse_text(forwarding("match = { path = \"/o\", methods = [\"PUT\"] }" + batch))),
                ElementsAre(HasSubstr("match.methods lets none of them")));
}

TEST(ConfigSharing, WhatIsWrittenReadsBackEqual) {
    for (const std::string& lines :
         {std::string("collapse = {}"), std::string("collapse.vary = [\"Accept\", \"Cookie\"]"),
          std::string("match.path = \"/o\"\nbatch = { format = \"json-rpc\", path = \"/rpc\", linger = "
                      "\"3ms\", max_items = 7, max_bytes = \"2KiB\", split_on_failure = false }"),
          std::string("match.path = \"/o\"\nbatch = { format = \"ndjson\", path = \"/b\", envelope = true "
                      "}")}) {
        const LoadResult first = parse_text(forwarding(lines));
        ASSERT_TRUE(first.settings) << testing::PrintToString(lines_of(first));
        const LoadResult second = parse_text(to_toml(*first.settings));
        ASSERT_TRUE(second.settings) << lines << testing::PrintToString(lines_of(second));
        EXPECT_EQ(*first.settings, *second.settings) << lines;
    }
}

}  // namespace
}  // namespace outrider::config
