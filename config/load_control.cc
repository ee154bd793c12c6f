// A control-plane node's file: [control], [admin] and [log].
#include <algorithm>

#include "config/control_settings.h"
#include "config/diagnostics.h"
#include "config/document.h"
#include "config/reader.h"
#include "config/sections.h"
#include "config/source.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

constexpr std::string_view kNodeKeys[] = {"data", "api_listen", "peer_listen", "peers", "join"};
constexpr std::string_view kNodeSections[] = {"control", "admin", "log"};

void read_peers(TableReader& control, ControlSettings& out) {
    control.for_each_key("peers", kPeersMax, [&](TableReader& peers, const std::string& name) {
        HostPort address;
        if (!peers.parsed(name, address, parse_host_port)) return;
        if (const auto ok = parse_name(name); !ok) {
            peers.error(name, ok.error());
            return;
        }
        for (const auto& [other, taken] : out.peers) {
            if (taken == address) peers.error(name, "has the address of " + other);
        }
        out.peers.emplace(name, std::move(address));
    });
}

bool on_this_host(const HostPort& address) {
    return address.host == "localhost" || address.host == "::1" ||
           (address.host.starts_with("127.") && is_ip_literal(address.host));
}

// Two that cannot both be listened on.
bool collide(const HostPort& a, const HostPort& b) {
    const auto any = [](const HostPort& address) {
        return address.host == "0.0.0.0" || address.host == "::";
    };
    return a.port == b.port && a.port != 0 && (a.host == b.host || any(a) || any(b));
}

void check(TableReader& control, const ControlSettings& out) {
    if (out.heartbeat * 2 > out.election_timeout)
        control.error(control.has("heartbeat") ? "heartbeat" : "election_timeout",
                      "heartbeat may be at most half of election_timeout");
    if (!out.peers.empty() && !out.peers.contains(out.name))
        control.error("peers", "does not list this node, " + out.name + " (control.name)");
    if (out.join && out.peers.size() < 2)
        control.error("join",
                      "needs control.peers: this node and at least one member of the cluster to join");
    if (collide(out.api_listen, out.peer_listen))
        control.error("peer_listen", "is the address of api_listen");
    if (!on_this_host(out.peer_listen)) return;
    for (const auto& [name, address] : out.peers) {
        if (name == out.name || on_this_host(address)) continue;
        // Right behind a tunnel that ends on this host.
        control.warning(control.has("peer_listen") ? "peer_listen" : "peers",
                        "peer_listen is " + to_string(out.peer_listen) + ", where " + name + " (" +
                            to_string(address) + ") does not reach this node");
        return;
    }
}

void read_control(TableReader& root, const std::string& host, ControlSettings& out) {
    out.name = usable_host_name(host).substr(0, 64);
    if (!root.require_key("control", "[control] with data = \"DIRECTORY\"")) return;
    auto control = root.table("control");
    if (!control) return;
    control->parsed("name", out.name, parse_name);
    if (control->require_key("data", "data = \"/var/lib/outrider/control\""))
        control->parsed("data", out.data, parse_directory);
    control->parsed("cluster", out.cluster, parse_name);
    control->parsed("api_listen", out.api_listen, parse_listen);
    control->parsed("api_address", out.api_address, parse_host_port);
    control->parsed("peer_listen", out.peer_listen, parse_listen);
    read_peers(*control, out);
    control->boolean("join", out.join);
    control->duration("heartbeat", out.heartbeat, {10ms, 10s});
    control->duration("election_timeout", out.election_timeout, {50ms, 1min});
    control->size("segment_bytes", out.segment_bytes, {Bytes{1 << 20}, Bytes{1 << 30}});
    control->integer<std::uint64_t>("snapshot_entries", out.snapshot_entries, {100, 100'000'000});
    control->size("max_store", out.max_store, {Bytes{1 << 20}, Bytes{std::uint64_t{1} << 40}});
    control->integer<std::uint32_t>("max_connections", out.max_connections, {16, 1'000'000});
    control->integer<std::uint32_t>("max_watchers", out.max_watchers, {1, 10'000'000});
    check(*control, out);
    control->finish();
}

void read_node_admin(TableReader& root, ControlNodeSettings& out) {
    auto admin = root.table("admin");
    if (!admin) return;
    admin->parsed("listen", out.admin_listen, parse_listen);
    if (out.admin_listen && collide(*out.admin_listen, out.control.api_listen))
        admin->error("listen", "is the address of control.api_listen, which answers the same; leave it out");
    if (out.admin_listen && collide(*out.admin_listen, out.control.peer_listen))
        admin->error("listen", "is the address of control.peer_listen");
    admin->finish();
}

void read_node_log(TableReader& root, ControlNodeSettings& out) {
    auto log = root.table("log");
    if (!log) return;
    struct Level {};
    static constexpr Choice<Level> kLevels[] = {{"trace", {}},   {"debug", {}}, {"info", {}},
                                                {"warning", {}}, {"error", {}}, {"off", {}}};
    Level level;
    if (log->choice<Level>("level", kLevels, level)) log->text("level", out.log_level);
    log->finish();
}

}  // namespace

std::map<std::string, HostPort> ControlSettings::founders() const {
    if (!peers.empty()) return peers;
    return {{name, peer_listen}};
}

ControlLoadResult parse_control(std::string_view text, const std::string& file_name, const EnvLookup& env,
                                const std::string& host) {
    ControlLoadResult result;
    Diagnostics diagnostics(file_name);
    if (is_text(text, diagnostics)) {
        const Value document = parse_document(text, diagnostics);
        if (!diagnostics.has_errors()) {
            ReadContext context{diagnostics, env};
            TableReader root(context, document, "");
            ControlNodeSettings settings;
            read_control(root, host, settings.control);
            read_node_admin(root, settings);
            read_node_log(root, settings);
            root.finish();
            if (!diagnostics.has_errors()) result.settings = std::move(settings);
        }
    }
    result.diagnostics = diagnostics.take();
    return result;
}

ControlLoadResult load_control_file(const std::string& path) {
    const Result<std::string> text = read_file(path);
    if (!text) {
        Diagnostics diagnostics(path);
        diagnostics.error({}, "", text.error());
        return {.settings = std::nullopt, .diagnostics = diagnostics.take()};
    }
    return parse_control(*text, path, process_environment(), host_name());
}

bool is_control_file(const std::string& path) {
    const Result<std::string> text = read_file(path);
    if (!text) return false;
    Diagnostics ignored(path);
    if (!is_text(*text, ignored)) return false;
    const Value document = parse_document(*text, ignored);
    const auto one_of = [](const auto& keys) {
        return [&keys](const Member& member) {
            return std::find(std::begin(keys), std::end(keys), member.key) != std::end(keys);
        };
    };
    const auto& sections = document.members;
    const auto control = std::find_if(sections.begin(), sections.end(),
                                      [](const Member& member) { return member.key == "control"; });
    if (control == sections.end() || control->value.kind != Value::Kind::kTable) return false;
    const auto& keys = control->value.members;
    return std::any_of(keys.begin(), keys.end(), one_of(kNodeKeys)) ||
           std::all_of(sections.begin(), sections.end(), one_of(kNodeSections));
}

}  // namespace outrider::config
