// The settings of one node of the control plane's quorum; settings.h says what holds for such structs.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "config/load.h"
#include "config/settings.h"

namespace outrider::config {

inline constexpr std::size_t kPeersMax = 16;

// [control] of a node. Names are [A-Za-z0-9_.-]{1,64}.
struct ControlSettings {
    std::string name;     // default: the host name
    std::string data;     // a directory; required
    std::string cluster;  // tells clusters apart that were founded from equal lists of peers
    HostPort api_listen{"127.0.0.1", 2379};
    std::optional<HostPort>
        api_address;  // how clients reach it; default: api_listen, with the host of peers[name]
    HostPort peer_listen{"127.0.0.1", 2380};
    // By name, this node among them. Empty: it is alone, and the quorum is one node.
    std::map<std::string, HostPort> peers;
    bool join = false;  // an empty data directory joins the cluster of the peers instead of founding one
    Duration heartbeat = 100ms;  // 10ms to 10s
    Duration election_timeout =
        500ms;                      // 50ms to 1m; at least twice the heartbeat; randomised up to twice this
    Bytes segment_bytes{16 << 20};  // 1MiB to 1GiB
    std::uint64_t snapshot_entries = 100'000;  // 100 to 100,000,000
    Bytes max_store{std::uint64_t{2} << 30};   // 1MiB to 1TiB; above it, puts are refused
    std::uint32_t max_connections = 10'000;    // of clients; 16 to 1,000,000
    std::uint32_t max_watchers = 100'000;      // 1 to 10,000,000

    // What a cluster is founded from: the peers, or this node alone.
    std::map<std::string, HostPort> founders() const;
    friend bool operator==(const ControlSettings&, const ControlSettings&) = default;
};

struct ControlNodeSettings {
    ControlSettings control;
    std::optional<HostPort>
        admin_listen;  // [admin] listen: /health /ready /live /metrics, beside the API's port
    std::string log_level = "info";
    friend bool operator==(const ControlNodeSettings&, const ControlNodeSettings&) = default;
};

struct ControlLoadResult {
    std::optional<ControlNodeSettings> settings;
    std::vector<Diagnostic> diagnostics;
};

ControlLoadResult parse_control(std::string_view text, const std::string& file_name, const EnvLookup& env,
                                const std::string& host_name);
ControlLoadResult load_control_file(const std::string& path);

// Whether a file is meant for a control-plane node: its [control] has a key that only a node's has. A file that
// cannot be read is not.
bool is_control_file(const std::string& path);

}  // namespace outrider::config
