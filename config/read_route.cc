// [[route]]
#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "config/sections.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

constexpr Duration kRouteTimeoutMax = 30 * 24h;
constexpr std::uint32_t kWeightMax = 1'000'000;

void read_match_headers(TableReader& match, MatchSettings& out) {
    match.for_each_key("headers", kHeaderRulesMax, [&](TableReader& headers, const std::string& key) {
        HeaderMatch header;
        headers.parsed(key, header.value, parse_header_value);
        const Result<std::string> name = parse_header_name(key);
        if (!name) {
            headers.error(key, name.error());
            return;
        }
        if (std::any_of(out.headers.begin(), out.headers.end(),
                        [&](const HeaderMatch& other) { return iequals(other.name, key); })) {
            headers.error(key, "is there twice; header names are the same in any letter case");
        }
        if (iequals(key, "host")) {
            headers.error(key, "is matched by match.host");
        }
        header.name = key;
        out.headers.push_back(std::move(header));
    });
}

void read_match(TableReader& route, MatchSettings& out) {
    auto match = route.table("match");
    if (!match) return;
    match->parsed("host", out.host, parse_host_pattern);
    match->parsed("path", out.path, parse_path);
    match->parsed("path_prefix", out.path_prefix, parse_path);
    if (match->has("path") && match->has("path_prefix")) {
        match->error("path_prefix", "path and path_prefix exclude each other; keep one");
    }
    match->list("methods", out.methods, parse_method, {1, 64});
    read_match_headers(*match, out);
    match->finish();
}

void read_weighted(TableReader& route, std::vector<WeightedCluster>& out) {
    bool right = true;
    std::uint64_t total = 0;
    for (TableReader& table : route.tables("clusters", {1, kRouteClustersMax})) {
        WeightedCluster cluster;
        right &=
            table.require_key("name", "name = \"app\"") && table.parsed("name", cluster.name, parse_name);
        if (table.has("weight")) {
            right &= table.integer("weight", cluster.weight, {0, kWeightMax});
        }
        table.finish();
        total += cluster.weight;
        if (!cluster.name.empty() && std::any_of(out.begin(), out.end(), [&](const WeightedCluster& other) {
                return other.name == cluster.name;
            })) {
            table.error("name", "cluster " + in_quotes(cluster.name) + " is listed twice");
        }
        out.push_back(std::move(cluster));
    }
    if (!out.empty() && right && total == 0) {
        route.error("clusters", "at least one weight must be above 0");
    }
}

RespondSettings read_respond(TableReader& table) {
    RespondSettings out;
    table.integer("status", out.status, {200, 599});
    table.text("body", out.body);
    table.parsed("content_type", out.content_type, parse_header_value);
    table.finish();
    if (out.content_type.empty()) table.error("content_type", "must not be empty");
    // RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
    const bool bodiless = out.status == 204 || out.status == 205 || out.status == 304;
    if (bodiless && !out.body.empty()) {
        table.error("body", "a response with status " + std::to_string(out.status) + " has no body");
    }
    return out;
}

Result<std::string> parse_scheme(std::string_view text) {
    if (text == "http" || text == "https") return std::string(text);
    return Error{in_quotes(text) + " is not http or https"};
}

RedirectSettings read_redirect(TableReader& table) {
    constexpr std::array<int, 5> kStatuses{301, 302, 303, 307, 308};
    RedirectSettings out;
    if (table.integer("status", out.status, {300, 399}) &&
        std::find(kStatuses.begin(), kStatuses.end(), out.status) == kStatuses.end()) {
        table.error("status", std::to_string(out.status) + " is not a redirect (301, 302, 303, 307 or 308)");
    }
    table.parsed("scheme", out.scheme, parse_scheme);
    table.parsed("host", out.host, parse_authority);
    table.parsed("path", out.path, parse_path);
    table.parsed("prefix", out.prefix, parse_path);
    table.boolean("keep_query", out.keep_query);
    if (table.has("path") && table.has("prefix")) {
        table.error("prefix", "path and prefix exclude each other; keep one");
    }
    if (!table.has("scheme") && !table.has("host") && !table.has("path") && !table.has("prefix")) {
        table.error_here("would redirect to the same place; give scheme, host, path or prefix");
    }
    table.finish();
    return out;
}

void read_target(TableReader& route, RouteSettings& out) {
    std::vector<std::string> given;
    for (const char* key : {"cluster", "clusters", "respond", "redirect"}) {
        if (route.has(key)) given.emplace_back(key);
    }
    if (given.empty()) {
        route.error_here("a route needs one of cluster, clusters, respond or redirect");
    } else if (given.size() > 1) {
        std::string all;
        for (const std::string& key : given)
            all += (all.empty() ? "" : ", ") + key;
        route.error(given[1],
                    "only one of cluster, clusters, respond and redirect may be given "
                    "(there are: " +
                        all + ")");
    }
    WeightedCluster single;
    if (route.parsed("cluster", single.name, parse_name)) out.clusters.push_back(single);
    if (route.has("clusters")) {
        std::vector<WeightedCluster> weighted;
        read_weighted(route, weighted);
        if (out.clusters.empty()) out.clusters = std::move(weighted);
    }
    if (auto table = route.table("respond")) out.respond = read_respond(*table);
    if (auto table = route.table("redirect")) out.redirect = read_redirect(*table);
}

void read_rewrite(TableReader& route, RewriteSettings& out) {
    auto table = route.table("rewrite");
    if (!table) return;
    table->parsed("prefix", out.prefix, parse_path);
    table->parsed("host", out.host, parse_authority);
    table->finish();
    if (!route.has("cluster") && !route.has("clusters")) {
        table->error_here("changes what an upstream gets; this route has no cluster");
    }
}

void read_mirror(TableReader& route, std::optional<MirrorSettings>& out) {
    auto table = route.table("mirror");
    if (!table) return;
    MirrorSettings mirror;
    if (table->require_key("cluster", "cluster = \"shadow\"")) {
        table->parsed("cluster", mirror.cluster, parse_name);
    }
    table->number("percent", mirror.percent, {0, 100});
    table->finish();
    if (!route.has("cluster") && !route.has("clusters")) {
        table->error_here("copies what an upstream gets; this route has no cluster");
    }
    out = std::move(mirror);
}

// `several`: a value may be an array, one header line for each element.
void read_lines(TableReader& rules, std::string_view key, bool several,
                std::vector<std::pair<std::string, std::string>>& out) {
    std::vector<std::string> names;
    rules.for_each_key(key, kHeaderRulesMax, [&](TableReader& table, const std::string& name) {
        std::vector<std::string> values;
        if (several) {
            table.texts(name, kHeaderRulesMax, values);
        } else if (std::string value; table.text(name, value)) {
            values.push_back(std::move(value));
        }
        if (const Result<std::string> allowed = parse_rule_header(name); !allowed) {
            table.error(name, allowed.error());
        }
        if (std::any_of(names.begin(), names.end(),
                        [&](const std::string& other) { return iequals(other, name); })) {
            table.error(name, "is there twice; header names are the same in any letter case");
        }
        names.push_back(name);
        for (const std::string& raw : values) {
            Result<std::string> value = parse_header_value(raw);
            if (!value) table.error(name, value.error());
            out.emplace_back(name, raw);
        }
    });
}

void read_rules(TableReader& headers, std::string_view key, HeaderRules& out) {
    auto rules = headers.table(key);
    if (!rules) return;
    read_lines(*rules, "set", false, out.set);
    read_lines(*rules, "add", true, out.add);
    rules->list("remove", out.remove, parse_rule_header, {0, kHeaderRulesMax});
    rules->finish();
}

RouteSettings read_route(TableReader& table, std::size_t number) {
    RouteSettings out;
    out.name = "route-" + std::to_string(number);
    table.parsed("name", out.name, parse_name);
    if (table.require_key("listener", "listener = \"inbound\"")) {
        table.parsed("listener", out.listener, parse_name);
    }
    read_match(table, out.match);
    read_target(table, out);
    const bool timeout =
        table.duration("timeout", out.timeout, {0s, kRouteTimeoutMax}) || !table.has("timeout");
    read_rewrite(table, out.rewrite);
    if (auto headers = table.table("headers")) {
        read_rules(*headers, "request", out.request_headers);
        read_rules(*headers, "response", out.response_headers);
        headers->finish();
    }
    read_mirror(table, out.mirror);
    read_route_policies(table, timeout ? out.timeout : Duration(0), out);
    table.finish();
    return out;
}

}  // namespace

void read_routes(TableReader& root, std::vector<RouteSettings>& out) {
    std::size_t number = 0;
    for (TableReader& table : root.tables("route", {0, kRoutesMax})) {
        out.push_back(read_route(table, ++number));
    }
}

}  // namespace outrider::config
