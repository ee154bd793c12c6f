// What goes wrong, and what operators do.
#include <algorithm>
#include <array>

#include "tests/sim/cluster.h"

namespace outrider::sim {
using namespace std::chrono_literals;

void Cluster::harm() {
    push(now_ + between(1ms, 2 * profile_.harm_every), Kind::kHarm, 0, 0);
    const std::array<std::uint64_t, 12> weights{profile_.partition, profile_.one_way,    profile_.heal,
                                                profile_.crash,     profile_.crash_all,  profile_.pause,
                                                profile_.transfer,  profile_.membership, profile_.burst,
                                                profile_.stall,     profile_.reset,      profile_.compact};
    std::uint64_t total = 0;
    for (const std::uint64_t weight : weights) {
        total += weight;
    }
    std::uint64_t drawn = random_.below(total);
    std::size_t kind = 0;
    while (drawn >= weights[kind]) {
        drawn -= weights[kind++];
    }
    switch (kind) {
        case 0:
            return partition();
        case 1:
            return one_way();
        case 2:
            for (auto& from : blocked_) {
                std::fill(from.begin(), from.end(), false);
            }
            if (trace_) note(0, "the network heals");
            return;
        case 3:
            return crash(profile_.cut_links ? some_follower() : victim());
        case 4:
            for (const std::uint32_t id : running()) {
                crash(id);
            }
            return;
        case 5:
            return pause();
        case 6:
            return transfer();
        case 7:
            return change_membership();
        case 8:
            return burst();
        case 9:
            return stall();
        case 10:
            return reset();
        default:
            for (const std::uint32_t id : running()) {
                if (nodes_[id].paused_until > now_ || random_.below(2) == 0) continue;
                nodes_[id].shell->compact(local(nodes_[id], now_), random_.below(4));
                settle(id);
            }
    }
}

std::vector<std::uint32_t> Cluster::running() const {
    std::vector<std::uint32_t> out;
    for (std::uint32_t id = 1; id < nodes_.size(); ++id) {
        if (nodes_[id].shell != nullptr) out.push_back(id);
    }
    return out;
}

std::uint32_t Cluster::some_node() {
    // Operators do not leave clients with the addresses of nodes that were removed.
    const auto now_leading = harming_ ? std::nullopt : some_leader();
    if (now_leading) {
        const auto& members = nodes_[*now_leading].shell->core().log().configuration()->members;
        const auto id = static_cast<std::uint32_t>(members[random_.below(members.size())].id.value);
        if (up(id)) return id;
    }
    const auto running_now = running();
    return running_now.empty() ? 1 : running_now[random_.below(running_now.size())];
}

// Any that believes so.
std::optional<std::uint32_t> Cluster::some_leader() {
    std::vector<std::uint32_t> leaders;
    for (const std::uint32_t id : running()) {
        if (nodes_[id].shell->core().role() == raft::Role::kLeader) leaders.push_back(id);
    }
    if (leaders.empty()) return std::nullopt;
    return leaders[random_.below(leaders.size())];
}

std::uint32_t Cluster::some_follower() {
    std::vector<std::uint32_t> others = running();
    if (const auto leader = some_leader()) std::erase(others, *leader);
    return others.empty() ? 1 : others[random_.below(others.size())];
}

// A leader half of the time: there harm does most.
std::uint32_t Cluster::victim() {
    const auto leader = some_leader();
    return leader && random_.below(2) == 0 ? *leader : some_node();
}

// Two groups, or the victim alone.
void Cluster::partition() {
    std::array<bool, 64> side{};
    if (random_.below(2) == 0) {
        side[victim()] = true;
    } else {
        for (std::size_t id = 1; id < nodes_.size(); ++id) {
            side[id] = random_.below(2) == 0;
        }
    }
    std::string shown;
    for (std::size_t from = 1; from < nodes_.size(); ++from) {
        if (nodes_[from].disk != nullptr && side[from]) shown += " " + std::to_string(from);
        for (std::size_t to = 1; to < nodes_.size(); ++to) {
            blocked_[from][to] = side[from] != side[to];
        }
    }
    if (trace_) note(0, "partition:" + shown + " | the others");
}

// The victim hears nobody, or nobody hears it, or one of its links goes, in one direction or in both.
void Cluster::one_way() {
    const std::uint32_t id = profile_.cut_links ? some_leader().value_or(1) : victim();
    const std::uint64_t kind = profile_.cut_links ? 3 : random_.below(4);
    const std::uint32_t only = profile_.cut_links ? some_follower() : some_node();
    if (profile_.cut_links) reset_link(id, only);  // on its way before the link is cut
    for (std::size_t other = 1; other < nodes_.size(); ++other) {
        if (kind == 0) blocked_[other][id] = true;
        if (kind == 1) blocked_[id][other] = true;
        if (kind >= 2 && other == only) blocked_[id][other] = true;
        if (kind == 3 && other == only) blocked_[other][id] = true;
    }
    if (trace_) note(id, kind == 0 ? "hears nobody" : kind == 1 ? "is heard by nobody" : "loses a link");
}

void Cluster::pause() {
    const std::uint32_t id = profile_.pause_leaders ? some_leader().value_or(1) : victim();
    if (profile_.pause_leaders && paused(id)) return;
    nodes_[id].paused_until = now_ + between(std::max<Duration>(1ms, profile_.pause_min), profile_.pause_max);
    nodes_[id].hears_from =
        nodes_[id].paused_until + (random_.below(2) == 0 ? Duration{} : between(0ms, 2ms));
    if (trace_) note(id, "pauses");
}

// A disk that takes its time, as one does whose queue others have filled.
void Cluster::stall() {
    const std::uint32_t id = victim();
    nodes_[id].stalled_until = now_ + between(100ms, 5s);
    if (trace_) note(id, "its disk stalls");
}

// The victim's connection to one other node is lost, or all are, and nobody has died.
void Cluster::reset() {
    const std::uint32_t id = victim();
    const std::uint32_t only = random_.below(2) == 0 ? some_node() : 0;
    for (const std::uint32_t other : running()) {
        if (other != id && (only == 0 || other == only)) reset_link(id, other);
    }
}

void Cluster::reset_link(std::uint32_t a, std::uint32_t b) {
    if (trace_) note(a, "its connection to " + std::to_string(b) + " is reset");
    for (const Event& event : events_) {
        if (event.kind != Kind::kDeliver) continue;
        raft::Message& message = messages_[event.what];
        const bool on_it = (message.from.value == a && message.to.value == b) ||
                           (message.from.value == b && message.to.value == a);
        if (on_it) message.to = raft::kNoNode;  // lost with it
    }
    tell_closed(a, b);
    tell_closed(b, a);
}

void Cluster::transfer() {
    const auto leader = some_leader();
    if (!leader || nodes_[*leader].paused_until > now_) return;
    const auto& members = nodes_[*leader].shell->core().log().configuration()->members;
    const raft::NodeId to = members[random_.below(members.size())].id;
    if (trace_) note(*leader, "is told to hand over to " + std::to_string(to.value));
    step(*leader, raft::TransferLeadership{to});
}

// Commands that nobody waits for and that change nothing: they make a log long, also where no majority follows.
void Cluster::burst() {
    const auto leader = some_leader();
    if (!leader || nodes_[*leader].paused_until > now_) return;
    raft::Propose propose;
    propose.commands.resize(1 + random_.below(40), application_.idle_command());
    step(*leader, std::move(propose));
}

void Cluster::change_membership() {
    using Change = raft::ChangeMembership::Kind;
    const auto leader = some_leader();
    if (!leader || nodes_[*leader].paused_until > now_) return;
    const raft::ConfigurationRef members = nodes_[*leader].shell->core().log().configuration();
    raft::ChangeMembership change;
    const auto learner = std::find_if(members->members.begin(), members->members.end(),
                                      [](const raft::Member& member) { return !member.voter; });
    const auto fresh =
        std::find_if(nodes_.begin() + 1, nodes_.end(), [](const Node& node) { return !node.disk; });
    if (learner != members->members.end() && random_.below(4) != 0) {
        change = {Change::kPromote, learner->id, ""};
    } else if (members->members.size() < profile_.members_max && fresh != nodes_.end()) {
        const auto id = static_cast<std::uint32_t>(fresh - nodes_.begin());
        fresh->disk = std::make_unique<raft::Disk>(std::make_shared<const raft::Configuration>());
        start(id);
        change = {Change::kAddLearner, {id}, ""};
    } else {
        change = {Change::kRemove, members->members[random_.below(members->members.size())].id, ""};
    }
    if (step(*leader, std::move(change)).refusal == raft::Refusal::kNone) ++summary_.changes;
}

}  // namespace outrider::sim
