// One configuration, ready to serve: immutable, shared by every worker, swapped as a whole between requests.
//
// Built on the main thread from validated settings; exchanges that began under an older snapshot end under it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/http/server_connection.h"
#include "base/metrics.h"
#include "base/uv/tcp_stream.h"
#include "config/settings.h"
#include "filters/filter.h"
#include "filters/key_outcome.h"
#include "filters/policy/idempotency.h"
#include "filters/policy/retry.h"
#include "filters/policy/weighted_pick.h"
#include "filters/rate_limiter.h"
#include "filters/route_policies.h"
#include "idempotency/store.h"

namespace outrider::proxy {

class ClusterHealth;
class EndpointHealth;

// What one worker counts for a (listener, route, cluster).
struct RouteCells {
    StatusCounters* requests = nullptr;
    Histogram* duration = nullptr;
};
// Of a cluster with [cluster.channel] mode = "pipelined"; all null otherwise.
struct PipelineCells {
    Gauge* depth = nullptr;       // requests that ride now
    Counter* requests = nullptr;  // those that have ridden
    Counter* stalls = nullptr;
    Counter* fallbacks = nullptr;
    Counter* replays = nullptr;
    Counter* returned = nullptr;  // outcome="returned"
};
struct ClusterCells {
    Counter* success = nullptr;  // outcome="success": a whole response, whatever its status
    Counter* connect_failed = nullptr;
    Counter* connect_timeout = nullptr;
    Counter* reset = nullptr;
    Counter* incomplete = nullptr;
    Counter* protocol_error = nullptr;
    Counter* timeout = nullptr;
    Counter* canceled = nullptr;  // the client went away, or the route's time was over
    Counter* discarded =
        nullptr;  // its answer was not used: the request was repeated, or another attempt was quicker
    Gauge* connections = nullptr;
    Gauge* in_flight = nullptr;
    Gauge* pending = nullptr;              // requests that wait for an endpoint or a connection
    Counter* held = nullptr;               // requests that had to wait
    Counter* overflow_requests = nullptr;  // refused: max_requests
    Counter* overflow_pending = nullptr;   // refused: max_pending
    PipelineCells pipeline;
};

// What one worker counts of a route's policies.
struct PolicyCells {
    Counter* retries = nullptr;
    Counter* budget_exhausted = nullptr;
    Counter* hedges = nullptr;
    Counter* hedges_won = nullptr;
    Counter* rate_limited = nullptr;
    Counter* shed = nullptr;
    Counter* fault_delays = nullptr;
    Counter* fault_aborts = nullptr;
    Gauge* concurrency_limit = nullptr;
    Gauge* concurrency_in_flight = nullptr;
};

// How long the route waits before it hedges, as each worker did last.
struct HedgeView {
    explicit HedgeView(unsigned workers) : wait_us(workers), fallback(workers) {}
    std::vector<Gauge> wait_us;   // 0: not yet
    std::vector<Gauge> fallback;  // 1: for want of recent latencies it was hedge.fallback
};

// [route.idempotency] of a route.
struct RouteIdempotency {
    policy::IdempotencyPolicy policy;
    std::shared_ptr<idempotency::Store> store;
    std::vector<std::array<Counter*, filters::kKeyOutcomes.size()>> cells;  // per worker, by outcome
    std::vector<idempotency::StoreCells> store_cells;                       // per worker
};

// What one worker counts of [route.batch].
struct BatchCells {
    SizeHistogram* size = nullptr;  // requests in a call
    Gauge* waiting = nullptr;       // requests that wait for a call
};

struct RouteEntry {
    std::size_t index = 0;  // among all routes
    const config::RouteSettings* settings = nullptr;
    const config::ListenerSettings* listener = nullptr;
    std::vector<std::uint32_t>
        clusters;  // indices into Snapshot::clusters, in the order of settings->clusters
    std::unique_ptr<policy::WeightedPick> pick;  // when there are several
    std::vector<std::vector<RouteCells>> cells;  // [choice][worker]; one choice for routes without a cluster
    std::optional<std::uint32_t> mirror;
    std::vector<PolicyCells> policy_cells;  // per worker; empty for a route without policies
    filters::FilterSet filters = filters::kAllFilters;
    policy::RetryLimits retry;
    std::shared_ptr<HedgeView> hedge;                     // null without [route.hedge]
    std::shared_ptr<filters::RetryFloor> retry_floor;     // kept over reloads
    std::shared_ptr<const RouteIdempotency> idempotency;  // null without
    std::vector<Counter*> collapsed;                      // per worker; empty without [route.collapse]
    std::vector<BatchCells> batch;                        // per worker; empty without [route.batch]
    std::uint64_t seed = 0;                               // of this route in this process
    std::shared_ptr<filters::RateLimiter> rate_limiter;   // kept over reloads that do not change its settings

    bool has_policies() const { return !policy_cells.empty(); }
};

struct ListenerEntry {
    const config::ListenerSettings* settings = nullptr;
    http::ServerLimits limits;
    std::vector<RouteEntry> routes;    // in file order
    std::vector<RouteCells> unrouted;  // per worker: no route matched, or no valid request
    std::vector<Gauge*> connections;   // per worker
};

struct ClusterEntry {
    const config::ClusterSettings* settings = nullptr;
    std::vector<ClusterCells> cells;  // per worker
    std::shared_ptr<ClusterHealth> health;
};

struct Snapshot {
    std::uint64_t generation = 0;
    config::Settings settings;
    std::string source;
    std::vector<ListenerEntry> listeners;
    std::vector<ClusterEntry> clusters;

    const ListenerEntry* listener(const std::string& name) const;
};

struct SnapshotParts {
    Registry& metrics;
    unsigned workers;
    std::function<std::shared_ptr<ClusterHealth>(const std::string& cluster)> health;
    std::function<std::shared_ptr<idempotency::Store>(const std::string& store)> store;
    std::uint64_t seed;        // the process's
    const Snapshot* previous;  // whose rate limiters go on; may be null
};
// The settings must have come out of config::parse() without an error.
std::shared_ptr<const Snapshot> build_snapshot(config::Settings settings, std::string source,
                                               std::uint64_t generation, const SnapshotParts& parts);

// The first route of the listener that matches, in file order; nullptr when none does.
const RouteEntry* find_route(const ListenerEntry& listener, const http::RequestHead& request);

// An address that can be connected to, with the identity the balancers hash.
struct EndpointAddress {
    std::string id;  // "ip:port"
    std::uint32_t weight = 1;
    uv::SocketAddress address;
    std::shared_ptr<EndpointHealth> health;  // null until HealthChecker::attach()
};
using EndpointSet = std::shared_ptr<const std::vector<EndpointAddress>>;

}  // namespace outrider::proxy
