// The sub-tables of [[cluster]] that say which endpoints are used, and how much at once.
#include <string>

#include "base/units.h"
#include "config/sections.h"
#include "config/suggest.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

constexpr Duration kIntervalMin = 10ms;
constexpr Duration kIntervalMax = 1h;
constexpr Duration kTimeoutMin = 1ms;
constexpr std::uint32_t kInARowMax = 100;
constexpr std::uint32_t kFailuresMax = 1000;
constexpr Duration kEjectionMax = 24h;
constexpr std::uint32_t kLimitMax = 1'000'000;
constexpr Duration kHoldMax = 5min;
constexpr std::uint32_t kChannelConnectionsMax = 64;
constexpr std::uint32_t kChannelDepthMax = 1024;

// There is no choice yet, so settings have no field for it.
Result<std::string> parse_prober(std::string_view text) {
    if (text == "all") return std::string(text);
    if (text == "emergent-leader") {
        return Error{"'emergent-leader' comes with gossip, which this version does not have; use \"all\""};
    }
    return Error{in_quotes(text) + " is not one of: all" + did_you_mean(text, {"all"})};
}

void read_detector(TableReader& health, HealthSettings& out) {
    const bool known = health.choice<HealthDetectorKind>("detector", kHealthDetectors, out.detector) ||
                       !health.has("detector");
    health.integer("unhealthy_after", out.unhealthy_after, {1, kInARowMax});
    health.integer("healthy_after", out.healthy_after, {1, kInARowMax});
    health.number("phi_threshold", out.phi_threshold, {1, 16});
    if (!known) return;
    const bool phi = out.detector == HealthDetectorKind::kPhi;
    if (phi && health.has("unhealthy_after")) {
        health.error("unhealthy_after",
                     "is of the detector \"count\"; \"phi\" judges by phi_threshold alone");
    }
    if (!phi && health.has("phi_threshold")) {
        health.error("phi_threshold",
                     "is of the detector \"phi\"; \"count\" judges by unhealthy_after alone");
    }
}

void read_health(TableReader& cluster, std::optional<HealthSettings>& out) {
    auto table = cluster.table("health");
    if (!table) return;
    HealthSettings health;
    table->choice<HealthKind>("kind", kHealthKinds, health.kind);
    table->parsed("path", health.path, parse_path);
    table->parsed("host", health.host, parse_authority);
    for (const char* key : {"path", "host"}) {
        if (health.kind == HealthKind::kTcp && table->has(key)) {
            table->error(key, "is of kind \"http\"; \"tcp\" only connects");
        }
    }
    const bool interval =
        table->duration("interval", health.interval, {kIntervalMin, kIntervalMax}) || !table->has("interval");
    const bool timeout =
        table->duration("timeout", health.timeout, {kTimeoutMin, kIntervalMax}) || !table->has("timeout");
    if (interval && timeout && health.timeout > health.interval) {
        table->error_above("timeout", outrider::to_string(health.timeout), "interval",
                           outrider::to_string(health.interval));
    }
    read_detector(*table, health);
    std::string prober;
    table->parsed("prober", prober, parse_prober);
    table->finish();
    out = std::move(health);
}

void read_outlier(TableReader& cluster, std::optional<OutlierSettings>& out) {
    auto table = cluster.table("outlier");
    if (!table) return;
    OutlierSettings outlier;
    table->integer("consecutive_failures", outlier.consecutive_failures, {1, kFailuresMax});
    table->duration("ejection", outlier.ejection, {kTimeoutMin, kEjectionMax});
    table->integer("max_ejected_percent", outlier.max_ejected_percent, {0, 100});
    table->finish();
    out = outlier;
}

void read_limits(TableReader& cluster, LimitSettings& out) {
    auto table = cluster.table("limits");
    if (!table) return;
    table->integer("max_connections", out.max_connections, {0, kLimitMax});
    table->integer("max_pending", out.max_pending, {0, kLimitMax});
    table->integer("max_requests", out.max_requests, {0, kLimitMax});
    table->duration("hold", out.hold, {0s, kHoldMax});
    table->finish();
    if (out.max_pending == 0 && out.hold > 0s) {
        table->error("hold", "needs a bound: max_pending = 0 lets any number of requests wait");
    }
}

// Its numbers are read in both modes, so that a file can switch between them with one word; that word it must have.
void read_channel(TableReader& cluster, ChannelSettings& out) {
    auto table = cluster.table("channel");
    if (!table) return;
    table->choice<ChannelMode>("mode", kChannelModes, out.mode);
    table->integer("connections", out.connections, {1, kChannelConnectionsMax});
    table->integer("depth", out.depth, {1, kChannelDepthMax});
    table->duration("stall_timeout", out.stall_timeout, {kTimeoutMin, kIntervalMax});
    table->finish();
    if (table->has("mode")) return;
    constexpr const char* kWithoutEffect = "has no effect without mode = \"pipelined\"";
    const ChannelSettings defaults;
    if (out.connections != defaults.connections) table->warning("connections", kWithoutEffect);
    if (out.depth != defaults.depth) table->warning("depth", kWithoutEffect);
    if (out.stall_timeout != defaults.stall_timeout) table->warning("stall_timeout", kWithoutEffect);
}

}  // namespace

void read_cluster_policies(TableReader& cluster, ClusterSettings& out) {
    read_health(cluster, out.health);
    read_outlier(cluster, out.outlier);
    read_limits(cluster, out.limits);
    read_channel(cluster, out.channel);
    cluster.integer("panic_percent", out.panic_percent, {0, 100});
    if (out.panic_percent > 0 && !cluster.has("health") && !cluster.has("outlier")) {
        cluster.warning("panic_percent",
                        "has no effect: without health and outlier no endpoint is ever taken out of use");
    } else if (out.panic_percent > 0 && out.limits.hold > 0s) {
        cluster.warning("panic_percent",
                        "with it limits.hold never waits: when no endpoint is usable, all of them are used");
    }
}

}  // namespace outrider::config
