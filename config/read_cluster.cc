// [[cluster]]
#include <set>
#include <string>

#include "config/sections.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

constexpr Duration kTimeoutMin = 1ms;
constexpr Duration kTimeoutMax = 24h;

bool hashes(Balance balance) {
    return balance == Balance::kRingHash || balance == Balance::kMaglev;
}

void read_members(TableReader& table, ClusterSettings& out) {
    const bool listed = table.has("endpoints");
    const bool discovered = table.has("discover");
    table.list("endpoints", out.endpoints, parse_host_port, {1, kEndpointsMax});
    table.parsed("discover", out.discover, parse_discover);
    if (listed && discovered) {
        table.error("discover", "endpoints and discover exclude each other; keep one");
    }
    if (!listed && !discovered) {
        table.error_here(
            "a cluster needs endpoints = [\"host:port\"] or discover = "
            "\"dns:name:port\"");
    }
    std::set<std::string> seen;
    for (const HostPort& endpoint : out.endpoints) {
        const std::string text = config::to_string(endpoint);
        if (!seen.insert(text).second) {
            table.warning("endpoints", text + " is listed twice and gets twice the requests");
        }
    }
}

void read_balance(TableReader& table, ClusterSettings& out) {
    const bool keyed = table.has("hash_key");
    const bool known = table.choice<Balance>("balance", kBalances, out.balance);
    table.parsed("hash_key", out.hash_key, parse_hash_key);
    if (table.has("balance") && !known) return;  // nothing true can be said about the key
    if (hashes(out.balance) && !keyed) {
        table.error("balance",
                    "a hashing balancer needs hash_key = \"header:NAME\" (or query:NAME, "
                    "cookie:NAME, path, source)");
    }
    if (keyed && !hashes(out.balance)) {
        table.warning("hash_key", "has no effect: only ring-hash and maglev use it");
    }
}

ClusterSettings read_cluster(TableReader& table) {
    ClusterSettings out;
    if (table.require_key("name", "name = \"app\"")) table.parsed("name", out.name, parse_name);
    read_members(table, out);
    read_balance(table, out);
    table.duration("connect_timeout", out.connect_timeout, {kTimeoutMin, kTimeoutMax});
    table.duration("read_timeout", out.read_timeout, {0s, kTimeoutMax});
    table.duration("idle_timeout", out.idle_timeout, {kTimeoutMin, kTimeoutMax});
    read_cluster_policies(table, out);
    table.finish();
    return out;
}

}  // namespace

void read_clusters(TableReader& root, std::vector<ClusterSettings>& out) {
    for (TableReader& table : root.tables("cluster", {0, kClustersMax})) {
        out.push_back(read_cluster(table));
    }
}

}  // namespace outrider::config
