#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_helpers.h"

namespace outrider::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

RetrySettings unusual_retry() {
    RetrySettings retry;
    retry.attempts = 10;
    retry.per_try_timeout = 1s;
    retry.on = {.connect = true, .reset = false, .timeout = true, .any_5xx = true, .statuses = {400, 599}};
    retry.backoff_base = 0s;
    retry.backoff_max = 1ms;
    retry.budget_ratio = 0.015625;
    retry.budget_min_per_second = 0;
    retry.max_body = Bytes{0};
    return retry;
}

// Every field away from its default.
Settings unusual_settings() {
    Settings s;
    s.node = {"n.1", "ledger", "fe80::1", "eu-1"};
    s.runtime = {3, 77, 50us};
    s.admin = {{"::1", 1}, HostPort{"0.0.0.0", 2}};
    s.log = {"off", "/var/log/a \"b\".log", AccessFormat::kJson};
    s.drain = {1500ms, 0s};
    ListenerSettings listener{.name = "in", .listen = {"localhost", 0}};
    listener.header_timeout = 11ms;
    listener.idle_timeout = 12s;
    listener.body_idle_timeout = 13min;
    listener.min_body_rate = Bytes{0};
    listener.min_read_rate = Bytes{1};
    listener.max_header_bytes = Bytes{1025};
    listener.max_headers = 7;
    listener.max_target_bytes = Bytes{1000};
    listener.max_body_bytes = Bytes{1ull << 40};
    listener.max_pipelined = 1;
    listener.trust_forwarded = true;
    s.listeners = {listener, {.name = "out", .listen = {"10.0.0.1", 8080}}};
    RouteSettings forward;
    forward.name = "forward";
    forward.listener = "in";
    forward.match = {"*.a.example", "", "/pay", {"GET", "M-SEARCH"}, {{"X-A", "${x} \\ \" \t."}, {"B", ""}}};
    forward.clusters = {{"a", 0}, {"b", 9}};
    forward.timeout = 0s;
    forward.rewrite = {"/", "b.example:81"};
    forward.request_headers = {{{"X-S", "$${"}}, {{"X-1", "1"}, {"X-2", "2"}, {"X-2", "\u00e4"}}, {"X-R"}};
    forward.response_headers = {{}, {}, {"Server", "X-Powered-By"}};
    forward.mirror = MirrorSettings{"b", 0.001};
    forward.retry = unusual_retry();
    forward.hedge = HedgeSettings{.after = 0s, .percentile = 99.9, .fallback = 1500us};
    forward.rate_limit = RateLimitSettings{0.25, 3, {RateKeyKind::kHeader, "X-Api-Key"}, 17};
    forward.concurrency = ConcurrencySettings{65, 64};
    forward.fault = FaultSettings{0.125, 1234us, 418};
    RouteSettings respond;
    respond.name = "respond";
    respond.listener = "in";
    respond.match.path = "/x";
    respond.respond = RespondSettings{503, "two\nlines\x01 ${HOME}\\", "text/html"};
    RouteSettings redirect;
    redirect.name = "redirect";
    redirect.listener = "out";
    redirect.redirect = RedirectSettings{301, "https", "[::1]:443", "", "/v2", false};
    RouteSettings single = forward;
    single.name = "single";
    single.listener = "out";
    single.match.host = "b.example";
    single.clusters = {{"a", 9}};
    single.rewrite.prefix.reset();
    single.retry->attempts = 2;
    single.retry->on = {.connect = false, .reset = true, .timeout = false, .any_5xx = false, .statuses = {}};
    single.retry->per_try_timeout = 21ms;
    single.hedge = HedgeSettings{.after = 20ms};
    single.rate_limit = RateLimitSettings{1'000'000, 1, {RateKeyKind::kSource, ""}, 1};
    single.fault.reset();
    s.routes = {forward, respond, single, redirect};
    ClusterSettings a;
    a.name = "a";
    a.endpoints = {{"::1", 1}, {"a.example", 65535}};
    a.balance = Balance::kRingHash;
    a.hash_key = HashKey{HashKey::Kind::kQuery, "user"};
    a.connect_timeout = 1ms;
    a.read_timeout = 0s;
    a.idle_timeout = 24h;
    ClusterSettings b;
    b.name = "b";
    b.discover = Discover{DiscoverKind::kDnsSrv, "_http._tcp.b", 0};
    b.balance = Balance::kRoundRobin;
    a.health = HealthSettings{.path = "/up", .host = "a.example:81", .interval = 10ms, .timeout = 10ms};
    a.health->unhealthy_after = 100;
    a.health->healthy_after = 1;
    a.outlier = OutlierSettings{1, 1500ms, 100};
    a.limits = {7, 0, 9, 0s};
    a.panic_percent = 100;
    b.health.emplace();
    b.health->kind = HealthKind::kTcp;
    b.health->detector = HealthDetectorKind::kPhi;
    b.health->phi_threshold = 1.5;
    b.limits.hold = 5min;
    a.channel = {ChannelMode::kPipelined, 64, 1, 1ms};
    s.clusters = {a, b};
    return s;
}

TEST(ConfigWrite, SettingsReadBackEqual) {
    const Settings settings = unusual_settings();
    const std::string text = to_toml(settings, Secrets::kShow);
    const LoadResult result = parse_text(text);
    EXPECT_THAT(lines_of(result),
                ElementsAre(HasSubstr("warning: route[1].fault: injects faults into 0.125%")))
        << text;
    ASSERT_TRUE(result.settings) << text;
    EXPECT_EQ(*result.settings, settings) << text << "\n----\n" << to_toml(*result.settings, Secrets::kShow);
}

TEST(ConfigWrite, EveryKindOfHashKeyAndDiscoveryReadsBack) {
    for (const char* lines : {"endpoints = [\"a:1\"]\nbalance = \"maglev\"\nhash_key = \"header:X\"",
                              "endpoints = [\"a:1\"]\nbalance = \"maglev\"\nhash_key = \"cookie:X\"",
                              "endpoints = [\"a:1\"]\nbalance = \"maglev\"\nhash_key = \"path\"",
                              "endpoints = [\"a:1\"]\nbalance = \"ring-hash\"\nhash_key = \"source\"",
                              "discover = \"dns:a.example:80\""}) {
        const LoadResult first = parse_text(file_with_cluster(lines));
        ASSERT_TRUE(first.settings) << lines;
        const LoadResult second = parse_text(to_toml(*first.settings));
        ASSERT_TRUE(second.settings) << lines;
        EXPECT_EQ(*first.settings, *second.settings) << lines;
    }
}

// What has no effect, or no place, beside another value is not written, or it would not read back.
TEST(ConfigWrite, WhatOnlyGoesWithAnotherValueReadsBack) {
    for (const char* lines :
         {"retry = {}", "retry = { attempts = 1 }",
          "retry = { attempts = 1, on = [\"409\"], max_body = \"1B\" }",
          "retry = { attempts = 1, budget = { ratio = 0.5 } }\nhedge = { after = \"p50\" }",
          "hedge = { after = \"1ms\", fallback = \"3s\" }", "rate_limit = { rate = 0.001, max_keys = 3 }",
          "rate_limit = { rate = 12345.678 }", "fault = { abort = 503 }", "fault = { delay = \"1us\" }"}) {
        const LoadResult first = parse_text(file_with_route("cluster = \"app\"\n" + std::string(lines)));
        ASSERT_TRUE(first.settings) << testing::PrintToString(lines_of(first));
        const LoadResult second = parse_text(to_toml(*first.settings));
        ASSERT_TRUE(second.settings) << lines << testing::PrintToString(lines_of(second));
        EXPECT_EQ(*first.settings, *second.settings) << lines;
    }
    for (const char* lines : {"health = {}", "health = { kind = \"tcp\" }", "health = { detector = \"phi\" }",
                              "limits = { max_pending = 0 }", "outlier = {}\npanic_percent = 1"}) {
        const LoadResult first =
            parse_text(file_with_cluster("endpoints = [\"a:1\"]\n" + std::string(lines)));
        ASSERT_TRUE(first.settings) << testing::PrintToString(lines_of(first));
        const LoadResult second = parse_text(to_toml(*first.settings));
        ASSERT_TRUE(second.settings) << lines << testing::PrintToString(lines_of(second));
        EXPECT_EQ(*first.settings, *second.settings) << lines;
    }
}

TEST(ConfigWrite, TheExampleReadsBackEqual) {
    for (const char* name : {OUTRIDER_EXAMPLES "/sidecar.toml", OUTRIDER_CORPUS "/full.toml"}) {
        const LoadResult example = load_file(name);
        ASSERT_TRUE(example.settings) << name;
        const LoadResult again = parse_text(to_toml(*example.settings, Secrets::kShow));
        ASSERT_TRUE(again.settings) << name;
        EXPECT_EQ(*again.settings, *example.settings) << name;
    }
}

TEST(ConfigWrite, CredentialsAreHiddenUnlessAskedFor) {
    const LoadResult result =
        parse_text(file_with_route("cluster = \"app\"\nmatch = { headers = { X-Api-Key = \"${KEY}\" } }\n"
                                   "headers = { request = { set = { Authorization = \"Bearer ${KEY}\" }, "
                                   "add = { X-Session-Token = \"${KEY}\", X-Plain = \"seen\" } } }"),
                   {{"KEY", "hunter2"}});
    ASSERT_TRUE(result.settings) << testing::PrintToString(lines_of(result));
    EXPECT_THAT(to_toml(*result.settings), Not(HasSubstr("hunter2")));
    EXPECT_THAT(to_toml(*result.settings), HasSubstr("seen"));
    EXPECT_THAT(to_toml(*result.settings, Secrets::kShow), HasSubstr("Bearer hunter2"));
}

}  // namespace
}  // namespace outrider::config
