// The settings of one sidecar as plain structs: what a configuration file means after defaults,
// environment substitution and validation. No parsing here, no pointers between parts (names refer).
//
// Every field: its TOML key in snake_case is the same as its name unless a comment says otherwise;
// the default below is the default users get; docs/configuration.md says the trade-off.
#pragma once

#include <cstddef>
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
    Duration
        spin{};  // poll this long before sleeping while an answer is outstanding, or behind one; 0 = never
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

// What may be repeated (`on`): a set of outcomes of an attempt and of response statuses.
struct RetryOn {
    bool connect = true;   // "connect": refused, unreachable, no connection within connect_timeout
    bool reset = true;     // "reset": closed or reset before the response's head
    bool timeout = true;   // "timeout": per_try_timeout or the cluster's read_timeout passed
    bool any_5xx = false;  // "5xx": every status from 500 to 599
    std::vector<int> statuses{502, 503, 504};  // "503": 400 to 599, sorted, each once
    friend bool operator==(const RetryOn&, const RetryOn&) = default;
};

// Only safe or idempotent methods (RFC 9110 section 9.2.2); others only when no byte of the request left.
struct RetrySettings {
    std::uint32_t attempts = 3;   // in all, the first included; 1 to 10
    Duration per_try_timeout{0};  // until the response's head; 0 = none; not above route.timeout
    RetryOn on;
    Duration backoff_base = 25ms;  // backoff.base: the first wait is uniform in [0, base]
    Duration backoff_max = 250ms;  // backoff.max: doubling ends here
    double budget_ratio = 0.2;     // budget.ratio: of the requests of the last second; 0 to 1
    std::uint32_t budget_min_per_second =
        3;                      // budget.min_per_second: always allowed, whole process; 0 to 1000
    Bytes max_body{64 * 1024};  // kept for a repetition; a longer body is not repeated; up to 1MiB
    friend bool operator==(const RetrySettings&, const RetrySettings&) = default;
};

// after = "p95" | "20ms". A second attempt beside the first one; the first good answer wins.
struct HedgeSettings {
    Duration after{0};       // fixed; when percentile is 0
    double percentile = 0;   // 50 to 99.9 of the route's own recent latency
    Duration fallback = 1s;  // until enough latencies are known
    friend bool operator==(const HedgeSettings&, const HedgeSettings&) = default;
};

enum class RateKeyKind : std::uint8_t { kNone, kHeader, kSource };
struct RateKey {
    RateKeyKind kind = RateKeyKind::kNone;  // one bucket for the route | "header:NAME" | "source"
    std::string name;
    friend bool operator==(const RateKey&, const RateKey&) = default;
};
struct RateLimitSettings {
    double rate = 0;          // requests per second, whole process; required; 0.001 to 1,000,000
    std::uint32_t burst = 0;  // default: rate, rounded up; 1 to 1,000,000
    RateKey key;
    std::uint32_t max_keys = 10000;  // 1 to 1,000,000; beyond it unknown keys share one bucket
    friend bool operator==(const RateLimitSettings&, const RateLimitSettings&) = default;
};

// Adaptive limit on requests in flight (gradient of measured latency).
struct ConcurrencySettings {
    std::uint32_t max = 512;  // whole process, an equal share each worker; 1 to 1,000,000
    std::uint32_t min = 4;    // never below, whole process; 1 to max
    friend bool operator==(const ConcurrencySettings&, const ConcurrencySettings&) = default;
};

struct FaultSettings {
    double percent = 100;  // of the requests; 0 to 100
    Duration delay{0};     // before the request goes on; 0 = none; up to 5m
    int abort = 0;         // answer with this status instead; 0 = none; 400 to 599
    friend bool operator==(const FaultSettings&, const FaultSettings&) = default;
};

// What distinguishes callers: scope = ["header:Authorization", "query:tenant", "source"]
enum class ScopeKind : std::uint8_t { kHeader, kQuery, kSource };
struct ScopeEntry {
    ScopeKind kind = ScopeKind::kHeader;
    std::string name;    // of the header or query parameter
    std::string as_set;  // as it was written: goes into the key
    friend bool operator==(const ScopeEntry&, const ScopeEntry&) = default;
};
enum class KeySyntax : std::uint8_t { kStrict, kLenient };  // strict: RFC 9651 String only
enum class InFlight : std::uint8_t { kWait, kConflict };
enum class OnStoreError : std::uint8_t { kReject, kForward };
enum class OnUnknown : std::uint8_t { kReject, kReexecute };
enum class RecordAnswers : std::uint8_t { kAll, kBelow500 };  // "all" | "2xx-4xx"

// [route.idempotency]
struct IdempotencySettings {
    std::string header = "Idempotency-Key";
    KeySyntax syntax = KeySyntax::kLenient;
    bool require = false;                               // no key: 400
    std::vector<std::string> methods{"POST", "PATCH"};  // others pass by; "*" is not allowed
    std::vector<ScopeEntry> scope;                      // default: the Authorization header; up to 8
    Duration window = 24h;                              // 1s to 30 days, from the first request on
    std::string store;                                  // required: a [store.NAME]
    InFlight in_flight = InFlight::kWait;
    Duration wait_timeout = 10s;     // 1ms to 5m
    Bytes max_request{1024 * 1024};  // 0B to 16MiB; above it 413
    Bytes max_response{256 * 1024};  // 0B to 16MiB; above it the answer is not kept
    OnStoreError on_store_error = OnStoreError::kReject;
    OnUnknown on_unknown = OnUnknown::kReject;
    RecordAnswers record = RecordAnswers::kAll;
    std::string
        policy_url;  // the published promise, linked in every problem this filter makes; empty: docs of outrider
    friend bool operator==(const IdempotencySettings&, const IdempotencySettings&) = default;
};

// [route.collapse]: identical requests at the same time share one upstream call.
struct CollapseSettings {
    std::vector<std::string> vary;  // fields that make requests different; up to 16, none twice
    friend bool operator==(const CollapseSettings&, const CollapseSettings&) = default;
};

enum class BatchFormat : std::uint8_t { kJsonArray, kNdjson, kJsonRpc };

// [route.batch]: small POST requests leave together, in one call of the upstream's bulk interface.
struct BatchSettings {
    BatchFormat format = BatchFormat::kJsonArray;  // required
    std::string path;                              // required: of the call, as the upstream sees it
    std::uint32_t max_items = 100;                 // 1 to 10000
    Bytes max_bytes{1024 * 1024};                  // 1KiB to 16MiB: of a call, and so of a member
    Duration linger{};                             // 0s to 1s
    bool envelope = false;                         // not with json-rpc
    bool split_on_failure = true;
    friend bool operator==(const BatchSettings&, const BatchSettings&) = default;
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
    std::optional<RetrySettings> retry;
    std::optional<HedgeSettings> hedge;
    std::optional<RateLimitSettings> rate_limit;
    std::optional<ConcurrencySettings> concurrency;
    std::optional<FaultSettings> fault;
    std::optional<IdempotencySettings> idempotency;
    std::optional<CollapseSettings> collapse;
    std::optional<BatchSettings> batch;
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

enum class HealthKind : std::uint8_t { kHttp, kTcp };
enum class HealthDetectorKind : std::uint8_t { kCount, kPhi };

// Active checks, made by the main thread for the whole process.
struct HealthSettings {
    HealthKind kind = HealthKind::kHttp;
    std::string path = "/";    // http only
    std::string host;          // http only; default: the endpoint's address
    Duration interval = 2s;    // each wait is drawn from [0.8, 1.0] of it; 10ms to 1h
    Duration timeout = 500ms;  // from connecting to the last byte that is looked at; not above interval
    std::uint32_t unhealthy_after = 3;  // failures in a row; 1 to 100; count only
    std::uint32_t healthy_after = 2;    // successes in a row; 1 to 100
    HealthDetectorKind detector = HealthDetectorKind::kCount;
    double phi_threshold = 8;  // 1 to 16; phi only
    friend bool operator==(const HealthSettings&, const HealthSettings&) = default;
};

// Passive ejection, whole process.
struct OutlierSettings {
    std::uint32_t consecutive_failures = 5;  // 1 to 1000
    Duration ejection = 30s;  // the first; doubles with each ejection in a row up to 10 times this
    std::uint32_t max_ejected_percent = 50;  // 0 to 100, rounded down, but at least one of several endpoints
    friend bool operator==(const OutlierSettings&, const OutlierSettings&) = default;
};

// 0 = no limit.
struct LimitSettings {
    std::uint32_t max_connections = 0;  // upstream, whole process, an equal share each worker
    std::uint32_t max_pending = 1024;   // requests that wait for a connection or an endpoint, whole process
    std::uint32_t max_requests = 0;     // attempts in flight, whole process
    Duration hold{0};  // wait so long for a usable endpoint; 0 = answer 503 at once; up to 5m
    friend bool operator==(const LimitSettings&, const LimitSettings&) = default;
};

enum class ChannelMode : std::uint8_t { kPooled, kPipelined };

// How requests share connections to an endpoint, each worker for itself.
struct ChannelSettings {
    ChannelMode mode = ChannelMode::kPooled;
    std::uint32_t connections = 2;  // 1 to 64; pipelined sockets an endpoint and worker
    std::uint32_t depth = 64;       // 1 to 1024; requests in flight on one of them
    Duration stall_timeout = 1s;    // 1ms to 1h; a response that takes longer moves new requests away
    friend bool operator==(const ChannelSettings&, const ChannelSettings&) = default;
};

inline constexpr std::size_t kEndpointsMax = 4096;  // of a cluster, listed or discovered

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
    std::optional<HealthSettings> health;
    std::optional<OutlierSettings> outlier;
    LimitSettings limits;
    ChannelSettings channel;
    // When less than this share of the endpoints is healthy and not ejected, health is disregarded and all are used:
    // the checks are then more likely wrong than the endpoints. 0 = never; 0 to 100.
    std::uint32_t panic_percent = 0;
    friend bool operator==(const ClusterSettings&, const ClusterSettings&) = default;
};

enum class StoreKind : std::uint8_t { kMemory, kLog, kRedis };
enum class SyncMode : std::uint8_t { kGroup, kNone };

// redis://[user:password@]host[:6379][/db], or redis-sentinel://[user:password@]h1[:26379],h2/name[/db]
struct RedisUrl {
    bool sentinel = false;
    std::vector<HostPort> hosts;  // one, or the sentinels (1 to 16)
    std::string service;          // sentinel: the master's name
    std::string user;
    std::string password;  // never printed
    std::uint32_t db = 0;
    friend bool operator==(const RedisUrl&, const RedisUrl&) = default;
};

// [store.NAME]: where idempotency keys are kept.
struct StoreSettings {
    std::string name;
    StoreKind kind = StoreKind::kMemory;
    Bytes max_memory{256 << 20};        // memory and log: of keys and answers; 1MiB to 1TiB
    std::uint32_t max_waiting = 10000;  // duplicates parked at once, whole process; 0 to 1,000,000
    // log
    std::string path;  // a directory; required
    SyncMode sync = SyncMode::kGroup;
    Bytes segment_bytes{64 << 20};  // 1MiB to 1GiB
    // redis
    RedisUrl url;                       // required
    Duration operation_timeout = 50ms;  // 1ms to 10s
    Duration connect_timeout = 1s;      // 1ms to 1m
    std::string prefix = "outrider:";   // of every key; up to 64 printable characters
    friend bool operator==(const StoreSettings&, const StoreSettings&) = default;
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
    std::vector<StoreSettings> stores;  // by name
    friend bool operator==(const Settings&, const Settings&) = default;
};

}  // namespace outrider::config
