#include "control/node/identity.h"

#include <algorithm>

#include <fmt/format.h>
#include <xxhash.h>

#include "base/log.h"

namespace outrider::node {
namespace {

constexpr const char* kCorrect =
    ": correct the file, or change the address first (outrider ctl member update)";

std::uint64_t nonzero(std::uint64_t id) {
    return id == 0 ? 1 : id;
}

std::uint64_t digest(std::string_view text, std::uint64_t seed) {
    return nonzero(XXH3_64bits_withSeed(text.data(), text.size(), seed));
}

raft::ConfigurationRef configuration_of(const config::ControlSettings& settings, std::uint64_t cluster_id) {
    raft::Configuration out;
    for (const auto& [name, address] : settings.founders())
        out.members.push_back(
            {node_id_of(cluster_id, name), true, to_string(MemberAddress{name, config::to_string(address)})});
    std::sort(out.members.begin(), out.members.end(),
              [](const raft::Member& a, const raft::Member& b) { return a.id < b.id; });
    return std::make_shared<const raft::Configuration>(std::move(out));
}

// The member of that name, if there is one.
std::optional<MemberAddress> find_member(const raft::Configuration& members, std::string_view name) {
    for (const raft::Member& member : members.members) {
        MemberAddress address = parse_member_address(member.address);
        if (address.name == name) return address;
    }
    return std::nullopt;
}

bool has_address(const raft::Configuration& members, std::string_view peer) {
    return std::any_of(members.members.begin(), members.members.end(), [&](const raft::Member& member) {
        return parse_member_address(member.address).peer == peer;
    });
}

}  // namespace

std::string to_string(const MemberAddress& address) {
    return (address.promote ? "+" : "") + address.name + "=" + address.peer;
}

MemberAddress parse_member_address(std::string_view text) {
    MemberAddress out;
    out.promote = text.starts_with('+');
    if (out.promote) text.remove_prefix(1);
    const std::size_t equals = text.find('=');
    if (equals == std::string_view::npos) {
        out.peer = text;
    } else {
        out.name = text.substr(0, equals);
        out.peer = text.substr(equals + 1);
    }
    return out;
}

std::uint64_t cluster_id_of(const config::ControlSettings& settings, std::uint64_t origin) {
    std::string text = "outrider\n" + settings.cluster + "\n";
    for (const auto& [name, address] : settings.founders())
        text += name + "=" + config::to_string(address) + "\n";
    return digest(text, origin);
}

raft::NodeId node_id_of(std::uint64_t cluster_id, std::string_view name) {
    return {digest(name, cluster_id)};
}

raft::NodeId added_node_id(std::uint64_t cluster_id, std::string_view peer, std::uint64_t salt) {
    return {digest(peer, cluster_id ^ nonzero(salt))};
}

Identity found_identity(const config::ControlSettings& settings, std::uint64_t origin) {
    const std::uint64_t cluster = cluster_id_of(settings, origin);
    return {cluster, node_id_of(cluster, settings.name), settings.name, settings.cluster,
            configuration_of(settings, cluster)};
}

Result<void> check_identity(const config::ControlSettings& settings, const Identity& identity,
                            const raft::Configuration& known) {
    if (settings.name != identity.name)
        return Error{fmt::format(
            "{} holds the data of node {}, and this node is named {}: give it its own directory, or the name "
            "back that it had",
            settings.data, identity.name, settings.name)};
    if (settings.cluster != identity.cluster)
        return Error{fmt::format(
            "{} holds the data of the cluster \"{}\", and control.cluster says \"{}\": correct the name, or "
            "use another directory",
            settings.data, identity.cluster, settings.cluster)};
    const raft::ConfigurationRef founders = configuration_of(settings, identity.cluster_id);
    if (*founders == *identity.founders)
        return {};  // as it was founded; what has changed since, the log knows
    // The list of a node that joined, as a learner, may be older than the cluster's: others have moved since. That is no reason
    // not to start as long as somebody is where the list says. A founder's is either that of the founding, or today's.
    const bool joined = !identity.founders->voter(identity.node);
    bool known_any = false;
    std::string moved;
    for (const auto& [name, address] : settings.founders()) {
        const std::string peer = config::to_string(address);
        const auto member = find_member(known, name);
        if (member ? member->peer == peer : has_address(known, peer)) {
            known_any = true;
        } else if (member) {
            moved = fmt::format("control.peers: {} is at {}, but the cluster has it at {}", name, peer,
                                member->peer);
            if (!joined || name == settings.name) return Error{moved + kCorrect};
        }
    }
    if (known_any && !moved.empty()) log_warning("{}: correct the file", moved);
    if (known_any || known.members.empty()) return {};
    if (!moved.empty()) return Error{moved + kCorrect};
    return Error{fmt::format(
        "{} holds the data of another cluster: none of control.peers is a member of it. Use another "
        "directory, or the list of the cluster that this data is of",
        settings.data)};
}

}  // namespace outrider::node
