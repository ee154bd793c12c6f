// Retries, hedges, limits, faults, health and ejection: values, contradictions, what is warned about.
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
std::string retrying(std::string_view keys) {
    return forwarding("retry = { " + std::string(keys) + " }");
}
std::string hedging(std::string_view keys) {
    return forwarding("hedge = { " + std::string(keys) + " }");
}
std::string rate_limiting(std::string_view keys) {
    return forwarding("rate_limit = { " + std::string(keys) + " }");
}
std::string with_cluster(std::string_view lines) {
    return file_with_cluster("endpoints = [\"127.0.0.1:3000\"]\n" + std::string(lines));
}
std::string checking(std::string_view keys) {
    return with_cluster("health = { " + std::string(keys) + " }");
}
std::string answering(std::string_view lines) {
    return "[[listener]]\nname = \"in\"\nlisten = \"127.0.0.1:0\"\n[[route]]\nlistener = \"in\"\nrespond = "
           "{}\n" +
           std::string(lines) + "\n";
}

RouteSettings route_of(const std::string& file) {
    const LoadResult result = parse_text(file);
    EXPECT_TRUE(result.settings) << testing::PrintToString(lines_of(result));
    return result.settings ? result.settings->routes.at(0) : RouteSettings{};
}
ClusterSettings cluster_of(const std::string& file) {
    const LoadResult result = parse_text(file);
    EXPECT_TRUE(result.settings) << testing::PrintToString(lines_of(result));
    return result.settings ? result.settings->clusters.at(0) : ClusterSettings{};
}

TEST(ConfigPolicies, EmptyTablesGiveTheDefaultsOfTheStructs) {
    EXPECT_EQ(route_of(retrying("")).retry, RetrySettings{});
    EXPECT_EQ(route_of(forwarding("concurrency = {}")).concurrency, ConcurrencySettings{});
    EXPECT_EQ(cluster_of(checking("")).health, HealthSettings{});
    EXPECT_EQ(cluster_of(with_cluster("outlier = {}")).outlier, OutlierSettings{});
    EXPECT_EQ(cluster_of(with_cluster("limits = {}")).limits, LimitSettings{});
    EXPECT_EQ(cluster_of(with_cluster("channel = {}")).channel, ChannelSettings{});
    const RouteSettings plain = route_of(forwarding(""));
    EXPECT_FALSE(plain.retry || plain.hedge || plain.rate_limit || plain.concurrency || plain.fault);
    const ClusterSettings cluster = cluster_of(with_cluster(""));
    EXPECT_FALSE(cluster.health || cluster.outlier);
}

TEST(ConfigPolicies, SubTablesBelongToTheRouteAndClusterAboveThem) {
    const LoadResult result = parse_text(R"([[listener]]
name = "in"
listen = "127.0.0.1:0"
[[route]]
listener = "in"
match = { path = "/a" }
cluster = "app"
timeout = "10s"
[route.retry]
attempts = 4
per_try_timeout = "2s"
on = ["5xx", "429", "reset"]
backoff = { base = "1ms", max = "2ms" }
budget = { ratio = 0.5, min_per_second = 7 }
max_body = "1MiB"
[route.hedge]
after = "p99.9"
fallback = "20ms"
[route.rate_limit]
rate = 2.5
key = "header:X-Api-Key"
[[route]]
listener = "in"
cluster = "app"
[route.concurrency]
max = 9
min = 8
[[cluster]]
name = "app"
endpoints = ["app:80"]
panic_percent = 30
[cluster.health]
kind = "http"
path = "/healthz"
host = "app.example"
interval = "1s"
timeout = "1s"
detector = "phi"
phi_threshold = 5
healthy_after = 1
prober = "all"
[cluster.outlier]
consecutive_failures = 1
ejection = "1s"
max_ejected_percent = 10
[cluster.limits]
max_connections = 4
max_pending = 5
max_requests = 6
hold = "7s"
[cluster.channel]
mode = "pipelined"
connections = 1
depth = 1024
stall_timeout = "250ms"
)");
    ASSERT_TRUE(result.settings) << testing::PrintToString(lines_of(result));
    EXPECT_THAT(lines_of(result), ElementsAre(HasSubstr("panic_percent: with it limits.hold never waits")));
    const auto& routes = result.settings->routes;
    RetrySettings retry;
    retry.attempts = 4;
    retry.per_try_timeout = 2s;
    retry.on = {.connect = false, .reset = true, .timeout = false, .any_5xx = true, .statuses = {429}};
    retry.backoff_base = 1ms;
    retry.backoff_max = 2ms;
    retry.budget_ratio = 0.5;
    retry.budget_min_per_second = 7;
    retry.max_body = Bytes{1 << 20};
    EXPECT_EQ(routes[0].retry, retry);
    EXPECT_EQ(routes[0].hedge, (HedgeSettings{.after = 0s, .percentile = 99.9, .fallback = 20ms}));
    EXPECT_EQ(routes[0].rate_limit, (RateLimitSettings{2.5, 3, {RateKeyKind::kHeader, "X-Api-Key"}, 10'000}));
    EXPECT_FALSE(routes[0].concurrency || routes[1].retry);
    EXPECT_EQ(routes[1].concurrency, (ConcurrencySettings{9, 8}));
    const ClusterSettings& cluster = result.settings->clusters[0];
    HealthSettings health{.path = "/healthz", .host = "app.example", .interval = 1s, .timeout = 1s};
    health.detector = HealthDetectorKind::kPhi;
    health.phi_threshold = 5;
    health.healthy_after = 1;
    EXPECT_EQ(cluster.health, health);
    EXPECT_EQ(cluster.outlier, (OutlierSettings{1, 1s, 10}));
    EXPECT_EQ(cluster.limits, (LimitSettings{4, 5, 6, 7s}));
    EXPECT_EQ(cluster.channel, (ChannelSettings{ChannelMode::kPipelined, 1, 1024, 250ms}));
    EXPECT_EQ(cluster.panic_percent, 30u);
}

TEST(ConfigPolicies, RetryOnReplacesTheDefaultSet) {
    const RetryOn none{.connect = false, .reset = false, .timeout = false, .any_5xx = false, .statuses = {}};
    RetryOn expected = none;
    expected.connect = true;
    EXPECT_EQ(route_of(retrying("on = [\"connect\"]")).retry->on, expected);
    expected = none;
    expected.statuses = {400, 503, 599};
    EXPECT_EQ(route_of(retrying("on = [\"599\", \"503\", \"400\", \"503\"]")).retry->on, expected);
}

TEST(ConfigPolicies, ValuesOfRetry) {
    check(retrying,
          {{"attempts = 10", ""},
           {"attempts = 0", "attempts: 0 is out of range (1 to 10)"},
           {"attempts = 11", "11 is out of range"},
           {"per_try_timeout = \"0s\"", ""},
           {"per_try_timeout = 2", "a unit is needed: \"2s\""},
           {"on = []", "retry.on: is empty; give at least one element"},
           {"on = \"5xx\"", "expected an array of strings"},
           {"on = [503]", "on[1]: expected a string, found an integer"},
           {"on = [\"reset\", \"conect\"]", "route[1].retry.on[2]: 'conect' is neither connect, "},
           {"on = [\"conect\"]", "(did you mean 'connect'?)"},
           {"on = [\"5XX\"]", "(did you mean '5xx'?)"},
           {"on = [\"399\"]", "nor a status from 400 to 599"},
           {"on = [\"600\"]", "nor a status from 400 to 599"},
           {"on = [\"5034\"]", "nor a status from 400 to 599"},
           {"on = [\"\"]", "nor a status from 400 to 599"},
           {"on = [\"502\", \"502\"]", "warning: route[1].retry.on: '502' is listed twice"},
           {"backoff = { base = \"6m\" }", "6m is out of range (0s to 5m)"},
           {"backoff = \"1s\"", "backoff: expected a table"},
           {"backoff = { mx = \"1s\" }", "backoff.mx: unknown key (did you mean 'max'?)"},
           {"budget = { ratio = 1.01 }", "1.01 is out of range (0 to 1)"},
           {"budget = { min_per_second = 1001 }", "1001 is out of range (0 to 1000)"},
           {"budget = { ratio = 0 }", ""},
           {"budget = { ratio = 0, min_per_second = 0 }", "warning: route[1].retry.budget: allows nothing"},
           {"max_body = \"0\"", ""},
           {"max_body = \"2MiB\"", "2MiB is out of range (0B to 1MiB)"},
           {"attempt = 3", "unknown key (did you mean 'attempts'?)"}});
}

TEST(ConfigPolicies, ValuesOfHedge) {
    check(hedging,
          {{"after = \"p50\"", ""},
           {"after = \"p99.9\", fallback = \"5m\"", ""},
           {"after = \"20ms\"", ""},
           {"", "hedge.after: missing; it is required (after = \"p95\")"},
           {"after = \"p49.9\"", "'p49.9' is not a percentile from p50 to p99.9"},
           {"after = \"p99.95\"", "is not a percentile"},
           {"after = \"p\"", "is not a percentile"},
           {"after = \"pnan\"", "is not a percentile"},
           {"after = \"p9e1\"", "is not a percentile"},
           {"after = \"95\"", "'95' is neither a percentile such as \"p95\" nor a duration"},
           {"after = \"0\"", "0 is out of range (1ms to 5m)"},
           {"after = \"6m\"", "6m is out of range (1ms to 5m)"},
           {"after = 20", "after: expected a string"},
           {"after = \"p95\", fallback = \"0s\"", "out of range (1ms to 5m)"},
           {"after = \"20ms\", fallback = \"1s\"", "warning: route[1].hedge.fallback: has no effect"}});
    EXPECT_EQ(route_of(hedging("after = \"20ms\"")).hedge, (HedgeSettings{.after = 20ms}));
    EXPECT_EQ(route_of(hedging("after = \"p95\"")).hedge, (HedgeSettings{.after = 0s, .percentile = 95}));
}

TEST(ConfigPolicies, ValuesOfRateLimit) {
    check(rate_limiting,
          {{"rate = 0.001", ""},
           {"rate = 1000000, burst = 1", ""},
           {"", "rate_limit.rate: missing; it is required (rate = 100)"},
           {"rate = 0", "0 is out of range (0.001 to 1000000)"},
           {"rate = inf", "inf is out of range"},
           {"rate = \"5\"", "expected a number"},
           {"rate = 1, burst = 0", "0 is out of range (1 to 1000000)"},
           {"rate = 1, key = \"source\", max_keys = 1", ""},
           {"rate = 1, key = \"header:\"", "'header:' is not a key to limit by"},
           {"rate = 1, key = \"path\"", "(header:NAME or source)"},
           {"rate = 1, key = \"source\", max_keys = 0", "out of range (1 to 1000000)"},
           {"rate = 1, max_keys = 5", "warning: route[1].rate_limit.max_keys: has no effect"}});
    EXPECT_EQ(route_of(rate_limiting("rate = 0.001")).rate_limit->burst, 1u);
    EXPECT_EQ(route_of(rate_limiting("rate = 100.5")).rate_limit->burst, 101u);
    EXPECT_EQ(route_of(rate_limiting("rate = 100, burst = 7")).rate_limit->burst, 7u);
}

TEST(ConfigPolicies, ValuesOfConcurrencyAndFault) {
    check(forwarding, {{"concurrency = { max = 1000000 }", ""},
                       {"concurrency = { max = 0 }", "0 is out of range (1 to 1000000)"},
                       {"concurrency = { min = 0 }", "out of range (1 to 1000000)"},
                       {"fault = { percent = 0, abort = 503 }", ""},
                       {"fault = { percent = 101, abort = 503 }", "101 is out of range (0 to 100)"},
                       {"fault = { abort = 399 }", "399 is out of range (400 to 599)"},
                       {"fault = { delay = \"6m\" }", "6m is out of range (0s to 5m)"},
                       {"fault = {}", "route[1].fault: does nothing; give delay"},
                       {"fault = { percent = 5, delay = \"0s\" }", "fault: does nothing"}});
}

TEST(ConfigPolicies, AFaultIsPointedOut) {
    check(forwarding,
          {{"[route.fault]\ndelay = \"200ms\"", "fault: injects faults into 100% of the requests"},
           {"[route.fault]\npercent = 0.5\nabort = 503", "into 0.5% of the requests"}});
}

TEST(ConfigPolicies, ValuesOfHealth) {
    check(checking, {{"kind = \"tcp\"", ""},
                     {"kind = \"https\"", "'https' is not one of: http, tcp"},
                     {"path = \"healthz\"", "must begin with '/'"},
                     {"host = \"a b\"", "is not a host or host:port"},
                     {"interval = \"9ms\"", "9ms is out of range (10ms to 1h)"},
                     {"timeout = \"0s\"", "0s is out of range (1ms to 1h)"},
                     {"unhealthy_after = 101", "out of range (1 to 100)"},
                     {"healthy_after = 0", "out of range (1 to 100)"},
                     {"detector = \"fi\"", "'fi' is not one of: count, phi"},
                     {"detector = \"phy\", phi_threshold = 8", "(did you mean 'phi'?)"},
                     {"detector = \"phi\", phi_threshold = 17", "17 is out of range (1 to 16)"},
                     {"prober = \"all\"", ""},
                     {"prober = \"emergent-leader\"", "health.prober: 'emergent-leader' comes with gossip"},
                     {"prober = \"al\"", "'al' is not one of: all (did you mean 'all'?)"}});
}

TEST(ConfigPolicies, ValuesOfOutlierAndLimits) {
    check(with_cluster, {{"outlier = { max_ejected_percent = 0 }", ""},
                         {"outlier = { max_ejected_percent = 101 }", "out of range (0 to 100)"},
                         {"outlier = { max_ejected_percent = 0.5 }", "expected an integer, found a number"},
                         {"outlier = { consecutive_failures = 0 }", "out of range (1 to 1000)"},
                         {"outlier = { ejection = \"0s\" }", "out of range (1ms to 1d)"},
                         {"limits = { max_pending = 0, max_requests = 0 }", ""},
                         {"limits = { max_connections = 1000001 }", "out of range (0 to 1000000)"},
                         {"limits = { hold = \"6m\" }", "6m is out of range (0s to 5m)"},
                         {"channel = { connections = 0 }", "out of range (1 to 64)"},
                         {"channel = { connections = 65 }", "out of range (1 to 64)"},
                         {"channel = { depth = 1025 }", "out of range (1 to 1024)"},
                         {"channel = { stall_timeout = \"0s\" }", "out of range (1ms to 1h)"},
                         {"channel = { mode = \"pipeline\" }", "did you mean 'pipelined'?"},
                         {"panic_percent = 101\noutlier = {}", "101 is out of range (0 to 100)"},
                         {"outliers = {}", "unknown key (did you mean 'outlier'?)"}});
}

TEST(ConfigPolicies, ContradictionsOnARoute) {
    check(forwarding,
          {{"timeout = \"1s\"\nretry = { per_try_timeout = \"2s\" }",
            "f.toml:9:29: route[1].retry.per_try_timeout: 2s is above the route's timeout (1s)"},
           {"timeout = \"1s\"\nretry = { per_try_timeout = \"1s\" }", ""},
           {"timeout = \"0s\"\nretry = { per_try_timeout = \"20m\" }", ""},
           {"retry = { per_try_timeout = \"6m\" }", "6m is above the route's timeout (5m, the default)"},
           {"retry = { backoff = { base = \"2s\", max = \"1s\" } }",
            "f.toml:8:30: route[1].retry.backoff.base: 2s is above max (1s)"},
           {"retry = { backoff = { base = \"2s\" } }", "backoff.base: 2s is above max (250ms, the default)"},
           {"retry = { backoff = { max = \"2ms\" } }", "backoff.max: 2ms is below base (25ms, the default)"},
           {"retry = { attempts = 1, budget = { ratio = 0.1 } }", "retry.budget: a budget without retries"},
           {"retry = { attempts = 1, backoff = {} }", "retry.backoff: a backoff without retries"},
           {"retry = { attempts = 1, per_try_timeout = \"1s\" }", "per_try_timeout: a timeout of each try"},
           {"retry = { attempts = 1 }", "warning: route[1].retry.attempts: 1 is the first attempt alone"},
           // Hedges draw on the budget too.
           {"retry = { attempts = 1, budget = { ratio = 0.1 } }\nhedge = { after = \"p95\" }", ""},
           {"timeout = \"20ms\"\nhedge = { after = \"20ms\" }",
            "f.toml:9:19: route[1].hedge.after: 20ms is not below the route's timeout (20ms)"},
           {"timeout = \"0s\"\nhedge = { after = \"5m\" }", ""},
           {"timeout = \"20ms\"\nhedge = { after = \"p95\" }", ""},
           {"hedge = { after = \"20ms\" }\nretry = { per_try_timeout = \"20ms\" }",
            "hedge.after: 20ms is not below retry.per_try_timeout (20ms): the hedge would never start"},
           {"hedge = { after = \"20ms\" }\nretry = { per_try_timeout = \"21ms\" }", ""},
           {"concurrency = { max = 5, min = 6 }", "concurrency.min: 6 is above max (5)"},
           {"concurrency = { max = 3 }", "concurrency.max: 3 is below min (4, the default)"},
           {"concurrency = { min = 5, max = 5 }", ""}});
}

TEST(ConfigPolicies, WhatAClusterIsNeededForIsRefusedWithoutOne) {
    check(answering,
          {{"retry = {}", "route[1].retry: repeats what an upstream gets; this route has no cluster"},
           {"hedge = { after = \"p95\" }", "route[1].hedge: repeats what an upstream gets"},
           {"concurrency = {}", "route[1].concurrency: limits what an upstream has to do"},
           {"rate_limit = { rate = 5 }", ""},
           {"fault = { abort = 503 }", "warning: route[1].fault: injects"}});
}

TEST(ConfigPolicies, ContradictionsOnACluster) {
    check(
        with_cluster,
        {{"[cluster.health]\ninterval = \"1s\"\ntimeout = \"2s\"",
          "f.toml:13:11: cluster[1].health.timeout: 2s is above interval (1s)"},
         {"health = { timeout = \"3s\" }", "timeout: 3s is above interval (2s, the default)"},
         {"health = { interval = \"100ms\" }", "interval: 100ms is below timeout (500ms, the default)"},
         {"health = { detector = \"phi\", unhealthy_after = 3 }",
          "unhealthy_after: is of the detector \"count\""},
         {"health = { phi_threshold = 8 }", "phi_threshold: is of the detector \"phi\""},
         {"health = { detector = \"count\", phi_threshold = 8 }",
          "phi_threshold: is of the detector \"phi\""},
         {"health = { kind = \"tcp\", path = \"/\" }", "health.path: is of kind \"http\""},
         {"health = { kind = \"tcp\", host = \"a\" }", "health.host: is of kind \"http\""},
         {"limits = { max_pending = 0, hold = \"1s\" }", "limits.hold: needs a bound: max_pending = 0"},
         {"limits = { max_pending = 0, hold = \"0s\" }", ""},
         {"channel = { connections = 4 }",
          "warning: cluster[1].channel.connections: has no effect without mode = \"pipelined\""},
         {"channel = { depth = 4 }", "warning: cluster[1].channel.depth: has no effect"},
         {"channel = { stall_timeout = \"2s\" }", "warning: cluster[1].channel.stall_timeout: has no effect"},
         {"channel = { mode = \"pooled\", connections = 4 }", ""},  // ready to be switched
         {"channel = { mode = \"pipelined\", connections = 4 }", ""},
         {"panic_percent = 50", "warning: cluster[1].panic_percent: has no effect"},
         {"panic_percent = 0", ""},
         {"panic_percent = 50\nhealth = {}", ""},
         {"panic_percent = 50\noutlier = {}", ""},
         {"panic_percent = 50\nhealth = {}\nlimits = { hold = \"1s\" }",
          "warning: cluster[1].panic_percent: with it limits.hold never waits"},
         {"limits = { hold = \"5m\" }", ""}});
    const std::string shorter = with_cluster("limits = { hold = \"2m\" }");
    const std::string cluster = "cluster = \"app\"\n";
    std::string text = shorter;
    text.insert(text.find(cluster) + cluster.size(), "timeout = \"1m\"\n");
    EXPECT_THAT(
        lines_of(parse_text(text)),
        ElementsAre(HasSubstr("cluster[1].limits.hold: route 'route-1' ends before, after 1m (timeout)")));
}

// A value that is wrong keeps its default, which nobody wrote: nothing is held against it.
TEST(ConfigPolicies, AWrongValueIsNoContradictionAsWell) {
    check(forwarding, {{"timeout = \"1x\"\nretry = { per_try_timeout = \"10m\" }", "timeout: '1x'"},
                       {"retry = { backoff = { base = \"1x\", max = \"1ms\" } }", "backoff.base: '1x'"},
                       {"concurrency = { min = 0, max = 2 }", "concurrency.min: 0 is out of range"},
                       {"fault = { delay = \"1x\" }", "fault.delay: '1x'"}});
}

std::string three_workers(std::string_view lines) {
    return "[runtime]\nworkers = 3\n" + with_cluster(lines);
}

TEST(ConfigPolicies, AShareBelowOneForEachWorkerIsPointedOut) {
    check(
        three_workers,
        {{"[cluster.limits]\nmax_connections = 2",
          "f.toml:14:19: warning: cluster[1].limits.max_connections: 2 for 3 workers (runtime.workers): each "
          "gets at least one, so that it is 3 in all"},
         {"limits = { max_connections = 3 }", ""},
         {"limits = { max_connections = 0 }", ""}});
    // How many cores there will be is not known here.
    check(with_cluster, {{"limits = { max_connections = 1 }", ""}});
    const std::string concurrency = "[runtime]\nworkers = 9\n" + forwarding("concurrency = { max = 8 }");
    EXPECT_THAT(lines_of(parse_text(concurrency)),
                ElementsAre(HasSubstr("warning: route[1].concurrency.max: 8 for 9 workers")));
}

TEST(ConfigPolicies, EverySectionOfTheFullFileIsRight) {
    const LoadResult result = load_file(OUTRIDER_CORPUS "/full.toml");
    EXPECT_TRUE(result.settings);
    EXPECT_THAT(lines_of(result), ElementsAre(HasSubstr("fault: injects faults into 1% of the requests")));
}

}  // namespace
}  // namespace outrider::config
