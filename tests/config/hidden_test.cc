#include "config/hidden.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_helpers.h"

namespace outrider::config {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

template <typename T>
MatchSettings with(T MatchSettings::*field, T value) {
    MatchSettings match;
    match.*field = std::move(value);
    return match;
}
MatchSettings any() {
    return {};
}
MatchSettings host(std::string h) {
    return with(&MatchSettings::host, std::move(h));
}
MatchSettings path(std::string p) {
    return with(&MatchSettings::path, std::move(p));
}
MatchSettings prefix(std::string p) {
    return with(&MatchSettings::path_prefix, std::move(p));
}
MatchSettings methods(std::vector<std::string> m) {
    return with(&MatchSettings::methods, std::move(m));
}
MatchSettings headers(std::vector<HeaderMatch> h) {
    return with(&MatchSettings::headers, std::move(h));
}

TEST(PrefixHolds, ForWholeSegments) {
    struct Row {
        const char* prefix;
        const char* path;
        bool holds;
    };
    const Row rows[] = {
        {"/pay", "/pay", true},   {"/pay", "/pay/x", true}, {"/pay", "/payments", false},
        {"/pay", "/", false},     {"/pay/", "/pay", false}, {"/pay/", "/pay/x", true},
        {"/pay/", "/pay/", true}, {"/", "/anything", true}, {"", "/anything", true},
        {"/pay", "/PAY", false},
    };
    for (const Row& row : rows) {
        EXPECT_EQ(prefix_holds(row.prefix, row.path), row.holds) << row.prefix << " " << row.path;
    }
}

TEST(Hides, WhenTheEarlierTakesEverythingTheLaterTakes) {
    struct Row {
        const char* what;
        MatchSettings earlier;
        MatchSettings later;
        bool hidden;
    };
    const Row rows[] = {
        {"anything hides anything", any(), any(), true},
        {"anything hides a host", any(), host("a.example"), true},
        {"a host does not hide anything", host("a.example"), any(), false},
        {"the same host", host("a.example"), host("a.example"), true},
        {"another host", host("a.example"), host("b.example"), false},
        {"a wildcard hides its sub-domain", host("*.example"), host("a.b.example"), true},
        {"a wildcard hides a narrower one", host("*.example"), host("*.b.example"), true},
        {"a wildcard does not hide its parent", host("*.example"), host("example"), false},
        {"a wildcard ends at a label", host("*.example"), host("counterexample"), false},
        {"a narrower wildcard does not hide", host("*.b.example"), host("*.example"), false},
        {"a name does not hide a wildcard", host("a.example"), host("*.example"), false},
        {"a prefix hides a path below", prefix("/a"), path("/a/b"), true},
        {"a prefix hides itself as path", prefix("/a"), path("/a"), true},
        {"a prefix hides a longer prefix", prefix("/a"), prefix("/a/b"), true},
        {"a prefix of other segments", prefix("/a"), prefix("/ab"), false},
        {"a longer prefix does not hide", prefix("/a/b"), prefix("/a"), false},
        {"a path does not hide a prefix", path("/a"), prefix("/a"), false},
        {"the same path", path("/a"), path("/a"), true},
        {"the root hides everything", prefix("/"), any(), true},
        {"a prefix does not hide anything", prefix("/a"), any(), false},
        {"more methods hide fewer", methods({"GET", "PUT"}), methods({"PUT"}), true},
        {"fewer methods do not", methods({"GET"}), methods({"GET", "PUT"}), false},
        {"methods do not hide all methods", methods({"GET"}), any(), false},
        {"fewer headers hide more", headers({{"X-A", "1"}}), headers({{"x-a", "1"}, {"X-B", "2"}}), true},
        {"more headers do not", headers({{"X-A", "1"}, {"X-B", "2"}}), headers({{"X-A", "1"}}), false},
        {"another value", headers({{"X-A", "1"}}), headers({{"X-A", "2"}}), false},
    };
    for (const Row& row : rows)
        EXPECT_EQ(hides(row.earlier, row.later), row.hidden) << row.what;
}

const char* const kListeners = R"([[listener]]
name = "in"
listen = "127.0.0.1:8080"
[[listener]]
name = "out"
listen = "127.0.0.1:8081"
)";

TEST(ConfigWarnings, AHiddenRouteNamesTheOneThatHidesIt) {
    const LoadResult result = parse_text(std::string(kListeners) + R"([[route]]
name = "all"
listener = "in"
respond = {}
[[route]]
name = "pay"
listener = "in"
match = { path_prefix = "/pay" }
respond = {}
[[route]]
name = "elsewhere"
listener = "out"
respond = {}
)");
    EXPECT_TRUE(result.settings);
    EXPECT_THAT(lines_of(result),
                ElementsAre("f.toml:11:1: warning: route[2]: route 'pay' is never taken: route 'all' "
                            "(line 7) takes all its requests"));
}

TEST(ConfigWarnings, WhatNobodyUsesIsNamed) {
    const LoadResult result = parse_text(std::string(kListeners) + R"([[route]]
listener = "in"
cluster = "a"
mirror = { cluster = "b" }
[[cluster]]
name = "a"
endpoints = ["a:80"]
[[cluster]]
name = "b"
endpoints = ["b:80"]
[[cluster]]
name = "c"
endpoints = ["c:80"]
)");
    EXPECT_TRUE(result.settings);
    EXPECT_THAT(
        lines_of(result),
        ElementsAre("f.toml:4:1: warning: listener[2]: listener 'out' has no route: every request gets 404",
                    "f.toml:17:1: warning: cluster[3]: cluster 'c' is used by no route"));
}

TEST(ConfigAddresses, OnesInEachOthersWayAreErrors) {
    struct Row {
        const char* first;
        const char* second;
        bool collide;
    };
    const Row rows[] = {
        {"127.0.0.1:80", "127.0.0.1:80", true},   {"127.0.0.1:80", "localhost:80", true},
        {"0.0.0.0:80", "127.0.0.1:80", true},     {"127.0.0.1:80", "0.0.0.0:80", true},
        {"[::1]:80", "[0:0::1]:80", true},        {"[::]:80", "[::1]:80", true},
        {"[::]:80", "0.0.0.0:80", false},         {"127.0.0.1:80", "127.0.0.2:80", false},
        {"127.0.0.1:80", "127.0.0.1:81", false},  {"127.0.0.1:0", "127.0.0.1:0", false},
        {"127.0.0.1:9901", "127.0.0.1:80", true},  // the default of admin.listen
    };
    for (const Row& row : rows) {
        const auto listener = [](const char* name, const char* listen) {
            return "[[listener]]\nname = \"" + std::string(name) + "\"\nlisten = \"" + listen +
                   "\"\n[[route]]\nlistener = \"" + name + "\"\nrespond = {}\n";
        };
        const LoadResult result = parse_text(listener("a", row.first) + listener("b", row.second));
        EXPECT_EQ(result.settings.has_value(), !row.collide) << row.first << " " << row.second;
        EXPECT_EQ(result.diagnostics.size(), row.collide ? 1u : 0u);
    }
    EXPECT_THAT(lines_of(parse_text(smallest_file() + "[admin]\nlisten = \"0.0.0.0:8080\"\n")),
                ElementsAre("f.toml:12:10: admin.listen: 0.0.0.0:8080 is taken by listener[1].listen "
                            "(127.0.0.1:8080, line 3)"));
}

}  // namespace
}  // namespace outrider::config
