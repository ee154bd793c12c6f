// [route.idempotency] and [store.NAME]: values, contradictions, what is warned about.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_helpers.h"

namespace outrider::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kMemoryStore = "[store.s]\nkind = \"memory\"\n";

// `lines` of the route, with a store "s" beside it; they begin at line 9.
std::string with_memory(std::string_view lines) {
    return file_with_route("name = \"pay\"\ncluster = \"app\"\n" + std::string(lines)) + kMemoryStore;
}
// `keys` of a table that is right otherwise, on line 9.
std::string keyed(std::string_view keys) {
    return with_memory("idempotency = { store = \"s\"" + std::string(keys.empty() ? "" : ", ") +
                       std::string(keys) + " }");
}
std::string route_with(std::string_view lines) {
    return with_memory(std::string(lines) + "\n[route.idempotency]\nstore = \"s\"");
}
// A store named "s" with these lines, used by a route; they begin at line 15.
std::string storing(std::string_view lines) {
    return file_with_route("name = \"pay\"\ncluster = \"app\"\nidempotency = { store = \"s\" }") +
           "\n[store.s]\n" + std::string(lines) + "\n";
}
std::string in_redis(std::string_view url) {
    return storing("kind = \"redis\"\nurl = \"" + std::string(url) + "\"");
}

IdempotencySettings idempotency_of(const std::string& file) {
    const LoadResult result = parse_text(file);
    EXPECT_TRUE(result.settings) << testing::PrintToString(lines_of(result));
    if (!result.settings || !result.settings->routes.at(0).idempotency) return {};
    return *result.settings->routes[0].idempotency;
}
StoreSettings store_of(const std::string& file) {
    const LoadResult result = parse_text(file);
    EXPECT_TRUE(result.settings) << testing::PrintToString(lines_of(result));
    return result.settings && !result.settings->stores.empty() ? result.settings->stores[0] : StoreSettings{};
}

TEST(ConfigIdempotency, OnlyAStoreIsRequiredAndTheRestHasDefaults) {
    IdempotencySettings expected;
    expected.store = "s";
    expected.scope = {{ScopeKind::kHeader, "Authorization", "header:Authorization"}};
    EXPECT_EQ(idempotency_of(keyed("")), expected);
    EXPECT_EQ(expected.header, "Idempotency-Key");
    EXPECT_EQ(expected.methods, (std::vector<std::string>{"POST", "PATCH"}));
    EXPECT_EQ(expected.window, Duration(24h));
    EXPECT_EQ(expected.wait_timeout, Duration(10s));
    EXPECT_FALSE(expected.require);
    const LoadResult plain = parse_text(smallest_file());
    ASSERT_TRUE(plain.settings);
    EXPECT_FALSE(plain.settings->routes[0].idempotency);
    EXPECT_THAT(plain.settings->stores, IsEmpty());
}

TEST(ConfigIdempotency, EveryKeyIsRead) {
    const IdempotencySettings s = idempotency_of(with_memory(R"([route.idempotency]
header = "X-Key"
syntax = "strict"
require = true
methods = ["PUT", "DELETE"]
scope = ["header:X-User", "query:tenant", "source"]
window = "30d"
store = "s"
in_flight = "wait"
wait_timeout = "5m"
max_request = "16MiB"
max_response = "0"
on_store_error = "forward"
on_unknown = "reexecute"
record = "2xx-4xx"
policy_url = "https://api.example/keys#retry"
)"));
    IdempotencySettings expected;
    expected.header = "X-Key";
    expected.syntax = KeySyntax::kStrict;
    expected.require = true;
    expected.methods = {"PUT", "DELETE"};
    expected.scope = {{ScopeKind::kHeader, "X-User", "header:X-User"},
                      {ScopeKind::kQuery, "tenant", "query:tenant"},
                      {ScopeKind::kSource, "", "source"}};
    expected.window = 30 * 24h;
    expected.store = "s";
    expected.wait_timeout = 5min;
    expected.max_request = Bytes{16 << 20};
    expected.max_response = Bytes{0};
    expected.on_store_error = OnStoreError::kForward;
    expected.on_unknown = OnUnknown::kReexecute;
    expected.record = RecordAnswers::kBelow500;
    expected.policy_url = "https://api.example/keys#retry";
    EXPECT_EQ(s, expected);
}

TEST(ConfigIdempotency, Values) {
    check(keyed,
          {
              {"header = \"X Y\"", "f.toml:9:39: route[1].idempotency.header: 'X Y' is not a header name"},
              {"header = \"transfer-Encoding\"", "transfer-Encoding cannot carry a key: it frames messages"},
              {"header = \"Connection\"", "Connection cannot carry a key"},
              {"header = \"Host\"", "Host cannot carry a key"},
              {"header = \"\"", "'' is not a header name"},
              {"syntax = \"stict\"", "'stict' is not one of: strict, lenient (did you mean 'strict'?)"},
              {"require = \"true\"", "expected true or false, found a string; write it without quotes"},
              {"methods = []", "route[1].idempotency.methods: is empty; give at least one element"},
              {"methods = [\"POST\", \"post\"]",
               "f.toml:9:49: route[1].idempotency.methods[2]: 'post' is not a known HTTP"},
              {"methods = [\"*\"]", "methods[1]: '*' is not a method; list those that take keys"},
              {"methods = [\"CONNECT\"]", "CONNECT is not forwarded"},
              {"methods = \"POST\"", "expected an array of strings"},
              {"scope = [\"header:A\", \"header:B\", \"query:c\", \"source\", \"query:d\", \"query:e\", "
               "\"query:f\", \"query:g\"]",
               ""},
              {"scope = [\"query:1\", \"query:2\", \"query:3\", \"query:4\", \"query:5\", \"query:6\", "
               "\"query:7\", \"query:8\", "
               "\"query:9\"]",
               "scope: has more than 8 elements"},
              {"scope = [\"source\", \"cookie:sid\"]",
               "scope[2]: 'cookie:sid' does not say who the caller is (header:NAME"},
              {"scope = [\"header:\"]", "'header:' does not say who"},
              {"scope = [\"query:a=b\"]", "'query:a=b' does not say who"},
              {"scope = [\"source:x\"]", "'source:x' does not say who"},
              {"scope = [\"header:Connection\"]", "Connection says nothing about who the caller is"},
              {"window = \"1s\", max_request = \"0\"",
               "warning: route[1].idempotency.window: is below the route's timeout (5m)"},
              {"window = \"999ms\"", "999ms is out of range (1s to 30d)"},
              {"window = \"31d\"", "31d is out of range (1s to 30d)"},
              {"in_flight = \"waits\"", "'waits' is not one of: wait, conflict (did you mean 'wait'?)"},
              {"wait_timeout = \"1ms\"", ""},
              {"wait_timeout = \"0s\"", "0s is out of range (1ms to 5m)"},
              {"wait_timeout = \"301s\"", "301s is out of range (1ms to 5m)"},
              {"max_request = \"17MiB\"", "17MiB is out of range (0B to 16MiB)"},
              {"max_response = \"17MiB\"", "17MiB is out of range (0B to 16MiB)"},
              {"max_response = 5", "a unit is needed: \"5B\""},
              {"on_store_error = \"forwrd\"",
               "'forwrd' is not one of: reject, forward (did you mean 'forward'?)"},
              {"on_unknown = \"rexecute\"",
               "'rexecute' is not one of: reject, reexecute (did you mean 'reexecute'?)"},
              {"record = \"2xx\"", "'2xx' is not one of: all, 2xx-4xx (did you mean '2xx-4xx'?)"},
              {"policy_url = \"\"", ""},
              {"policy_url = \"http://a\"", ""},
              {"policy_url = \"api.example/keys\"", "'api.example/keys' is not a URL"},
              {"policy_url = \"https://\"", "'https://' is not a URL"},
              {"policy_url = \"https://a/<b>\"", "is not a URL"},
              {"policy_url = \"https://a b\"", "is not a URL"},
              {"waiting_timeout = \"1s\"", "unknown key (did you mean 'wait_timeout'?)"},
          });
    check(with_memory,
          {{"idempotency = {}",
            "f.toml:9:15: route[1].idempotency.store: missing; it is required (store = \"local\""}});
}

TEST(ConfigIdempotency, EverySettingThatGivesUpAPartOfThePromiseIsPointedOut) {
    check(keyed,
          {
              {"on_unknown = \"reexecute\"",
               "f.toml:9:43: warning: route[1].idempotency.on_unknown: with \"reexecute\" a request may run "
               "twice"},
              {"record = \"2xx-4xx\"",
               "f.toml:9:39: warning: route[1].idempotency.record: with \"2xx-4xx\" a request may run twice"},
              {"on_store_error = \"forward\"",
               "f.toml:9:47: warning: route[1].idempotency.on_store_error: with \"forward\" no key is "
               "protected"},
              {"scope = []",
               "f.toml:9:38: warning: route[1].idempotency.scope: is empty: keys are shared by all callers"},
              {"on_unknown = \"reject\", record = \"all\", on_store_error = \"reject\"", ""},
          });
    check(storing,
          {{"kind = \"log\"\npath = \"/k\"\nsync = \"none\"",
            "f.toml:17:8: warning: store.s.sync: with \"none\" the keys of the last moments are lost"},
           {"kind = \"log\"\npath = \"/k\"\nsync = \"group\"", ""},
           {"kind = \"memory\"", ""}});
}

TEST(ConfigIdempotency, WhatHasNoEffectIsPointedOut) {
    check(keyed,
          {
              {"in_flight = \"conflict\", wait_timeout = \"1s\"",
               "warning: route[1].idempotency.wait_timeout: has no effect"},
              {"in_flight = \"conflict\"", ""},
              {"methods = [\"POST\", \"POST\"]",
               "warning: route[1].idempotency.methods: 'POST' is listed twice"},
              {"methods = [\"GET\"]",
               "warning: route[1].idempotency.methods: GET is safe to repeat without a key"},
              {"methods = [\"HEAD\"]", "HEAD is safe"},
              {"methods = [\"OPTIONS\"]", "OPTIONS is safe"},
              {"methods = [\"TRACE\"]", "TRACE is safe"},
              {"methods = [\"PUT\", \"DELETE\"]", ""},
              {"scope = [\"header:x-user\", \"header:X-User\"]", "scope: 'header:X-User' is listed twice"},
              {"scope = [\"source\", \"source\"]", "scope: 'source' is listed twice"},
              {"scope = [\"query:u\", \"query:U\"]", ""},
          });
    check(route_with, {
                          {"match = { methods = [\"GET\", \"PUT\"] }",
                           "warning: route[1].idempotency.methods: has no effect: match.methods lets none of "
                           "them come here"},
                          {"match = { methods = [\"GET\", \"POST\"] }", ""},
                      });
}

TEST(ConfigIdempotency, TheRoutesTimeoutBoundsEverything) {
    check(route_with,
          {
              {"timeout = \"0s\"",
               "f.toml:9:11: route[1].timeout: 0s is none, and idempotency needs one: how long a request may "
               "hold its key (the lease of its claim) follows from it"},
              {"timeout = \"1x\"", "timeout: '1x'"},
              {"timeout = \"1ms\"", ""},  // a default is not warned about
              {"timeout = \"2d\"",
               "f.toml:10:1: warning: route[1].idempotency.window: is below the route's timeout (2d)"},
          });
    check(with_memory, {
                           {"timeout = \"9s\"\nidempotency = { store = \"s\", wait_timeout = \"10s\" }",
                            "f.toml:10:45: warning: route[1].idempotency.wait_timeout: is above the route's "
                            "timeout (9s), which ends waiting "
                            "before: 504 instead of 409"},
                           {"timeout = \"10s\"\nidempotency = { store = \"s\", wait_timeout = \"10s\" }", ""},
                           {"timeout = \"9s\"\nidempotency = { store = \"s\", in_flight = \"conflict\", "
                            "wait_timeout = \"10s\" }",
                            "wait_timeout: has no effect"},
                       });
}

TEST(ConfigIdempotency, RetriesAndHedgesGoWithItButARepetitionMayBeASecondExecution) {
    check(route_with,
          {{"retry = { on = [\"connect\"] }", ""},
           {"retry = { on = [\"reset\"] }",
            "warning: route[1].retry: repeats a request with a key that the application may have"},
           {"retry = { on = [\"503\"] }", "warning: route[1].retry: repeats a request"},
           {"hedge = { after = \"p95\" }", "warning: route[1].hedge: repeats a request"}});
}

TEST(ConfigIdempotency, ARouteNeedsAClusterAndAName) {
    const std::string listener = "[[listener]]\nname = \"in\"\nlisten = \"127.0.0.1:0\"\n";
    EXPECT_THAT(
        lines_of(parse_text(listener + "[[route]]\nname = \"a\"\nlistener = \"in\"\nrespond = {}\n" +
                            "[route.idempotency]\nstore = \"s\"\n" + kMemoryStore)),
        ElementsAre("f.toml:8:1: route[1].idempotency: records what an upstream answers; this route has no "
                    "cluster"));
    EXPECT_THAT(lines_of(parse_text(file_with_route("cluster = \"app\"\nidempotency = { store = \"s\" }") +
                                    kMemoryStore)),
                ElementsAre(HasSubstr(
                    "f.toml:5:1: warning: route[1].name: missing; keys are kept under the name of their "
                    "route, and the default ('route-1') changes")));
}

TEST(ConfigIdempotency, ABodyThatTheListenerRefusesIsPointedOut) {
    const auto file = [](const char* listener, const char* keys) {
        return file_with(listener,
                         "name = \"pay\"\ncluster = \"app\"\nidempotency = { store = \"s\"" +
                             std::string(keys) + " }",
                         "endpoints = [\"127.0.0.1:3000\"]") +
               kMemoryStore;
    };
    EXPECT_THAT(lines_of(parse_text(file("max_body_bytes = \"64KiB\"", ", max_request = \"65KiB\""))),
                ElementsAre(HasSubstr(
                    "warning: route[1].idempotency.max_request: is above max_body_bytes of listener 'in' "
                    "(64KiB), which is reached first")));
    EXPECT_THAT(lines_of(parse_text(file("max_body_bytes = \"64KiB\"", ", max_request = \"64KiB\""))),
                IsEmpty());
    EXPECT_THAT(lines_of(parse_text(file("max_body_bytes = \"64KiB\"", ""))), IsEmpty());
    EXPECT_THAT(lines_of(parse_text(file("", ", max_request = \"16MiB\""))), IsEmpty());
}

TEST(ConfigStore, EachKindHasItsDefaults) {
    StoreSettings memory;
    memory.name = "s";
    EXPECT_EQ(store_of(storing("kind = \"memory\"")), memory);
    StoreSettings log = memory;
    log.kind = StoreKind::kLog;
    log.path = "/k";
    EXPECT_EQ(store_of(storing("kind = \"log\"\npath = \"/k/\"")), log);
    StoreSettings redis = memory;
    redis.kind = StoreKind::kRedis;
    redis.url.hosts = {{"redis", 6379}};
    EXPECT_EQ(store_of(storing("kind = \"redis\"\nurl = \"redis://redis\"")), redis);
    EXPECT_EQ(memory.max_memory, Bytes{256 << 20});
    EXPECT_EQ(memory.max_waiting, 10000u);
    EXPECT_EQ(log.segment_bytes, Bytes{64 << 20});
    EXPECT_EQ(log.sync, SyncMode::kGroup);
    EXPECT_EQ(redis.operation_timeout, Duration(50ms));
    EXPECT_EQ(redis.connect_timeout, Duration(1s));
    EXPECT_EQ(redis.prefix, "outrider:");
}

TEST(ConfigStore, EveryKeyIsRead) {
    StoreSettings log;
    log.name = "s";
    log.kind = StoreKind::kLog;
    log.path = "./keys";
    log.max_memory = Bytes{1ull << 40};
    log.max_waiting = 0;
    log.segment_bytes = Bytes{1 << 30};
    EXPECT_EQ(store_of(storing("kind = \"log\"\npath = \"./keys\"\nmax_memory = \"1TiB\"\nmax_waiting = 0\n"
                               "segment_bytes = \"1GiB\"\nsync = \"group\"")),
              log);
    StoreSettings redis;
    redis.name = "s";
    redis.kind = StoreKind::kRedis;
    redis.url = {true, {{"a", 26379}, {"::1", 1}}, "mymaster", "me", "p", 3};
    redis.operation_timeout = 10s;
    redis.connect_timeout = 1min;
    redis.max_waiting = 7;
    redis.prefix = "";
    EXPECT_EQ(store_of(storing(
                  "kind = \"redis\"\nurl = \"redis-sentinel://me:p@a,[::1]:1/mymaster/3\"\n"
                  "operation_timeout = \"10s\"\nconnect_timeout = \"1m\"\nprefix = \"\"\nmax_waiting = 7")),
              redis);
}

TEST(ConfigStore, Values) {
    check(
        storing,
        {
            {"",
             "f.toml:14:1: store.s.kind: missing; it is required (kind = \"log\"; or \"memory\", \"redis\")"},
            {"kind = \"rediss\"",
             "f.toml:15:8: store.s.kind: 'rediss' is not one of: memory, log, redis (did you mean 'redis'?)"},
            // Of a kind that is not known nothing more can be said.
            {"kind = \"lg\"\npath = \"/k\"\nurl = \"redis://h\"", "store.s.kind: 'lg' is not one of"},
            {"kind = \"memory\"\nmax_memory = \"1MiB\"\nmax_waiting = 1000000", ""},
            {"kind = \"memory\"\nmax_memory = \"1023KiB\"",
             "f.toml:16:14: store.s.max_memory: 1023KiB is out of range (1MiB to 1TiB)"},
            {"kind = \"memory\"\nmax_memory = \"2TiB\"", "out of range (1MiB to 1TiB)"},
            {"kind = \"memory\"\nmax_waiting = 1000001", "1000001 is out of range (0 to 1000000)"},
            {"kind = \"memory\"\nmax_waiting = -1", "-1 is out of range"},
            {"kind = \"memory\"\nmax_memry = \"1MiB\"",
             "store.s.max_memry: unknown key (did you mean 'max_memory'?)"},
            {"kind = \"log\"", "f.toml:14:1: store.s.path: missing; it is required (path ="},
            {"kind = \"log\"\npath = \"keys\"", "'keys' is not the path of a directory"},
            {"kind = \"log\"\npath = \"\"", "'' is not the path of a directory"},
            {"kind = \"log\"\npath = \"/a\\u0000b\"", "is not the path of a directory"},
            {"kind = \"log\"\npath = \"/\"", ""},
            {"kind = \"log\"\npath = \"/k\"\nsync = \"always\"", "'always' is not one of: group, none"},
            {"kind = \"log\"\npath = \"/k\"\nsegment_bytes = \"1MiB\"", ""},
            {"kind = \"log\"\npath = \"/k\"\nsegment_bytes = \"1KiB\"",
             "1KiB is out of range (1MiB to 1GiB)"},
            {"kind = \"log\"\npath = \"/k\"\nsegment_bytes = \"1025MiB\"",
             "1025MiB is out of range (1MiB to 1GiB)"},
            {"kind = \"redis\"",
             "f.toml:14:1: store.s.url: missing; it is required (url = \"redis://redis:6379\")"},
            {"kind = \"redis\"\nurl = \"redis://h\"\noperation_timeout = \"0s\"",
             "0s is out of range (1ms to 10s)"},
            {"kind = \"redis\"\nurl = \"redis://h\"\noperation_timeout = \"11s\"",
             "11s is out of range (1ms to 10s)"},
            {"kind = \"redis\"\nurl = \"redis://h\"\nconnect_timeout = \"61s\"",
             "61s is out of range (1ms to 1m)"},
            {"kind = \"redis\"\nurl = \"redis://h\"\nconnect_timeout = \"0s\"",
             "0s is out of range (1ms to 1m)"},
            {"kind = \"redis\"\nurl = \"redis://h\"\nprefix = \"a b\"", "'a b' is not a prefix of keys"},
            {"kind = \"redis\"\nurl = \"redis://h\"\nprefix = \"\u00e4\"", "is not a prefix of keys"},
            {"kind = \"redis\"\nurl = \"redis://h\"\nprefix = \"" + std::string(64, 'p') + "\"", ""},
            {"kind = \"redis\"\nurl = \"redis://h\"\nprefix = \"" + std::string(65, 'p') + "\"",
             "is not a prefix of keys"},
            {"kind = \"redis\"\nurl = 6379", "store.s.url: expected a string, found an integer"},
        });
}

TEST(ConfigStore, AKeyOfAnotherKindIsAnError) {
    struct Foreign {
        const char* kind;
        const char* key;
        const char* only;
    };
    const char* const memory_or_log = "only for kind = \"memory\" or \"log\"";
    const char* const log = "only for kind = \"log\"";
    const char* const redis = "only for kind = \"redis\"";
    const Foreign rows[] = {
        {"redis", "max_memory = \"1MiB\"", memory_or_log},

        {"redis", "path = \"/k\"", log},
        {"redis", "sync = \"group\"", log},
        {"redis", "segment_bytes = \"1MiB\"", log},
        {"memory", "path = \"/k\"", log},
        {"memory", "sync = \"group\"", log},
        {"memory", "segment_bytes = \"1MiB\"", log},
        {"memory", "url = \"redis://h\"", redis},
        {"memory", "operation_timeout = \"1s\"", redis},
        {"memory", "connect_timeout = \"1s\"", redis},
        {"memory", "prefix = \"p\"", redis},
        {"log", "url = \"redis://h\"", redis},
        {"log", "operation_timeout = \"1s\"", redis},
        {"log", "connect_timeout = \"1s\"", redis},
        {"log", "prefix = \"p\"", redis},
    };
    for (const Foreign& row : rows) {
        const std::string kind = row.kind;
        std::string lines = "kind = \"" + kind + "\"\n";
        if (kind == "redis") lines += "url = \"redis://h\"\n";
        if (kind == "log") lines += "path = \"/k\"\n";
        const std::string key(row.key, std::string_view(row.key).find(' '));
        check(storing, {{lines + row.key, "store.s." + key + ": " + row.only}});
    }
}

TEST(ConfigStore, HasANameInItsHeader) {
    const auto lines = [](const std::string& stores) {
        return lines_of(parse_text(smallest_file() + stores));
    };
    const char* const hint = "a store has a name, which is part of its header: [store.local]";
    EXPECT_THAT(lines("[store]\nkind = \"memory\"\n"),
                ElementsAre("f.toml:12:8: store.kind: " + std::string(hint)));
    EXPECT_THAT(lines("[[store]]\nname = \"s\"\nkind = \"memory\"\n"),
                ElementsAre("f.toml:11:1: store: " + std::string(hint)));
    EXPECT_THAT(lines("[[store.s]]\nkind = \"memory\"\n"),
                ElementsAre(HasSubstr("store.s: there is only one; write [store.s], not [[store.s]]")));
    EXPECT_THAT(
        lines("[store.\"a b\"]\nkind = \"memory\"\n"),
        ElementsAre(
            "f.toml:11:1: store.\"a b\": 'a b' is not a name (1 to 64 letters, digits, '_', '.' or '-')"));
    std::string many;
    for (int i = 0; i < 65; ++i)
        many += "[store.s" + std::to_string(i) + "]\nkind = \"memory\"\n";
    EXPECT_THAT(lines(many), ElementsAre(HasSubstr("store: has more than 64 keys")));
}

TEST(ConfigStore, ARouteNamesOneThatExists) {
    check(with_memory,
          {{"idempotency = { store = \"ss\" }",
            "f.toml:9:25: route[1].idempotency.store: there is no store named 'ss' (did you mean 's'?)"},
           {"idempotency = { store = \"a b\" }", "store: 'a b' is not a name"}});
    EXPECT_THAT(lines_of(parse_text(smallest_file() +
                                    "[store.s]\nkind = \"memory\"\n[store.\"t.u\"]\nkind = \"memory\"\n")),
                ElementsAre("f.toml:11:1: warning: store.s: store 's' is used by no route",
                            "f.toml:13:1: warning: store.\"t.u\": store 't.u' is used by no route"));
}

TEST(ConfigStore, TwoLogsNeedTwoDirectories) {
    const auto lines = [](const char* a, const char* b) {
        return lines_of(parse_text(keyed("") + "[store.b]\nkind = \"log\"\npath = \"" + a +
                                   "\"\n[store.a]\nkind = \"log\"\npath = \"" + b + "\"\n"));
    };
    for (const char* same : {"/var/keys", "/var/keys/", "/var//keys", "/var/./keys", "/var/x/../keys"}) {
        EXPECT_THAT(
            lines("/var/keys", same),
            ElementsAre(
                "f.toml:20:8: store.a.path: is the directory of store.b.path (line 17); each log needs "
                "its own"))
            << same;
    }
    EXPECT_THAT(lines("./keys", "keys/./"), ElementsAre(HasSubstr("is the directory of")));
    EXPECT_THAT(lines("/var/keys", "/var/keys/a"),
                ElementsAre(HasSubstr("used by no"), HasSubstr("used by no")));
}

TEST(ConfigStore, HoldsAtLeastFourAnswers) {
    const auto file = [](const char* max_response, const std::string& store) {
        return file_with_route(
                   "name = \"pay\"\ncluster = \"app\"\nidempotency = { store = \"s\", max_response = \"" +
                   std::string(max_response) + "\" }") +
               "[store.s]\n" + store;
    };
    EXPECT_THAT(
        lines_of(parse_text(file("257KiB", "kind = \"memory\"\nmax_memory = \"1MiB\"\n"))),
        ElementsAre(
            "f.toml:9:45: route[1].idempotency.max_response: 257KiB is above a quarter of max_memory of "
            "store.s (1MiB): so few answers would fill the store"));
    EXPECT_THAT(lines_of(parse_text(file("256KiB", "kind = \"memory\"\nmax_memory = \"1MiB\"\n"))),
                IsEmpty());
    EXPECT_THAT(lines_of(parse_text(file("16MiB", "kind = \"memory\"\nmax_memory = \"64MiB\"\n"))),
                IsEmpty());
    EXPECT_THAT(lines_of(parse_text(file("16MiB", "kind = \"memory\"\nmax_memory = \"63MiB\"\n"))),
                ElementsAre(HasSubstr("is above a quarter")));
    EXPECT_THAT(lines_of(parse_text(file("15MiB", "kind = \"log\"\npath = \"/k\"\n"))), IsEmpty());
    EXPECT_THAT(lines_of(parse_text(file("16MiB", "kind = \"log\"\npath = \"/k\"\n"))),
                ElementsAre(HasSubstr(
                    "max_response: 16MiB with its headers does not fit into a record of store.s (kind = "
                    "\"log\"): at most 15MiB")));
    EXPECT_THAT(lines_of(parse_text(file("16MiB", "kind = \"redis\"\nurl = \"redis://h\"\n"))), IsEmpty());
}

TEST(ConfigIdempotency, WhatIsWrittenReadsBackEqual) {
    for (const std::string& text :
         {keyed(""), keyed("scope = []"), keyed("in_flight = \"conflict\""),
          keyed("header = \"X\", syntax = \"strict\", require = true, methods = [\"PUT\"], scope = "
                "[\"query:t\", \"source\"]"),
          keyed("window = \"6m\", wait_timeout = \"1ms\", max_request = \"0\", max_response = \"1B\", "
                "policy_url = \"http://a\""),
          keyed("on_store_error = \"forward\", on_unknown = \"reexecute\", record = \"2xx-4xx\""),
          storing("kind = \"log\"\npath = \"/k ${A:-b}\"\nsync = \"none\"\nsegment_bytes = "
                  "\"1MiB\"\nmax_memory = \"1MiB\""),
          in_redis("redis://me:a%22%5C%24%7Bx%7D%c3%A4@h:1/2"), in_redis("redis-sentinel://:p@a,[::1]:1/m"),
          storing("kind = \"memory\"\nmax_waiting = 0\n[store.\"a.b\"]\nkind = \"memory\"\n[store.Z]\nkind = "
                  "\"memory\"")}) {
        const LoadResult first = parse_text(text);
        ASSERT_TRUE(first.settings) << text << testing::PrintToString(lines_of(first));
        const std::string written = to_toml(*first.settings, Secrets::kShow);
        const LoadResult second = parse_text(written);
        ASSERT_TRUE(second.settings) << written << testing::PrintToString(lines_of(second));
        EXPECT_EQ(*first.settings, *second.settings) << written;
        EXPECT_TRUE(parse_text(to_toml(*first.settings)).settings) << "what is shown can be loaded";
    }
}

TEST(ConfigIdempotency, TheExampleIsRightWithoutAWarning) {
    const LoadResult result = load_file(OUTRIDER_EXAMPLES "/idempotent.toml");
    EXPECT_THAT(lines_of(result), IsEmpty());
    ASSERT_TRUE(result.settings);
    EXPECT_EQ(result.settings->stores.at(0).kind, StoreKind::kLog);
}

}  // namespace
}  // namespace outrider::config
