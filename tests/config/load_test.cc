#include "config/load.h"

#include <chrono>
#include <cstdio>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config_helpers.h"

namespace outrider::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

TEST(ConfigLoad, SmallestUsefulFileGetsEveryDefault) {
    const LoadResult result = parse_text(R"([[listener]]
name   = "inbound"
listen = "0.0.0.0:8080"

[[route]]
listener = "inbound"
cluster  = "app"

[[cluster]]
name      = "app"
endpoints = ["127.0.0.1:3000"]
)");
    ASSERT_TRUE(result.settings) << testing::PrintToString(lines_of(result));
    EXPECT_THAT(result.diagnostics, IsEmpty());
    Settings expected;
    expected.node.name = "test-host";
    expected.listeners = {{.name = "inbound", .listen = {"0.0.0.0", 8080}}};
    RouteSettings route;
    route.name = "route-1";
    route.listener = "inbound";
    route.clusters = {{"app", 1}};
    expected.routes = {route};
    ClusterSettings cluster;
    cluster.name = "app";
    cluster.endpoints = {{"127.0.0.1", 3000}};
    expected.clusters = {cluster};
    EXPECT_EQ(*result.settings, expected);
}

TEST(ConfigLoad, NamesAllFiveMistakes) {
    const LoadResult result = parse_text(R"([runtime]
workers = "four"

[[listener]]
name = "inbound"
lisen = "0.0.0.0:8080"
header_timeout = "10 sec"

[[route]]
listener = "inbound"
match = { methods = ["post"] }
cluster = "ap"

[[cluster]]
name = "app"
endpoints = ["127.0.0.1:3000"]
)");
    EXPECT_FALSE(result.settings);
    EXPECT_THAT(
        lines_of(result),
        ElementsAre("f.toml:2:11: runtime.workers: expected an integer, found a string; write it without "
                    "quotes",
                    "f.toml:4:1: listener[1].listen: missing; it is required (listen = \"0.0.0.0:8080\")",
                    "f.toml:6:1: listener[1].lisen: unknown key (did you mean 'listen'?)",
                    StartsWith("f.toml:7:18: listener[1].header_timeout: '10 sec' is not a duration"),
                    "f.toml:11:22: route[1].match.methods[1]: 'post' is not a known HTTP method (did you "
                    "mean 'POST'?)",
                    "f.toml:12:11: route[1].cluster: there is no cluster named 'ap' (did you mean "
                    "'app'?)"));
}

TEST(ConfigLoad, AMistakeInEachOfFiveTablesIsFound) {
    const LoadResult result = parse_text(R"([log]
level = "verbose"
[drain]
timeout = 25
[[listener]]
name = "a"
listen = "localhost:80000"
[[listener]]
name = "a"
listen = "0.0.0.0:81"
[[route]]
listener = "b"
respond = { status = 99 }
[[cluster]]
name = "x"
balance = "maglev"
)");
    EXPECT_THAT(lines_of(result),
                ElementsAre(HasSubstr(":2:9: log.level: 'verbose' is not one of: trace, debug"),
                            HasSubstr(":4:11: drain.timeout: expected a duration such as \"250ms\", "
                                      "found an integer; a unit is needed: \"25s\""),
                            HasSubstr(":7:10: listener[1].listen: 'localhost:80000' has a bad port"),
                            HasSubstr(":9:8: listener[2].name: there is already a listener named "
                                      "'a' (line 5)"),
                            HasSubstr(":12:12: route[1].listener: there is no listener named 'b'"),
                            HasSubstr(":13:22: route[1].respond.status: 99 is out of range"),
                            HasSubstr(":14:1: cluster[1]: a cluster needs endpoints"),
                            HasSubstr(":16:11: cluster[1].balance: a hashing balancer needs")));
}

TEST(ConfigLoad, ATableBelongsToTheEntryAboveIt) {
    const LoadResult result = parse_text(R"([[listener]]
name = "in"
listen = "127.0.0.1:0"
[[route]]
listener = "in"
cluster = "app"
[route.match]
host = "A.example"
[route.match.headers]
X-B = "1"
X-A = "2"
[route.headers.request]
set = { X-C = "3" }
[[route]]
listener = "in"
respond.status = 404
[[cluster]]
name = "app"
endpoints = ["app:80"]
)");
    ASSERT_TRUE(result.settings) << testing::PrintToString(lines_of(result));
    const auto& routes = result.settings->routes;
    ASSERT_THAT(routes, SizeIs(2));
    EXPECT_EQ(routes[0].match.host, "a.example");
    EXPECT_THAT(routes[0].match.headers, ElementsAre(HeaderMatch{"X-B", "1"}, HeaderMatch{"X-A", "2"}));
    EXPECT_EQ(routes[0].request_headers.set.at(0).second, "3");
    EXPECT_EQ(routes[1].match, MatchSettings{});
    EXPECT_EQ(routes[1].name, "route-2");
    EXPECT_EQ(routes[1].respond->status, 404);
}

TEST(ConfigLoad, KeysOfPartsThatDoNotExistYetAreUnknown) {
    const char* const files[] = {"[route.collapse]\nmax = 1", "leader_guard = \"x\""};
    for (const char* lines : files) {
        const LoadResult result = parse_text(file_with_route("cluster = \"app\"\n" + std::string(lines)));
        ASSERT_THAT(result.diagnostics, SizeIs(1)) << lines;
        EXPECT_EQ(result.diagnostics[0].reason, "unknown key") << lines;
    }
    const char* const sections[] = {"[gossip]", "[control]", "[leadership.x]"};
    for (const char* section : sections) {
        const LoadResult result = parse_text(smallest_file() + section + "\nx = 1\n");
        EXPECT_THAT(lines_of(result), ElementsAre(HasSubstr("unknown key"))) << section;
    }
}

TEST(ConfigLoad, OneTableWhereSeveralAreMeantIsSaidAndStillRead) {
    const LoadResult result = parse_text("[listener]\nname = \"in\"\nlisten = \"nowhere\"\n");
    EXPECT_THAT(lines_of(result),
                ElementsAre("f.toml:1:1: listener: there can be several; write [[listener]], not "
                            "[listener]",
                            HasSubstr("f.toml:3:10: listener[1].listen: 'nowhere'")));
    EXPECT_THAT(lines_of(parse_text("[[node]]\nnme = \"x\"\n" + smallest_file())),
                ElementsAre("f.toml:1:1: node: there is only one; write [node], not [[node]]",
                            "f.toml:2:1: node.nme: unknown key (did you mean 'name'?)"));
}

TEST(ConfigLoad, ASyntaxErrorIsOneDiagnosticWithItsPlace) {
    const LoadResult result = parse_text("[runtime]\nworkers = \n[[listener]]\n");
    EXPECT_FALSE(result.settings);
    EXPECT_THAT(lines_of(result), ElementsAre(StartsWith("f.toml:2:11: not valid TOML: ")));
}

TEST(ConfigLoad, AHeaderThatBeginsLikeNoKeyIsASyntaxError) {
    for (const char* text : {"[=", "[[=", "[[[a]]]", "[&", "[", "[[", "[a", "[a.", "[.a]", "[]"}) {
        EXPECT_THAT(lines_of(parse_text(text)), ElementsAre(HasSubstr("not valid TOML"))) << text;
    }
}

TEST(ConfigLoad, LettersOutsideOfQuotesAreSyntaxErrors) {
    for (const char* text : {"\u00e4", "a = \u00e4", "a = 1\u00e4", "a\u0410 = 1", "[\u00e4]",
                             "a = [\"x\"\u00e4]", "a = \u20ac", "a = \U0001f40e"}) {
        EXPECT_THAT(lines_of(parse_text(text)), ElementsAre(HasSubstr("not valid TOML"))) << text;
    }
    // In strings and comments they are welcome, and so is a byte order mark.
    EXPECT_TRUE(
        parse_text("\ufeff# \u00e4\n" + file_with_route("respond = { body = \"\"\"\\\n \u00e4\"\"\" }"))
            .settings);
}

TEST(ConfigLoad, AnEmptyFileLacksAListener) {
    EXPECT_THAT(lines_of(parse_text("")), ElementsAre(HasSubstr("f.toml:1:1: listener: there is none")));
    EXPECT_THAT(lines_of(parse_text("listener = []")), ElementsAre(HasSubstr("is empty")));
}

TEST(ConfigLoad, BinaryAndHugeTextsAreOneClearDiagnostic) {
    EXPECT_THAT(lines_of(parse_text(std::string_view("a = 1\nb\0c", 9))),
                ElementsAre("f.toml:2:2: is not a text file (it has a NUL byte)"));
    EXPECT_THAT(lines_of(parse_text(std::string(4 * 1024 * 1024 + 1, '#'))),
                ElementsAre("f.toml: is larger than 4 MiB"));
    EXPECT_THAT(lines_of(parse_text("a = \"\xff\xfe\"")), ElementsAre(HasSubstr("not valid TOML")));
}

TEST(ConfigLoad, DeepNestingIsAnErrorNotACrash) {
    std::string dotted = "a";
    for (int i = 0; i < 500'000; ++i)
        dotted += ".a";
    EXPECT_THAT(lines_of(parse_text(dotted + " = 1")), ElementsAre(HasSubstr("f.toml:1:32: a key")));
    EXPECT_THAT(lines_of(parse_text("[" + dotted + "]")), ElementsAre(HasSubstr("a key of more than")));
    EXPECT_THAT(lines_of(parse_text("a = " + std::string(100'000, '['))),
                ElementsAre(HasSubstr("not valid TOML")));
    std::string inline_tables;
    for (int i = 0; i < 100'000; ++i)
        inline_tables += "{a=";
    EXPECT_THAT(lines_of(parse_text("a = " + inline_tables)), ElementsAre(HasSubstr("not valid TOML")));
}

// 4 MiB of the first pattern took 20 seconds: the library searches all arrays of tables for each header.
TEST(ConfigLoad, TablesWithoutEndAreAnErrorSoon) {
    for (const char* pattern : {"[[a]]\n[[a.b]]\n[[a.b.c]]\n", "[[a]]\nb.c = 1\nb.d = 1\n",
                                "[[a]]\nb = { c.d = 1, c.e = 2 }\n", "[[a]]\n[a.b.c]\n[a.d.e]\n[a.d]\n"}) {
        std::string text;
        while (text.size() < 3'600'000)
            text += pattern;
        EXPECT_THAT(lines_of(parse_text(text)),
                    ElementsAre(HasSubstr("more than 100000 table headers and dots in keys")))
            << pattern;
    }
}

// As many as may be, and every name is wrong: what is near is looked for only for some of them.
TEST(ConfigLoadAtScale, ThousandsOfMisspeltNamesTakeNoTime) {
    const std::string tail(50, 'x');
    std::string text = smallest_file();
    for (int i = 0; i < 9'990; ++i) {
        const std::string name = std::to_string(10'000 + i) + tail;
        text += "[[route]]\nlistener=\"in\"\ncluster=\"" + name + "a\"\n";
        text += "[[cluster]]\nname=\"" + name + "b\"\nendpoints=[\"h:1\"]\n";
    }
    const auto begin = std::chrono::steady_clock::now();
    const LoadResult result = parse_text(text);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    EXPECT_THAT(result.diagnostics, SizeIs(1001));
    EXPECT_THAT(result.diagnostics.front().reason, HasSubstr("did you mean '10000"));
    EXPECT_LT(took.count(), 20) << "it took minutes; a fraction of a second is usual";
}

// Each route is compared with all before it, each of its headers with each of theirs: half a minute, if all were.
TEST(ConfigLoadAtScale, RoutesThatAreNeverTakenAreLookedForWithinABound) {
    std::string headers;
    for (int i = 0; i < 13; ++i)
        headers += "X-A" + std::to_string(i) + "=\"1\",";
    std::string text = smallest_file();
    for (int i = 0; i < 9'990; ++i) {
        text += "[[route]]\nlistener=\"in\"\ncluster=\"app\"\nmatch={path=\"/a\",headers={" + headers +
                "X-B=\"" + std::to_string(i) + "\"}}\n";
    }
    text.insert(text.find("[[route]]"), "[[listener]]\nname=\"out\"\nlisten=\"127.0.0.1:1\"\n");
    text.replace(text.find("listener = \"in\""), 15, "listener = \"out\"");  // the first route hides none
    const LoadResult result = parse_text(text);
    EXPECT_TRUE(result.settings);
    EXPECT_THAT(lines_of(result),
                ElementsAre(HasSubstr("are ever taken was not looked at: there are too many")));
}

TEST(ConfigLoad, DotsInStringsAndCommentsAreNoKeys) {
    const std::string dots(100, '.');
    const std::string text = "# " + dots + "\n[node]\nservice = \"a\" # " + dots + "\n";
    EXPECT_TRUE(
        parse_text(text + file_with_route("respond = { body = \"" + dots + "\\\"" + dots + "\" }\n") + "")
            .settings);
    EXPECT_TRUE(
        parse_text(file_with_route("respond = { body = '''\n" + dots + "'" + dots + "''' }")).settings);
}

TEST(ConfigLoad, ThousandsOfMistakesAreCutWithANote) {
    std::string text;
    for (int i = 0; i < 5000; ++i)
        text += "key" + std::to_string(i) + " = 1\n";
    const LoadResult result = parse_text(text);
    EXPECT_THAT(result.diagnostics, SizeIs(1001));
    EXPECT_THAT(result.diagnostics.back().reason, HasSubstr("only the first 1000"));
}

TEST(ConfigLoad, ReasonsAreOnePrintableLine) {
    const LoadResult result =
        parse_text("\"bad\\u001b[31m\\nkey\" = 1\n[node]\naddress = \"a\\u0007b\"\n" + smallest_file());
    EXPECT_THAT(result.diagnostics, SizeIs(2));
    for (const std::string& line : lines_of(result)) {
        for (const char c : line)
            EXPECT_GE(c, ' ') << line;
    }
}

TEST(ConfigLoad, SourceIsTheTextBeforeSubstitution) {
    const std::string text = "[node]\nzone = \"${Z}\"\n" + smallest_file();
    EXPECT_EQ(parse_text(text, {{"Z", "a"}}).source, text);
}

class TemporaryFile {
  public:
    explicit TemporaryFile(const std::string& text) {
        const int fd = mkstemp(name_.data());
        EXPECT_GE(fd, 0);
        close(fd);
        std::ofstream(name_) << text;
    }
    ~TemporaryFile() { std::remove(name_.c_str()); }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    const std::string& name() const { return name_; }

  private:
    std::string name_ = testing::TempDir() + "outrider-config-XXXXXX";
};

TEST(ConfigLoadFile, ReadsAFileAndNamesTheNodeAfterTheHost) {
    const TemporaryFile file(smallest_file());
    const LoadResult result = load_file(file.name());
    ASSERT_TRUE(result.settings);
    EXPECT_EQ(result.source, smallest_file());
    EXPECT_FALSE(result.settings->node.name.empty());
}

TEST(ConfigLoadFile, WhatCannotBeReadIsOneDiagnostic) {
    const std::string missing = testing::TempDir() + "outrider-no-such-file.toml";
    EXPECT_THAT(lines_of(load_file(missing)),
                ElementsAre(missing + ": cannot be read: No such file or directory"));
    EXPECT_THAT(lines_of(load_file(testing::TempDir())),
                ElementsAre(HasSubstr("cannot be read: Is a directory")));
    const TemporaryFile huge(std::string(5 * 1024 * 1024, '#'));
    EXPECT_THAT(lines_of(load_file(huge.name())), ElementsAre(HasSubstr("larger than 4 MiB")));
}

TEST(ConfigLoadFile, TheExampleIsValidWithoutAWarning) {
    const LoadResult result = load_file(std::string(OUTRIDER_EXAMPLES) + "/sidecar.toml");
    EXPECT_TRUE(result.settings);
    EXPECT_THAT(lines_of(result), IsEmpty());
}

// Every prefix of a file, and every file with one byte garbled, parses to an answer.
TEST(ConfigLoad, TruncatedAndGarbledFilesNeverCrash) {
    const std::string whole = load_file(std::string(OUTRIDER_EXAMPLES) + "/sidecar.toml").source;
    ASSERT_FALSE(whole.empty());
    const auto answers = [](const std::string& text) {
        const LoadResult result = parse_text(text);
        EXPECT_TRUE(result.settings || !result.diagnostics.empty());
    };
    for (std::size_t n = 0; n < whole.size(); n += 3)
        answers(whole.substr(0, n));
    constexpr std::string_view kGarbage = "\"'[]{}=.,#\n\\$ \xff";
    for (std::size_t n = 0; n < whole.size(); n += 2) {
        std::string garbled = whole;
        garbled[n] = kGarbage[(n / 2) % kGarbage.size()];
        answers(garbled);
    }
}

}  // namespace
}  // namespace outrider::config
