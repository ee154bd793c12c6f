#include "proxy/snapshot.h"

#include "base/check.h"

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

std::vector<ClusterCells> cluster_cells(Registry& metrics, unsigned workers, const std::string& cluster) {
    auto& attempts = metrics.counter("upstream_attempts_total",
                                     "Attempts on an upstream endpoint, by outcome.", {"cluster", "outcome"});
    auto& connections = metrics.gauge("upstream_connections", "Open upstream connections.", {"cluster"});
    auto& in_flight =
        metrics.gauge("upstream_in_flight", "Attempts that await their response's end.", {"cluster"});
    std::vector<ClusterCells> cells;
    for (unsigned w = 0; w < workers; ++w) {
        const auto outcome = [&](std::string_view name) { return &attempts.at({cluster, name}, w); };
        cells.push_back({outcome("success"), outcome("connect_failed"), outcome("connect_timeout"),
                         outcome("reset"), outcome("incomplete"), outcome("protocol_error"),
                         outcome("timeout"), outcome("canceled"), &connections.at({cluster}, w),
                         &in_flight.at({cluster}, w)});
    }
    return cells;
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
                       const config::ListenerSettings& listener, Registry& metrics, unsigned workers) {
    RouteEntry entry;
    entry.settings = &route;
    entry.listener = &listener;
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
                                               std::uint64_t generation, Registry& metrics,
                                               unsigned workers) {
    auto snapshot = std::make_shared<Snapshot>();
    snapshot->generation = generation;
    snapshot->settings = std::move(settings);
    snapshot->source = std::move(source);
    for (const auto& cluster : snapshot->settings.clusters) {
        snapshot->clusters.push_back({&cluster, cluster_cells(metrics, workers, cluster.name)});
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
        for (const auto& route : snapshot->settings.routes) {
            if (route.listener != listener.name) continue;
            entry.routes.push_back(build_route(*snapshot, route, listener, metrics, workers));
        }
        snapshot->listeners.push_back(std::move(entry));
    }
    return snapshot;
}

}  // namespace outrider::proxy
