// The settings of one sidecar as plain structs: what a configuration file means after defaults,
// environment substitution and validation. No parsing here, no pointers between parts (names refer).
//
// Every field: its TOML key in snake_case is the same as its name unless a comment says otherwise;
// the default below is the default users get; docs/configuration.md says the trade-off.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/time.h"
#include "base/units.h"

namespace outrider::config {

using namespace std::chrono_literals;  // NOLINT: literals only

// A numeric or named host with a port. IPv6 hosts are written "[::1]:8080" and kept without brackets.
struct HostPort {
    std::string host;
    std::uint16_t port = 0;
    friend bool operator==(const HostPort&, const HostPort&) = default;
};
std::string to_string(const HostPort& address);

struct NodeSettings {
    std::string name;     // default: the host name; appears in Via, Proxy-Status and /server_info
    std::string service;  // shown in /server_info
    std::string address = "127.0.0.1";
    std::string zone;
    friend bool operator==(const NodeSettings&, const NodeSettings&) = default;
};

struct RuntimeSettings {
    unsigned workers = 0;                   // 0 = one per core; at most 256
    std::uint32_t max_connections = 20000;  // downstream, whole process; above it: 503 and close
    friend bool operator==(const RuntimeSettings&, const RuntimeSettings&) = default;
};

struct AdminSettings {
    HostPort listen{"127.0.0.1", 9901};
    std::optional<HostPort> status_listen;  // only /ready /live /metrics
    friend bool operator==(const AdminSettings&, const AdminSettings&) = default;
};

enum class AccessFormat : std::uint8_t { kText, kJson };

struct LogSettings {
    std::string level = "info";
    std::string access = "stdout";  // a path | "stdout" | "off"
    AccessFormat access_format = AccessFormat::kText;
    friend bool operator==(const LogSettings&, const LogSettings&) = default;
};

struct DrainSettings {
    Duration delay = 5s;
    Duration timeout = 25s;
    friend bool operator==(const DrainSettings&, const DrainSettings&) = default;
};

struct ListenerSettings {
    std::string name;
    HostPort listen;
    Duration header_timeout = 10s;
    Duration idle_timeout = 75s;
    Duration body_idle_timeout = 30s;
    Bytes min_body_rate{500};           // per second; 0 = off
    Bytes min_read_rate{500};           // per second; 0 = off
    Bytes max_header_bytes{32 * 1024};  // 1KiB to 1MiB
    std::uint32_t max_headers = 100;    // 1 to 1000
    Bytes max_target_bytes{8 * 1024};   // longer request targets: 414
    Bytes max_body_bytes{0};            // 0 = no limit; a longer request body: 413
    std::uint32_t max_pipelined =
        16;  // requests taken from one connection before the first is answered; 1 to 256
    bool trust_forwarded = false;
    friend bool operator==(const ListenerSettings&, const ListenerSettings&) = default;
};

struct HeaderMatch {
    std::string name;
    std::string value;  // exact
    friend bool operator==(const HeaderMatch&, const HeaderMatch&) = default;
};

// Everything given must hold. Empty = matches anything.
struct MatchSettings {
    std::string host;         // exact, without port, lower case; "*.example.com" matches every sub-domain
    std::string path;         // exact path, without query
    std::string path_prefix;  // whole segments: "/pay" matches /pay, /pay/x and /pay?q, not /payments
    std::vector<std::string> methods;
    std::vector<HeaderMatch> headers;
    friend bool operator==(const MatchSettings&, const MatchSettings&) = default;
};

struct WeightedCluster {
    std::string name;
    std::uint32_t weight = 1;  // 0 to 1,000,000; at least one above 0
    friend bool operator==(const WeightedCluster&, const WeightedCluster&) = default;
};

// A direct response.
struct RespondSettings {
    int status = 200;  // 200 to 599
    std::string body;
    std::string content_type = "text/plain; charset=utf-8";
    friend bool operator==(const RespondSettings&, const RespondSettings&) = default;
};

// redirect = { status = 308, scheme = "https", host = "new.example", path = "/x" | prefix = "/v2", keep_query = true }
// What is not given is kept from the request. `prefix` replaces the matched path_prefix.
struct RedirectSettings {
    int status = 308;  // 301 302 303 307 308
    std::string scheme;
    std::string host;  // may carry a port
    std::string path;
    std::optional<std::string> prefix;
    bool keep_query = true;
    friend bool operator==(const RedirectSettings&, const RedirectSettings&) = default;
};

struct RewriteSettings {
    std::optional<std::string> prefix;  // replaces the matched path_prefix (or "/" when none)
    std::string host;                   // sent upstream as Host; empty keeps the client's
    friend bool operator==(const RewriteSettings&, const RewriteSettings&) = default;
};

// Applied remove first, then set (replaces every line of that name), then add.
struct HeaderRules {
    std::vector<std::pair<std::string, std::string>> set;
    std::vector<std::pair<std::string, std::string>> add;
    std::vector<std::string> remove;
    bool empty() const { return set.empty() && add.empty() && remove.empty(); }
    friend bool operator==(const HeaderRules&, const HeaderRules&) = default;
};

struct MirrorSettings {
    std::string cluster;
    double percent = 100;  // 0 to 100
    friend bool operator==(const MirrorSettings&, const MirrorSettings&) = default;
};

struct RouteSettings {
    std::string name;  // default: "route-N", N counted from 1 in file order
    std::string listener;
    MatchSettings match;
    // Exactly one of these: clusters (one entry for `cluster = "…"`), respond, redirect.
    std::vector<WeightedCluster> clusters;
    std::optional<RespondSettings> respond;
    std::optional<RedirectSettings> redirect;
    Duration timeout = 5min;  // whole exchange from the request's head to the response's last byte; 0 = none
    RewriteSettings rewrite;
    HeaderRules request_headers;   // headers.request
    HeaderRules response_headers;  // headers.response
    std::optional<MirrorSettings> mirror;
    friend bool operator==(const RouteSettings&, const RouteSettings&) = default;
};

enum class Balance : std::uint8_t { kRoundRobin, kLeastRequest, kRingHash, kMaglev };

// hash_key = "header:NAME" | "query:NAME" | "cookie:NAME" | "path" | "source" (the client's address)
struct HashKey {
    enum class Kind : std::uint8_t { kHeader, kQuery, kCookie, kPath, kSource };
    Kind kind = Kind::kSource;
    std::string name;
    friend bool operator==(const HashKey&, const HashKey&) = default;
};

enum class DiscoverKind : std::uint8_t { kDns, kDnsSrv };
struct Discover {
    DiscoverKind kind = DiscoverKind::kDns;
    std::string name;        // host name, or the SRV owner name (_http._tcp.example)
    std::uint16_t port = 0;  // dns only
    friend bool operator==(const Discover&, const Discover&) = default;
};

struct ClusterSettings {
    std::string name;
    std::vector<HostPort>
        endpoints;  // literal addresses, or names resolved by DNS (every address is an endpoint)
    std::optional<Discover> discover;  // "dns:name:port" | "dns-srv:name"
    Balance balance = Balance::kLeastRequest;
    std::optional<HashKey> hash_key;  // required for ring-hash and maglev
    Duration connect_timeout = 1s;
    Duration read_timeout =
        60s;  // no byte from the upstream for so long while its answer is outstanding; 0 = none
    Duration idle_timeout = 55s;  // a pooled connection unused for so long is closed
    friend bool operator==(const ClusterSettings&, const ClusterSettings&) = default;
};

struct Settings {
    NodeSettings node;
    RuntimeSettings runtime;
    AdminSettings admin;
    LogSettings log;
    DrainSettings drain;
    std::vector<ListenerSettings> listeners;
    std::vector<RouteSettings> routes;
    std::vector<ClusterSettings> clusters;
    friend bool operator==(const Settings&, const Settings&) = default;
};

}  // namespace outrider::config
