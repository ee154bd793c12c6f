#include "tests/sim/list_clients.h"

#include <utility>

#include "tests/sim/cluster.h"

namespace outrider::sim {
using namespace std::chrono_literals;
namespace {

constexpr std::uint64_t kNobody = 1000;  // a client with sequence 0: the state machine has seen that already

}  // namespace

ListClients::ListClients(const Profile& profile)
    : lists_(profile.read_percent), clients_(static_cast<std::size_t>(profile.clients)) {}

void ListClients::begin(Cluster& cluster) {
    cluster_ = &cluster;
    for (std::uint32_t id = 0; id < clients_.size(); ++id) {
        cluster.wake_at(cluster.now() + cluster.between(0s, cluster.profile().think_max), {kTurn, id, 0});
    }
}

raft::Command ListClients::idle_command() const {
    return {kNobody, 0, std::make_shared<const std::string>()};
}

void ListClients::timer(const Timer& timer) {
    if (timer.kind == kTurn) {
        turn(timer.who);
    } else if (clients_[timer.who].busy && clients_[timer.who].attempt == timer.what) {
        ask_again(timer.who, std::nullopt);
    }
}

void ListClients::turn(std::uint32_t id) {
    Client& client = clients_[id];
    if (client.busy) {
        ask(id);
        return;
    }
    if (!cluster_->harming()) return;
    client.busy = true;
    ++busy_;
    client.operation = lists_.begin(id + 1, cluster_->random());
    if (client.operation.write) ++client.sequence;
    ask(id);
}

// One attempt. Whether it is refused, answered, or lost is seen later.
void ListClients::ask(std::uint32_t id) {
    Client& client = clients_[id];
    client.attempt = ++attempts_;
    if (client.node == 0) client.node = cluster_->some_node();
    const Duration t = cluster_->profile().options.election_timeout;
    cluster_->wake_at(cluster_->now() + cluster_->between(t / 2, 2 * t), {kTimeout, id, client.attempt});
    // A pause is a request that waits in a socket; it is asked elsewhere after its timeout.
    const std::uint32_t asked = client.node;
    if (!cluster_->answers(asked)) return;
    if (!client.operation.write) {
        cluster_->step(asked, raft::BeginRead{client.attempt});
        return;
    }
    raft::Propose propose;
    propose.commands.push_back(
        {id + 1, client.sequence, std::make_shared<const std::string>(client.operation.request)});
    const raft::Outcome outcome = cluster_->step(asked, std::move(propose));
    if (outcome.refusal == raft::Refusal::kNone) return;
    const auto leader = static_cast<std::uint32_t>(cluster_->core(asked).leader().value);
    ask_again(id, leader != 0 && leader != asked ? std::optional(leader) : std::nullopt);
}

void ListClients::ask_again(std::uint32_t id, std::optional<std::uint32_t> hint) {
    Client& client = clients_[id];
    client.attempt = ++attempts_;  // what the last attempt brings later is not looked at
    client.node = hint ? *hint : cluster_->some_node();
    cluster_->wake_at(cluster_->now() + cluster_->between(1ms, 20ms), {kTurn, id, 0});
}

void ListClients::finish(std::uint32_t id, const std::string& result) {
    Client& client = clients_[id];
    client.busy = false;
    --busy_;
    ++operations_;
    lists_.end(id + 1, result);
    // Mostly the same node again: it is the leader, or believes so.
    if (cluster_->random().below(4) == 0) client.node = 0;
    cluster_->wake_at(cluster_->now() + cluster_->between(0s, cluster_->profile().think_max), {kTurn, id, 0});
}

void ListClients::applied(std::uint32_t node, const raft::Entry& entry, const std::string& result) {
    if (entry.type != raft::EntryType::kCommand) return;
    const auto id = static_cast<std::uint32_t>(entry.command.client - 1);
    if (id >= clients_.size()) return;  // of a burst
    const Client& client = clients_[id];
    const bool awaited = client.busy && client.operation.write && client.sequence == entry.command.sequence &&
                         client.node == node;
    if (awaited) finish(id, result);
}

void ListClients::read(std::uint32_t node, std::uint64_t context) {
    for (std::uint32_t id = 0; id < clients_.size(); ++id) {
        const Client& client = clients_[id];
        if (client.busy && !client.operation.write && client.attempt == context) {
            finish(id, cluster_->machine(node).query(client.operation.request));
            return;
        }
    }
}

void ListClients::read_refused(std::uint32_t, std::uint64_t context) {
    for (std::uint32_t id = 0; id < clients_.size(); ++id) {
        if (clients_[id].busy && !clients_[id].operation.write && clients_[id].attempt == context) {
            ask_again(id, std::nullopt);
            return;
        }
    }
}

}  // namespace outrider::sim
