// Every key's grammar and range, one row each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_helpers.h"

namespace outrider::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string before_smallest(std::string_view lines) {
    return std::string(lines) + "\n" + smallest_file();
}

TEST(ConfigValues, OfTheProcess) {
    check(before_smallest, {{"node.name = \"ledger-0.ledger\"", ""},
                            {"node.name = \"\"", ""},
                            {"node.name = \"a b\"", "node.name: 'a b' is not a name"},
                            {"node.address = \"::1\"", ""},
                            {"node.address = \"[::1]\"", ""},
                            {"node.address = \"10.0.0.1:80\"", "is not a host"},
                            {"node.address = \"10.0.0.256\"", "is not a host"},
                            {"node = 5", "node: expected a table, found an integer"},
                            {"runtime.workers = 256", ""},
                            {"runtime.workers = 257", "257 is out of range (0 to 256)"},
                            {"runtime.workers = -1", "-1 is out of range"},
                            {"runtime.workers = 1.5", "expected an integer, found a number"},
                            {"runtime.max_connections = 0", "0 is out of range (1 to 1000000)"},
                            {"runtime.spin = \"0us\"", ""},
                            {"runtime.spin = \"10ms\"", ""},
                            {"runtime.spin = \"11ms\"", "11ms is out of range (0s to 10ms)"},
                            {"runtime.spin = 50", "a unit is needed"},
                            {"admin.listen = \"127.0.0.1:0\"", ""},
                            {"admin.listen = \"*:9901\"", "(0.0.0.0:9901 listens on every IPv4 address)"},
                            {"admin.listen = \":9901\"", "lacks the address to listen on"},
                            {"admin.listen = \"example.com:9901\"", "must be a literal address or localhost"},
                            {"admin.listen = \"127.0.0.1\"", "lacks a port (0 to 65535)"},
                            {"admin.status_listen = \"[::]:9902\"", ""},
                            {"admin.status_listen = \"::1:9902\"", "an IPv6 address stands in brackets"},
                            {"log.level = \"warning\"", ""},
                            {"log.level = \"warn\"", "(did you mean 'warning'?)"},
                            {"log.access = \"off\"", ""},
                            {"log.access = \"/var/log/access.log\"", ""},
                            {"log.access = \"stdou\"", "(did you mean 'stdout'?)"},
                            {"log.access = \"/var/log/\"", "is not a file path"},
                            {"log.access = \"\"", "neither"},
                            {"log.access_format = \"JSON\"", "(did you mean 'json'?)"},
                            {"drain.timeout = \"0s\"", ""},
                            {"drain.timeout = \"-1s\"", "is not a duration"},
                            {"drain.delay = \"25h\"", "25h is out of range (0s to 1d)"},
                            {"drain.delay = 1979-05-27", "found a date or time"}});
}

TEST(ConfigValues, OfAListener) {
    check(file_with_listener,
          {{"header_timeout = \"10ms\"", ""},
           {"header_timeout = \"9ms\"", "9ms is out of range (10ms to 1d)"},
           {"idle_timeout = \"0s\"", "out of range"},
           {"body_idle_timeout = true", "expected a duration such as \"250ms\", found a boolean"},
           {"min_body_rate = \"0\"", ""},
           {"min_read_rate = 500", "a unit is needed: \"500B\""},
           {"max_header_bytes = \"2MiB\"", "2MiB is out of range (1KiB to 1MiB)"},
           {"max_header_bytes = \"1023B\"", "out of range"},
           {"max_headers = 1001", "out of range (1 to 1000)"},
           {"max_target_bytes = \"64KiB\"", "warning: listener[1].max_target_bytes: is more than"},
           {"max_body_bytes = \"1GiB\"", ""},
           {"max_pipelined = 0", "out of range (1 to 256)"},
           {"trust_forwarded = \"yes\"", "expected true or false, found a string"}});
}

TEST(ConfigValues, OfARoutesMatch) {
    check(file_with_route,
          {{"cluster = \"app\"\nmatch = {}", ""},
           {"cluster = \"app\"\nmatch = { host = \"*.Example.com\" }", ""},
           {"cluster = \"app\"\nmatch = { host = \"[::1]\" }", ""},
           {"cluster = \"app\"\nmatch = { host = \"*\" }", "leave the key out to match every host"},
           {"cluster = \"app\"\nmatch = { host = \"a.example:80\" }", "must be without a port"},
           {"cluster = \"app\"\nmatch = { host = \"a.*.example\" }", "is not a host to match"},
           {"cluster = \"app\"\nmatch = { host = \"*.10.0.0.1\" }", "is not a host to match"},
           {"cluster = \"app\"\nmatch = { path = \"pay\" }", "must begin with '/'"},
           {"cluster = \"app\"\nmatch = { path = \"/pay?x=1\" }", "without '?'"},
           {"cluster = \"app\"\nmatch = { path = \"/a b\" }", "percent-encoded"},
           {"cluster = \"app\"\nmatch = { path_prefix = \"/\u00e4\" }", "percent-encoded"},
           {"cluster = \"app\"\nmatch = { path = \"/a\", path_prefix = \"/b\" }", "exclude each other"},
           {"cluster = \"app\"\nmatch = { methods = [\"GET\", \"PROPFIND\"] }", ""},
           {"cluster = \"app\"\nmatch = { methods = [] }", "match.methods: is empty"},
           {"cluster = \"app\"\nmatch = { methods = [\"GET\", 5] }", "methods[2]: expected a string"},
           {"cluster = \"app\"\nmatch = { methods = [\"CONNECT\"] }", "CONNECT is not forwarded"},
           {"cluster = \"app\"\nmatch = { methods = \"GET\" }", "expected an array of strings"},
           {"cluster = \"app\"\nmatch = { headers = { \"X A\" = \"1\" } }", "is not a header name"},
           {"cluster = \"app\"\nmatch = { headers = { X-A = \"1\", x-a = \"2\" } }", "is there twice"},
           {"cluster = \"app\"\nmatch = { headers = { Host = \"a\" } }", "is matched by match.host"},
           {"cluster = \"app\"\nmatch = { headers = { X-A = \"a\\nb\" } }", "control characters"},
           {"cluster = \"app\"\nmatch = { paths = \"/a\" }", "(did you mean 'path'?)"}});
}

TEST(ConfigValues, OfARoutesTarget) {
    check(file_with_route,
          {{"cluster = \"app\"\nrespond = { status = 404 }",
            "only one of cluster, clusters, respond and redirect may be given (there are: cluster, "
            "respond)"},
           {"clusters = [{ name = \"app\", weight = 1000000 }]", ""},
           {"clusters = []", "clusters: is empty"},
           {"clusters = [{ name = \"app\", weight = 0 }]", "at least one weight must be above 0"},
           {"clusters = [{ name = \"app\" }, { name = \"app\" }]", "is listed twice"},
           {"clusters = [{ name = \"app\", weight = -1 }]", "clusters[1].weight: -1 is out of range"},
           {"clusters = [{ name = \"app\" }, { name = \"ap\" }]",
            "route[1].clusters[2].name: there is no cluster named 'ap' (did you mean 'app'?)"},
           {"cluster = \"app\"\ntimeout = \"0s\"", ""},
           {"cluster = \"app\"\ntimeout = \"31d\"", "31d is out of range (0s to 30d)"},
           {"cluster = \"app\"\nname = \"with space\"", "is not a name"},
           {"cluster = \"app\"\nrewrite = { prefix = \"/v2\", host = \"b.example:81\" }", ""},
           {"cluster = \"app\"\nrewrite = { prefix = \"v2\" }", "must begin with '/'"},
           {"cluster = \"app\"\nrewrite = { host = \"b example\" }", "is not a host or host:port"},
           {"cluster = \"app\"\nmirror = { cluster = \"app\", percent = 0.5 }", ""},
           {"cluster = \"app\"\nmirror = { cluster = \"app\", percent = 101 }",
            "101 is out of range (0 to 100)"},
           {"cluster = \"app\"\nmirror = { cluster = \"app\", percent = nan }", "nan is out of range"},
           {"cluster = \"app\"\nmirror = { percent = 5 }", "mirror.cluster: missing"},
           {"cluster = \"app\"\nmirror = { cluster = \"apq\" }",
            "mirror.cluster: there is no cluster named 'apq'"}});
}

std::string answering(std::string_view lines) {
    return "[[listener]]\nname = \"in\"\nlisten = \"127.0.0.1:0\"\n[[route]]\nlistener = \"in\"\n" +
           std::string(lines) + "\n";
}

TEST(ConfigValues, OfARouteThatAnswersItself) {
    check(answering,
          {{"respond = {}", ""},
           {"respond = { status = 204 }", ""},
           {"respond = { status = 204, body = \"x\" }", "a response with status 204 has no body"},
           {"respond = { status = 199 }", "199 is out of range (200 to 599)"},
           {"respond = { content_type = \"\" }", "must not be empty"},
           {"respond = { content_type = \"a\\r\\nb\" }", "control characters"},
           {"redirect = { scheme = \"https\" }", ""},
           {"redirect = { prefix = \"/v2\", keep_query = false, status = 302 }", ""},
           {"redirect = {}", "would redirect to the same place"},
           {"redirect = { status = 304, path = \"/\" }", "304 is not a redirect"},
           {"redirect = { status = 200, path = \"/\" }", "200 is out of range"},
           {"redirect = { path = \"/\", prefix = \"/\" }", "exclude each other"},
           {"redirect = { scheme = \"ftp\" }", "is not http or https"},
           {"redirect = { path = \"/\" }\nrewrite = { prefix = \"/\" }", "this route has no cluster"},
           {"", "route[1]: a route needs one of cluster, clusters, respond or redirect"}});
}

TEST(ConfigValues, OfHeaderRules) {
    const auto make = [](std::string_view rules) {
        return file_with_route("cluster = \"app\"\nheaders = { request = " + std::string(rules) + " }");
    };
    check(make, {{"{ set = {}, remove = [] }", ""},
                 {"{ set = { X-A = \"\" }, add = { X-B = [\"1\", \"2\"], X-C = \"3\" } }", ""},
                 {"{ set = { X-A = [\"1\"] } }", "expected a string, found an array"},
                 {"{ add = { X-A = 1 } }", "expected a string or an array of strings"},
                 {"{ set = { X-A = \"a\\rb\" } }", "control characters"},
                 {"{ set = { X-A = \" a\" } }", "white space"},
                 {"{ set = { \"X:A\" = \"a\" } }", "is not a header name"},
                 {"{ set = { X-A = \"1\", X-a = \"2\" } }", "is there twice"},
                 {"{ set = { host = \"a\" } }", "use rewrite = { host"},
                 {"{ replace = {} }", "unknown key"}});
    for (const char* name : {"Connection", "Content-Length", "transfer-encoding", "TE", "Trailer", "Upgrade",
                             "Keep-Alive", "Proxy-Connection"}) {
        check(make, {{"{ remove = [\"" + std::string(name) + "\"] }", "rules cannot touch it"},
                     {"{ set = { " + std::string(name) + " = \"x\" } }", "rules cannot touch it"}});
    }
}

TEST(ConfigValues, OfACluster) {
    check(file_with_cluster,
          {{"endpoints = [\"10.0.0.1:80\", \"[fe80::1]:80\", \"app.default.svc:80\", \"a_b:80\"]", ""},
           {"endpoints = []", "endpoints: is empty"},
           {"endpoints = [\"app\"]", "lacks a port (1 to 65535)"},
           {"endpoints = [\"app:0\"]", "has a bad port"},
           {"endpoints = [\"http://app:80\"]", "is not an address"},
           {"endpoints = [\"-a:80\"]", "is not an address"},
           {"endpoints = [\"1.2.3:80\"]", "is not an address"},
           {"endpoints = [\"a:80\", \"a:80\"]", "warning: cluster[1].endpoints: a:80 is listed twice"},
           {"", "a cluster needs endpoints"},
           {"endpoints = [\"a:80\"]\ndiscover = \"dns:a:80\"", "exclude each other"},
           {"discover = \"dns:a.example:80\"", ""},
           {"discover = \"dns-srv:_http._tcp.a.example\"", ""},
           {"discover = \"dns:a.example\"", "lacks a port"},
           {"discover = \"dns:10.0.0.1:80\"", "list it under endpoints"},
           {"discover = \"dns-srv:a:80\"", "is not the DNS name of SRV records"},
           {"discover = \"gossip:ledger\"", "is not a discovery (dns:NAME:PORT or dns-srv:NAME)"},
           {"endpoints = [\"a:80\"]\nbalance = \"ring_hash\"\nhash_key = \"path\"",
            "(did you mean 'ring-hash'?)"},
           {"endpoints = [\"a:80\"]\nbalance = \"maglev\"\nhash_key = \"header:X-User\"", ""},
           {"endpoints = [\"a:80\"]\nbalance = \"maglev\"\nhash_key = \"header:\"", "is not a hash key"},
           {"endpoints = [\"a:80\"]\nbalance = \"maglev\"", "needs hash_key"},
           {"endpoints = [\"a:80\"]\nconnect_timeout = \"0s\"", "out of range (1ms to 1d)"},
           {"endpoints = [\"a:80\"]\nread_timeout = \"0s\"", ""}});
}

TEST(ConfigValues, AHashKeyWithoutAHashingBalancerIsWarnedAbout) {
    // Once for itself, and not as an error.
    const LoadResult result = parse_text(file_with_cluster("endpoints = [\"a:80\"]\nhash_key = \"source\""));
    EXPECT_TRUE(result.settings);
    EXPECT_THAT(lines_of(result), ElementsAre(HasSubstr("warning: cluster[1].hash_key: has no effect")));
}

}  // namespace
}  // namespace outrider::config
