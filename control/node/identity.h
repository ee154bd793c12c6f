// Who a node is and whose data it may open. Pure.
//
// Ids are drawn from names: the founders of a cluster know each other's without having talked, because all were given the same
// list of peers, and two clusters founded from different lists have different ids and refuse each other. A node that is added
// later gets its id from the cluster.
//
// A member's address in consensus' configuration, where it is opaque, is "NAME=HOST:PORT", with a '+' in front while a
// learner is to become a voter as soon as it has caught up. NAME is empty for a node that was added and has not told it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "config/control_settings.h"
#include "control/node/log_records.h"
#include "control/raft/types.h"

namespace outrider::node {

struct MemberAddress {
    std::string name;
    std::string peer;  // host:port
    bool promote = false;
};
std::string to_string(const MemberAddress& address);
MemberAddress parse_member_address(std::string_view text);

// `origin` tells clusters apart that were founded from the same list: 0, or the digest of the backup it was made from.
std::uint64_t cluster_id_of(const config::ControlSettings& settings, std::uint64_t origin = 0);
raft::NodeId node_id_of(std::uint64_t cluster_id, std::string_view name);
// For a member that is added: not one that `taken` has, now or, by chance, ever before.
raft::NodeId added_node_id(std::uint64_t cluster_id, std::string_view peer, std::uint64_t salt);

// Of a node that begins with an empty disk.
Identity found_identity(const config::ControlSettings& settings, std::uint64_t origin = 0);

// May a node with these settings open data of this identity, whose log ends with this configuration? The error is a sentence that
// says what to do. `known`: the configuration in force by the log.
Result<void> check_identity(const config::ControlSettings& settings, const Identity& identity,
                            const raft::Configuration& known);

}  // namespace outrider::node
