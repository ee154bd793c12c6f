// The pages of the admin endpoint, but for those of stores (admin_idempotency.cc).
#include <algorithm>
#include <cmath>

#include <unistd.h>

#include "base/log.h"
#include "base/metrics.h"
#include "config/document.h"
#include "config/load.h"
#include "config/syntax.h"
#include "proxy/admin.h"
#include "proxy/admin_reply.h"
#include "proxy/server.h"

#ifndef OUTRIDER_VERSION
#define OUTRIDER_VERSION "0.0.0"
#endif

namespace outrider::proxy {

using namespace std::chrono_literals;

AdminReply Admin::ready() const {
    const std::string reason = server_.not_ready_reason();
    return reason.empty() ? text_reply(200, "ready\n") : text_reply(503, "not ready: " + reason + "\n");
}

AdminReply Admin::metrics(const AdminRequest& request) const {
    const Exposition wanted = negotiate(request.accept);
    return {200, std::string(wanted.content_type), server_.metrics().render(wanted.format), {}};
}

namespace {

// The same tree; to_toml() writes no dates and no times.
Json to_json(const config::Value& value) {
    switch (value.kind) {
        case config::Value::Kind::kString:
        case config::Value::Kind::kTime:
            return value.string;
        case config::Value::Kind::kInteger:
            return value.integer;
        case config::Value::Kind::kNumber:
            return value.number;
        case config::Value::Kind::kBoolean:
            return value.boolean;
        case config::Value::Kind::kArray: {
            Json out = Json::array();
            for (const config::Value& element : value.elements)
                out.push_back(to_json(element));
            return out;
        }
        case config::Value::Kind::kTable: {
            Json out = Json::object();
            for (const config::Member& member : value.members)
                out[member.key] = to_json(member.value);
            return out;
        }
    }
    return {};
}

}  // namespace

AdminReply Admin::config(const AdminRequest& request) const {
    const Snapshot& snapshot = server_.snapshot();
    if (!query_parameter(request.query, "source").empty()) {
        return as_html(request, {200, "application/toml", config::hide_secrets(snapshot.source), {}});
    }
    std::string toml = config::to_toml(snapshot.settings);
    if (query_parameter(request.query, "format") == "toml")
        return {200, "application/toml", std::move(toml), {}};
    if (wants_html(request)) return as_html(request, {200, "application/toml", std::move(toml), {}});
    config::Diagnostics none("");
    return json_reply(to_json(config::parse_document(toml, none)));
}

AdminReply Admin::listeners() const {
    Json out = Json::array();
    for (const ListenerEntry& entry : server_.snapshot().listeners) {
        Json addresses = Json::array();
        for (const auto& [name, address] : server_.bound()) {
            if (name == entry.settings->name) addresses.push_back(address.text());
        }
        std::int64_t open = 0;
        for (const Gauge* g : entry.connections)
            open += g->value();
        out.push_back({{"name", entry.settings->name},
                       {"address", addresses.size() == 1 ? addresses[0] : addresses},
                       {"connections", open},
                       {"routes", entry.routes.size()},
                       {"trust_forwarded", entry.settings->trust_forwarded}});
    }
    return json_reply({{"listeners", out}});
}

namespace {

template <typename Get>
std::uint64_t total(const std::vector<PolicyCells>& cells, Get get) {
    std::uint64_t sum = 0;
    for (const PolicyCells& c : cells)
        sum += static_cast<std::uint64_t>(get(c)->value());
    return sum;
}

// Calls by how many requests they carried: {"1": 10, "2": 3, "3-5": 0, …} up to what a call may carry.
Json sizes_json(const RouteEntry& route) {
    Json out = Json::object();
    std::uint64_t from = 1;
    for (std::size_t i = 0; i <= SizeHistogram::kBounds.size() && from <= route.settings->batch->max_items;
         ++i) {
        std::uint64_t calls = 0;
        for (const BatchCells& cell : route.batch)
            calls += cell.size->bucket(i);
        const bool last = i == SizeHistogram::kBounds.size();
        const std::uint64_t to = last ? 0 : SizeHistogram::kBounds[i].limit;
        std::string name = std::to_string(from);
        if (to != from) name += last ? "+" : "-" + std::to_string(to);
        out[name] = calls;
        from = to + 1;
    }
    return out;
}

Json batch_json(const RouteEntry& route) {
    std::uint64_t requests = 0;
    std::uint64_t calls = 0;
    std::int64_t waiting = 0;
    for (const BatchCells& cell : route.batch) {
        requests += cell.size->sum();
        calls += cell.size->count();
        waiting += cell.waiting->value();
    }
    Json out = {{"path", route.settings->batch->path},
                {"calls", calls},
                {"requests", requests},
                {"waiting", waiting},
                {"sizes", sizes_json(route)}};
    if (calls != 0) out["mean_size"] = static_cast<double>(requests) / static_cast<double>(calls);
    return out;
}

void add_policies(Json& entry, const RouteEntry& route) {
    const config::RouteSettings& s = *route.settings;
    const auto& cells = route.policy_cells;
    if (s.retry) {
        entry["retry"] = {
            {"attempts", s.retry->attempts},
            {"retries", total(cells, [](const PolicyCells& c) { return c.retries; })},
            {"budget_exhausted", total(cells, [](const PolicyCells& c) { return c.budget_exhausted; })}};
    }
    if (route.hedge) {
        Json hedge = {{"after", config::hedge_after(*s.hedge)},
                      {"hedges", total(cells, [](const PolicyCells& c) { return c.hedges; })},
                      {"won", total(cells, [](const PolicyCells& c) { return c.hedges_won; })}};
        std::int64_t wait = 0;
        bool fallback = false;
        for (std::size_t w = 0; w < route.hedge->wait_us.size(); ++w) {
            wait = std::max(wait, route.hedge->wait_us[w].value());
            fallback |= route.hedge->fallback[w].value() != 0;
        }
        if (wait != 0) hedge["wait_ms"] = static_cast<double>(wait) / 1000;
        if (fallback) hedge["fallback"] = "too few recent answers for a percentile";
        entry["hedge"] = hedge;
    }
    if (route.rate_limiter) {
        const auto count = route.rate_limiter->count();
        entry["rate_limit"] = {{"rate", s.rate_limit->rate},
                               {"burst", s.rate_limit->burst},
                               {"limited", total(cells, [](const PolicyCells& c) { return c.rate_limited; })},
                               {"keys", count.keys},
                               {"overflowed", count.overflowed}};
    }
    if (s.concurrency) {
        entry["concurrency"] = {
            {"limit", total(cells, [](const PolicyCells& c) { return c.concurrency_limit; })},
            {"in_flight", total(cells, [](const PolicyCells& c) { return c.concurrency_in_flight; })},
            {"shed", total(cells, [](const PolicyCells& c) { return c.shed; })}};
    }
    if (s.collapse) {
        std::uint64_t collapsed = 0;
        for (const Counter* cell : route.collapsed)
            collapsed += cell->value();
        entry["collapse"] = {{"vary", s.collapse->vary}, {"collapsed", collapsed}};
    }
    if (s.batch) entry["batch"] = batch_json(route);
    if (s.fault) {
        entry["fault"] = {{"percent", s.fault->percent},
                          {"delays", total(cells, [](const PolicyCells& c) { return c.fault_delays; })},
                          {"aborts", total(cells, [](const PolicyCells& c) { return c.fault_aborts; })}};
    }
}

}  // namespace

AdminReply Admin::route_list() const {
    Json out = Json::array();
    for (const ListenerEntry& listener : server_.snapshot().listeners) {
        for (const RouteEntry& route : listener.routes) {
            const auto& s = *route.settings;
            Json match = Json::object();
            if (!s.match.host.empty()) match["host"] = s.match.host;
            if (!s.match.path.empty()) match["path"] = s.match.path;
            if (!s.match.path_prefix.empty()) match["path_prefix"] = s.match.path_prefix;
            if (!s.match.methods.empty()) match["methods"] = s.match.methods;
            Json names = Json::array();
            for (const auto& h : s.match.headers)
                names.push_back(h.name);
            if (!names.empty()) match["headers"] = names;
            Json entry = {{"name", s.name}, {"listener", s.listener}, {"match", match}};
            if (s.respond) entry["respond"] = s.respond->status;
            if (s.redirect) entry["redirect"] = s.redirect->status;
            Json to = Json::array();
            for (const auto& c : s.clusters)
                to.push_back({{"cluster", c.name}, {"weight", c.weight}});
            if (!to.empty()) entry["clusters"] = to;
            if (s.mirror) entry["mirror"] = {{"cluster", s.mirror->cluster}, {"percent", s.mirror->percent}};
            entry["timeout"] = to_string(s.timeout);
            add_policies(entry, route);
            std::uint64_t requests = 0;
            for (const auto& choice : route.cells) {
                for (const RouteCells& cell : choice) {
                    for (int code = 100; code < 600; ++code)
                        requests += cell.requests->value(code);
                }
            }
            entry["requests"] = requests;
            out.push_back(std::move(entry));
        }
    }
    return json_reply({{"routes", out}});
}

AdminReply Admin::server_info() const {
    const config::Settings& s = server_.snapshot().settings;
    const Duration uptime = server_.loop().now() - server_.started_at();
    return json_reply({{"version", OUTRIDER_VERSION},
                       {"pid", ::getpid()},
                       {"node",
                        {{"name", s.node.name},
                         {"service", s.node.service},
                         {"address", s.node.address},
                         {"zone", s.node.zone}}},
                       {"uptime_seconds", uptime / 1s},
                       {"ready", server_.not_ready_reason().empty()},
                       {"not_ready_reason", server_.not_ready_reason()},
                       {"draining", server_.draining()},
                       {"workers", server_.worker_count()},
                       {"connections", server_.connections()},
                       {"connections_by_worker", server_.connections_by_worker()},
                       {"in_flight", server_.in_flight()},
                       {"config",
                        {{"file", server_.config_path()},
                         {"generation", server_.snapshot().generation},
                         {"rejected", server_.rejected_configurations()}}},
                       {"log_level", log_level()}});
}

namespace {

std::vector<EndpointVerdict> verdicts_of(const Snapshot& snapshot, const std::string& cluster) {
    for (const ClusterEntry& entry : snapshot.clusters) {
        if (entry.settings->name == cluster) return entry.health->verdicts();
    }
    return {};
}

void add_verdict(Json& endpoint, const EndpointVerdict& verdict) {
    endpoint["state"] = verdict.state;
    if (!verdict.reason.empty()) endpoint["reason"] = verdict.reason;
    if (verdict.since.unix_micros != 0) endpoint["since"] = rfc3339(verdict.since);
    if (verdict.ejections != 0) endpoint["ejections"] = verdict.ejections;
}

}  // namespace

void Admin::clusters(const Done& done) const {
    server_.collect_clusters([this, done](const std::vector<ClusterReport>& reports) {
        Json out = Json::array();
        for (const ClusterReport& report : reports) {
            Json endpoints = Json::array();
            const std::vector<EndpointVerdict> verdicts = verdicts_of(server_.snapshot(), report.name);
            for (const EndpointReport& e : report.endpoints) {
                endpoints.push_back({{"endpoint", e.id},
                                     {"in_flight", e.in_flight},
                                     {"connections", e.connections},
                                     {"idle", e.idle},
                                     {"requests", e.requests},
                                     {"failures", e.failures},
                                     {"latency_ewma_ms", std::round(e.latency_ewma_us) / 1000.0}});
                if (report.pipelined) {
                    endpoints.back()["channels"] = e.channels;
                    endpoints.back()["channel_depth"] = e.channel_depth;
                    endpoints.back()["stalls"] = e.stalls;
                    if (!e.fallback.empty()) endpoints.back()["pooled_because"] = e.fallback;
                }
                for (const EndpointVerdict& verdict : verdicts) {
                    if (verdict.id == e.id) add_verdict(endpoints.back(), verdict);
                }
            }
            Json cluster = {{"name", report.name}, {"endpoints", endpoints}};
            cluster["pending"] = report.pending;
            cluster["panic"] = report.panic;
            if (const std::string failure = server_.discovery().failure(report.name); !failure.empty()) {
                cluster["discovery_failure"] = failure;
            }
            out.push_back(std::move(cluster));
        }
        done(json_reply({{"clusters", out}}));
    });
}

AdminReply Admin::dashboard(const AdminRequest& request, const AdminReply& cluster_page) const {
    const Json clusters = Json::parse(cluster_page.body)["clusters"];
    const Json info = Json::parse(server_info().body);
    if (!wants_html(request)) {
        return json_reply({{"server", info},
                           {"clusters", clusters},
                           {"listeners", Json::parse(listeners().body)["listeners"]},
                           {"routes", Json::parse(route_list().body)["routes"]}});
    }
    std::string body = "<p>";
    body += info["ready"].get<bool>() ? "<b class=\"ok\">ready</b>" : "<b class=\"bad\">not ready</b> ";
    append_html(body, info["not_ready_reason"].get<std::string>());
    body += "</p><h2>Clusters</h2>";
    append_html_value(body, clusters);
    body += "<h2>Routes</h2>";
    append_html_value(body, Json::parse(route_list().body)["routes"]);
    body += "<h2>Listeners</h2>";
    append_html_value(body, Json::parse(listeners().body)["listeners"]);
    body += "<h2>Server</h2>";
    append_html_value(body, info);
    return {200, "text/html; charset=utf-8", html_page(server_.snapshot().settings.node.name, body), {}};
}

AdminReply Admin::reload(const AdminRequest& request) {
    const bool dry_run = !query_parameter(request.query, "dry_run").empty();
    const ReloadResult result = server_.reload(dry_run);
    return json_reply({{"ok", result.ok},
                       {"dry_run", dry_run},
                       {"generation", result.generation},
                       {"messages", result.messages}},
                      result.ok ? 200 : 422);
}

AdminReply Admin::logging(const AdminRequest& request) {
    const std::string level = query_parameter(request.query, "level");
    if (auto set = set_log_level(level); !set) return admin_problem(400, set.error());
    return json_reply({{"level", log_level()}});
}

}  // namespace outrider::proxy
