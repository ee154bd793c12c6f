// The clients of a simulation.
#include <utility>

#include "tests/sim/simulation.h"

namespace outrider::sim {
using namespace std::chrono_literals;

void Simulation::client(std::uint32_t id) {
    Client& client = clients_[id];
    if (client.busy) {
        ask(id);
        return;
    }
    if (!harming_) return;
    client.busy = true;
    ++busy_clients_;
    client.operation = workload_.begin(id + 1, random_);
    if (client.operation.write) ++client.sequence;
    ask(id);
}

std::uint32_t Simulation::some_node() {
    const auto up = running();
    return up.empty() ? 1 : up[random_.below(up.size())];
}

// One attempt. Whether it is refused, answered, or lost is seen later.
void Simulation::ask(std::uint32_t id) {
    Client& client = clients_[id];
    client.attempt = ++attempts_;
    if (client.node == 0) client.node = some_node();
    const Duration t = profile_.options.election_timeout;
    push(now_ + between(t / 2, 2 * t), Kind::kClientTimeout, id, client.attempt);
    Node& node = nodes_[client.node];
    // A pause is a request that waits in a socket; it is asked elsewhere after its timeout.
    if (node.shell == nullptr || node.paused_until > now_) return;
    const std::uint32_t asked = client.node;
    if (!client.operation.write) {
        step(asked, raft::BeginRead{client.attempt});
        return;
    }
    raft::Propose propose;
    propose.commands.push_back(
        {id + 1, client.sequence, std::make_shared<const std::string>(client.operation.request)});
    step(asked, std::move(propose));
    const raft::Shell& shell = *nodes_[asked].shell;
    const bool refused = shell.outcome && shell.outcome->refusal != raft::Refusal::kNone;
    if (!refused) return;
    const auto leader = static_cast<std::uint32_t>(shell.core().leader().value);
    ask_again(id, leader != 0 && leader != asked ? std::optional(leader) : std::nullopt);
}

void Simulation::ask_again(std::uint32_t id, std::optional<std::uint32_t> hint) {
    Client& client = clients_[id];
    client.attempt = ++attempts_;  // what the last attempt brings later is not looked at
    client.node = hint ? *hint : some_node();
    push(now_ + between(1ms, 20ms), Kind::kClient, id, 0);
}

void Simulation::finish(std::uint32_t id, const std::string& result) {
    Client& client = clients_[id];
    client.busy = false;
    --busy_clients_;
    ++summary_.operations;
    workload_.end(id + 1, result);
    // Mostly the same node again: it is the leader, or believes so.
    if (random_.below(4) == 0) client.node = 0;
    push(now_ + between(0s, profile_.think_max), Kind::kClient, id, 0);
}

void Simulation::applied(raft::Shell& shell, const raft::Entry& entry, std::string result) {
    if (entry.type != raft::EntryType::kCommand) return;
    const auto id = static_cast<std::uint32_t>(entry.command.client - 1);
    if (id >= clients_.size()) return;  // of a burst
    const Client& client = clients_[id];
    const bool awaited = client.busy && client.operation.write && client.sequence == entry.command.sequence &&
                         client.node == index(shell);
    if (awaited) finish(id, result);
}

void Simulation::read(raft::Shell& shell, std::uint64_t context) {
    for (std::uint32_t id = 0; id < clients_.size(); ++id) {
        const Client& client = clients_[id];
        const bool awaited = client.busy && !client.operation.write && client.attempt == context;
        if (awaited) {
            finish(id, shell.machine().query(client.operation.request));
            return;
        }
    }
}

void Simulation::read_refused(raft::Shell&, std::uint64_t context) {
    for (std::uint32_t id = 0; id < clients_.size(); ++id) {
        if (clients_[id].busy && !clients_[id].operation.write && clients_[id].attempt == context) {
            ask_again(id, std::nullopt);
            return;
        }
    }
}

}  // namespace outrider::sim
