#include "proxy/snapshot.h"

#include "base/check.h"
#include "base/random.h"
#include "base/uv/acceptor.h"
#include "filters/policy/balancer.h"
#include "idempotency/open_store.h"
#include "proxy/cluster_health.h"

namespace outrider::proxy {

namespace {

std::vector<RouteCells> route_cells(Registry& metrics, unsigned workers, const std::string& listener,
                                    const std::string& route, const std::string& cluster) {
    auto& requests = metrics.status_counters("http_requests_total", "Requests answered, by status.",
                                             {"listener", "route", "cluster"});
    auto& duration = metrics.histogram("http_request_duration_seconds",
                                       "From the request's head to the response's last byte.",
                                       {"listener", "route", "cluster"});
    std::vector<RouteCells> cells;
    for (unsigned w = 0; w < workers; ++w) {
        cells.push_back(
            {&requests.at({listener, route, cluster}, w), &duration.at({listener, route, cluster}, w)});
    }
    return cells;
}

PipelineCells pipeline_cells(Registry& metrics, unsigned worker, const std::string& cluster) {
    auto& attempts = metrics.counter("upstream_attempts_total",
                                     "Attempts on an upstream endpoint, by outcome.", {"cluster", "outcome"});
    auto& depth =
        metrics.gauge("pipeline_depth", "Requests in flight on pipelined connections.", {"cluster"});
    auto& requests =
        metrics.counter("pipeline_requests_total", "Requests sent on a pipelined connection.", {"cluster"});
    auto& stalls = metrics.counter(
        "pipeline_stalls_total",
        "Responses in front of a pipelined connection that took longer than stall_timeout.", {"cluster"});
    auto& fallbacks = metrics.counter(
        "pipeline_fallbacks_total",
        "Times that an endpoint was found unable to pipeline and got pooled connections instead.",
        {"cluster"});
    auto& replays = metrics.counter(
        "pipeline_replays_total",
        "Requests sent once more because their pipelined connection ended before it answered.", {"cluster"});
    return {&depth.at({cluster}, worker),   &requests.at({cluster}, worker),
            &stalls.at({cluster}, worker),  &fallbacks.at({cluster}, worker),
            &replays.at({cluster}, worker), &attempts.at({cluster, "returned"}, worker)};
}

std::vector<ClusterCells> cluster_cells(Registry& metrics, unsigned workers, const std::string& cluster,
                                        bool pipelined) {
    auto& attempts = metrics.counter("upstream_attempts_total",
                                     "Attempts on an upstream endpoint, by outcome.", {"cluster", "outcome"});
    auto& connections = metrics.gauge("upstream_connections", "Open upstream connections.", {"cluster"});
    auto& in_flight =
        metrics.gauge("upstream_in_flight", "Attempts that await their response's end.", {"cluster"});
    auto& pending =
        metrics.gauge("upstream_pending", "Requests that wait for an endpoint or a connection.", {"cluster"});
    auto& held = metrics.counter("upstream_held_total",
                                 "Requests that had to wait for an endpoint or a connection.", {"cluster"});
    auto& overflow =
        metrics.counter("upstream_overflow_total", "Requests refused at a limit of the cluster, by limit.",
                        {"cluster", "limit"});
    std::vector<ClusterCells> cells;
    for (unsigned w = 0; w < workers; ++w) {
        const auto outcome = [&](std::string_view name) { return &attempts.at({cluster, name}, w); };
        cells.push_back({outcome("success"),
                         outcome("connect_failed"),
                         outcome("connect_timeout"),
                         outcome("reset"),
                         outcome("incomplete"),
                         outcome("protocol_error"),
                         outcome("timeout"),
                         outcome("canceled"),
                         outcome("discarded"),
                         &connections.at({cluster}, w),
                         &in_flight.at({cluster}, w),
                         &pending.at({cluster}, w),
                         &held.at({cluster}, w),
                         &overflow.at({cluster, "requests"}, w),
                         &overflow.at({cluster, "pending"}, w),
                         {}});
        if (pipelined) cells.back().pipeline = pipeline_cells(metrics, w, cluster);
    }
    return cells;
}

std::vector<PolicyCells> policy_cells(Registry& metrics, unsigned workers, const std::string& listener,
                                      const std::string& route) {
    const LabelNames labels = {"listener", "route"};
    auto& retries = metrics.counter("retries_total", "Attempts made again after a failure.", labels);
    auto& exhausted = metrics.counter("retry_budget_exhausted_total",
                                      "Retries and hedges left out because the budget was spent.", labels);
    auto& hedges = metrics.counter("hedges_total", "Second attempts made beside a slow first one.", labels);
    auto& hedges_won = metrics.counter("hedges_won_total", "Hedges whose answer was used.", labels);
    auto& limited = metrics.counter("rate_limited_total", "Requests refused by the rate limit.", labels);
    auto& shed = metrics.counter("shed_total", "Requests refused by the concurrency limit.", labels);
    auto& faults =
        metrics.counter("faults_injected_total", "Faults injected, by kind.", {"listener", "route", "kind"});
    auto& limit = metrics.gauge("concurrency_limit",
                                "What the adaptive limit allows now, all workers together.", labels);
    auto& in_flight =
        metrics.gauge("concurrency_in_flight", "Requests under the adaptive limit now.", labels);
    std::vector<PolicyCells> cells;
    for (unsigned w = 0; w < workers; ++w) {
        cells.push_back({&retries.at({listener, route}, w), &exhausted.at({listener, route}, w),
                         &hedges.at({listener, route}, w), &hedges_won.at({listener, route}, w),
                         &limited.at({listener, route}, w), &shed.at({listener, route}, w),
                         &faults.at({listener, route, "delay"}, w), &faults.at({listener, route, "abort"}, w),
                         &limit.at({listener, route}, w), &in_flight.at({listener, route}, w)});
    }
    return cells;
}

std::vector<BatchCells> batch_cells(Registry& metrics, unsigned workers, const std::string& listener,
                                    const std::string& route) {
    auto& size = metrics.size_histogram("batch_size", "Requests in an upstream call of a batch route.",
                                        {"listener", "route"});
    auto& waiting =
        metrics.gauge("batch_waiting", "Requests that wait for a batch's call.", {"listener", "route"});
    std::vector<BatchCells> cells(workers);
    for (unsigned w = 0; w < workers; ++w) {
        cells[w].size = &size.at({listener, route}, w);
        cells[w].waiting = &waiting.at({listener, route}, w);
    }
    return cells;
}

policy::RetryLimits retry_limits(const config::RetrySettings& s) {
    policy::RetryLimits out;
    out.attempts = s.attempts;
    out.connect = s.on.connect;
    out.reset = s.on.reset;
    out.timeout = s.on.timeout;
    out.any_5xx = s.on.any_5xx;
    out.statuses = s.on.statuses;
    out.backoff_base = s.backoff_base;
    out.backoff_max = s.backoff_max;
    return out;
}

// A claim's lease passes only when its owner is lost: what an exchange may take at most, and what its store may.
constexpr Duration kLeaseMargin = std::chrono::seconds(5);

policy::IdempotencyPolicy idempotency_policy(const config::RouteSettings& route) {
    const config::IdempotencySettings& s = *route.idempotency;
    policy::IdempotencyPolicy out;
    out.window = s.window;
    out.lease = route.timeout + kLeaseMargin;
    out.in_flight = s.in_flight == config::InFlight::kWait ? policy::InFlightPolicy::kWait
                                                           : policy::InFlightPolicy::kConflict;
    out.wait_timeout = std::min(s.wait_timeout, route.timeout);
    out.on_unknown = s.on_unknown == config::OnUnknown::kReject ? policy::OnUnknown::kReject
                                                                : policy::OnUnknown::kReexecute;
    out.record = s.record == config::RecordAnswers::kAll ? policy::RecordAnswers::kAll
                                                         : policy::RecordAnswers::kBelow500;
    return out;
}

std::shared_ptr<const RouteIdempotency> route_idempotency(const config::RouteSettings& route,
                                                          const SnapshotParts& parts) {
    auto out = std::make_shared<RouteIdempotency>();
    out->policy = idempotency_policy(route);
    out->store = parts.store(route.idempotency->store);
    auto& requests = parts.metrics.counter(
        "idempotency_requests_total", "Requests with an idempotency key, or without one that was required.",
        {"route", "outcome"});
    out->cells.resize(parts.workers);
    for (unsigned w = 0; w < parts.workers; ++w)
        out->store_cells.push_back(idempotency::store_cells(parts.metrics, route.idempotency->store, w));
    for (unsigned w = 0; w < parts.workers; ++w) {
        for (std::size_t i = 1; i < filters::kKeyOutcomes.size(); ++i)
            out->cells[w][i] = &requests.at({route.name, filters::kKeyOutcomes[i]}, w);
    }
    return out;
}

const RouteEntry* same_route(const config::RouteSettings& route, const Snapshot* snapshot) {
    if (snapshot == nullptr) return nullptr;
    for (const ListenerEntry& listener : snapshot->listeners) {
        for (const RouteEntry& had : listener.routes) {
            if (had.settings->name == route.name) return &had;
        }
    }
    return nullptr;
}

std::shared_ptr<filters::RetryFloor> retry_floor(const config::RouteSettings& route,
                                                 const Snapshot* previous) {
    const std::uint32_t per_second = route.retry.value_or(config::RetrySettings{}).budget_min_per_second;
    const RouteEntry* had = same_route(route, previous);
    if (had == nullptr || !had->retry_floor) return std::make_shared<filters::RetryFloor>(per_second);
    had->retry_floor->configure(per_second);
    return had->retry_floor;
}

// The bucket goes on with what it has given, as long as the settings are the same.
std::shared_ptr<filters::RateLimiter> rate_limiter(const config::RouteSettings& route,
                                                   const Snapshot* previous) {
    if (!route.rate_limit) return {};
    const RouteEntry* had = same_route(route, previous);
    if (had != nullptr && had->settings->rate_limit == route.rate_limit) return had->rate_limiter;
    return std::make_shared<filters::RateLimiter>(*route.rate_limit, uv::random_seed());
}

http::ServerLimits limits_of(const config::ListenerSettings& s) {
    http::ServerLimits limits;
    limits.parser.head_bytes_max = s.max_header_bytes.value;
    limits.parser.fields_max = s.max_headers;
    limits.parser.target_bytes_max = s.max_target_bytes.value;
    limits.parser.body_bytes_max = s.max_body_bytes.value;
    limits.header_timeout = s.header_timeout;
    limits.idle_timeout = s.idle_timeout;
    limits.body_idle_timeout = s.body_idle_timeout;
    limits.body_rate_min = s.min_body_rate.value;
    limits.read_rate_min = s.min_read_rate.value;
    limits.pipelined_max = s.max_pipelined;
    return limits;
}

std::uint32_t cluster_index(const Snapshot& snapshot, const std::string& name) {
    for (std::uint32_t i = 0; i < snapshot.settings.clusters.size(); ++i) {
        if (snapshot.settings.clusters[i].name == name) return i;
    }
    require(false, "validated routes name clusters that exist");
    return 0;
}

RouteEntry build_route(const Snapshot& snapshot, const config::RouteSettings& route,
                       const config::ListenerSettings& listener, const SnapshotParts& parts) {
    Registry& metrics = parts.metrics;
    const unsigned workers = parts.workers;
    RouteEntry entry;
    entry.settings = &route;
    entry.listener = &listener;
    static const filters::Chain chain;  // has no state
    entry.filters = chain.concerned(route);
    std::vector<std::uint32_t> weights;
    for (const auto& choice : route.clusters) {
        entry.clusters.push_back(cluster_index(snapshot, choice.name));
        entry.cells.push_back(route_cells(metrics, workers, listener.name, route.name, choice.name));
        weights.push_back(choice.weight);
    }
    if (entry.clusters.size() > 1) entry.pick = std::make_unique<policy::WeightedPick>(weights);
    if (entry.clusters.empty())
        entry.cells.push_back(route_cells(metrics, workers, listener.name, route.name, ""));
    if (route.mirror) entry.mirror = cluster_index(snapshot, route.mirror->cluster);
    if (route.retry || route.hedge || route.rate_limit || route.concurrency || route.fault)
        entry.policy_cells = policy_cells(metrics, workers, listener.name, route.name);
    if (route.hedge) entry.hedge = std::make_shared<HedgeView>(workers);
    if (route.retry) entry.retry = retry_limits(*route.retry);
    if (route.retry || route.hedge) entry.retry_floor = retry_floor(route, parts.previous);
    if (route.idempotency) entry.idempotency = route_idempotency(route, parts);
    if (route.collapse) {
        auto& collapsed =
            metrics.counter("collapsed_requests_total", "Requests that were given the answer to another one.",
                            {"listener", "route"});
        for (unsigned w = 0; w < workers; ++w)
            entry.collapsed.push_back(&collapsed.at({listener.name, route.name}, w));
    }
    if (route.batch) entry.batch = batch_cells(metrics, workers, listener.name, route.name);
    entry.seed = mix64(parts.seed ^ policy::key_hash(route.name));
    entry.rate_limiter = rate_limiter(route, parts.previous);
    return entry;
}

}  // namespace

const ListenerEntry* Snapshot::listener(const std::string& name) const {
    for (const ListenerEntry& entry : listeners) {
        if (entry.settings->name == name) return &entry;
    }
    return nullptr;
}

std::shared_ptr<const Snapshot> build_snapshot(config::Settings settings, std::string source,
                                               std::uint64_t generation, const SnapshotParts& parts) {
    Registry& metrics = parts.metrics;
    const unsigned workers = parts.workers;
    auto snapshot = std::make_shared<Snapshot>();
    snapshot->generation = generation;
    snapshot->settings = std::move(settings);
    snapshot->source = std::move(source);
    for (const auto& cluster : snapshot->settings.clusters) {
        snapshot->clusters.push_back({&cluster,
                                      cluster_cells(metrics, workers, cluster.name,
                                                    cluster.channel.mode == config::ChannelMode::kPipelined),
                                      parts.health(cluster.name)});
    }
    auto& connections =
        metrics.gauge("http_downstream_connections", "Open client connections.", {"listener"});
    for (const auto& listener : snapshot->settings.listeners) {
        ListenerEntry entry;
        entry.settings = &listener;
        entry.limits = limits_of(listener);
        entry.unrouted = route_cells(metrics, workers, listener.name, "", "");
        for (unsigned w = 0; w < workers; ++w)
            entry.connections.push_back(&connections.at({listener.name}, w));
        for (std::size_t i = 0; i < snapshot->settings.routes.size(); ++i) {
            const auto& route = snapshot->settings.routes[i];
            if (route.listener != listener.name) continue;
            entry.routes.push_back(build_route(*snapshot, route, listener, parts));
            entry.routes.back().index = i;
        }
        snapshot->listeners.push_back(std::move(entry));
    }
    return snapshot;
}

}  // namespace outrider::proxy
