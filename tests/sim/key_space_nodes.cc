// What each node does around its store.
#include <algorithm>
#include <utility>

#include "control/api/command.h"
#include "control/store/bugs.h"
#include "tests/sim/key_space.h"
#include "tests/sim/lease_client.h"
#include "tests/sim/watch_client.h"

namespace outrider::sim {
using namespace std::chrono_literals;
using store::Bug;
using store::bug;

std::unique_ptr<raft::StateMachine> KeySpace::machine(std::uint32_t node) {
    store::WatchHub::Options options;
    options.batch_bytes = profile().batch_bytes;
    options.scan_max = profile().scan_max;
    auto machine = std::make_unique<StoreMachine>(node, chronicle_, options);
    Server& server = servers_[node];
    server = Server{};
    server.machine = machine.get();
    return machine;
}

void KeySpace::crashed(std::uint32_t node) {
    servers_[node].machine = nullptr;
    std::erase_if(keep_alives_, [&](const auto& entry) { return entry.second.from == node; });
    for (const auto& caller : callers_) {
        caller->crashed(node);
    }
}

void KeySpace::applied(std::uint32_t node, const raft::Entry& entry, const std::string&) {
    Server& server = servers_[node];
    server.applied_term = entry.term;
    if (entry.type != raft::EntryType::kCommand) {
        server.machine->store().skip(entry.index.value);
        return;
    }
    check_holders();
    if (server.leading) follow_leases(node);
    if (awaited(entry.command.client, node) != nullptr) {
        answer_write(awaited_.at(entry.command.client), *server.machine);
    }
}

// What a command has done to leases.
void KeySpace::follow_leases(std::uint32_t node) {
    Server& server = servers_[node];
    const store::Response& response = server.machine->response();
    if (response.status != store::Status::kOk || server.machine->repeated()) return;
    if (const auto* granted = std::get_if<store::LeaseGrantResponse>(&response.body)) {
        server.leases.granted(cluster_->local(node), granted->id, granted->ttl_seconds);
    }
    if (const auto* revoke = std::get_if<store::LeaseRevokeRequest>(&server.machine->command().request)) {
        server.leases.revoked(revoke->id);
    }
}

void KeySpace::settled(std::uint32_t node) {
    if (servers_[node].machine == nullptr) return;  // it is starting
    follow_role(node);
    arm(node);
    pump(node);
}

void KeySpace::follow_role(std::uint32_t node) {
    Server& server = servers_[node];
    const raft::Core& core = cluster_->core(node);
    const bool leader = core.role() == raft::Role::kLeader;
    if (server.leading && (!leader || core.term() != server.term)) {
        server.leading = false;
        server.leases.step_down();
    }
    if (!server.leading && leader && server.applied_term == core.term()) {
        server.leading = true;
        server.term = core.term();
        server.leases.lead(cluster_->local(node), server.machine->store().leases(),
                           profile().options.election_timeout);
    }
}

void KeySpace::arm(std::uint32_t node) {
    Server& server = servers_[node];
    if (!server.leading) return;
    const auto deadline = server.leases.next_deadline();
    if (!deadline) return;
    // Times are compared on the node's clock: it is the cheaper way around.
    if (server.armed && *server.armed <= *deadline) return;
    server.armed = *deadline;
    cluster_->wake_at(cluster_->global(node, *deadline), {kLease, node, cluster_->epoch(node)});
}

void KeySpace::expire(std::uint32_t node) {
    Server& server = servers_[node];
    if (server.machine == nullptr) return;
    if (cluster_->paused(node)) {
        cluster_->wake_at(cluster_->paused_until(node), {kLease, node, 0});
        return;
    }
    server.armed.reset();
    if (!server.leading) return;
    raft::Propose propose;
    for (const store::LeaseId id : server.leases.expired(cluster_->local(node), 10)) {
        store::Command command;
        command.request = server.machine->store().expiry(id);
        propose.commands.push_back({0, 0, std::make_shared<const std::string>(api::encode_command(command))});
    }
    if (propose.commands.empty()) {
        arm(node);
    } else {
        cluster_->step(node, std::move(propose));
    }
}

// From another node: a write, or a keepalive.
void KeySpace::forwarded(const Timer& timer) {
    const std::uint32_t node = timer.who;
    if (cluster_->up(node) && cluster_->paused(node)) {
        cluster_->wake_at(cluster_->paused_until(node), timer);
        return;
    }
    Forward forward = std::move(forwards_[timer.what]);
    free_slots_.push_back(timer.what);
    if (!cluster_->up(node)) return;
    if (forward.keep_alive) {
        keep_alive(node, {forward.from, forward.attempt, forward.lease});
        return;
    }
    raft::Propose propose;
    propose.commands.push_back(std::move(forward.command));
    cluster_->step(node, std::move(propose));  // refused: the client asks again
}

void KeySpace::keep_alive(std::uint32_t node, const KeepAlive& asked) {
    if (!servers_[node].leading) return;
    if (bug(Bug::kKeepAliveUnconfirmed)) return renew(node, asked);
    const std::uint64_t context = ++attempts_;
    keep_alives_[context] = asked;
    cluster_->step(node, raft::BeginRead{context});
}

void KeySpace::renew(std::uint32_t node, const KeepAlive& asked) {
    Server& server = servers_[node];
    if (!server.leading) return;
    const auto ttl = server.leases.keep_alive(cluster_->local(node), asked.lease);
    if (cluster_->tracing()) {
        cluster_->note(node,
                       "keeps lease " + std::to_string(asked.lease.value) + (ttl ? " alive" : ": gone"));
    }
    if (asked.from == node) return renewed(asked.attempt, ttl);
    Forward back{true, node, asked.attempt, {}, asked.lease, ttl};
    cluster_->carry(node, asked.from, {kAnswer, asked.from, keep(std::move(back))});
}

void KeySpace::renewed(std::uint64_t attempt, std::optional<std::int64_t> ttl) {
    const auto it = awaited_.find(attempt);
    if (it == awaited_.end()) return;
    Answer out;
    out.ttl = ttl;
    answer(it->second, std::move(out));
}

// Nobody but its holder changes or deletes a guarded key while the holder counts on it, at any true time.
void KeySpace::check_holders() {
    const auto& changes = chronicle_.changes();
    for (; changes_looked_at_ < changes.size(); ++changes_looked_at_) {
        const store::KeyValue& kv = changes[changes_looked_at_].kv;
        if (kv.key != LeaseClient::kGuarded) continue;
        for (const LeaseClient* holder : holders_) {
            if (!holder->holds()) continue;
            chronicle_.broken("the guarded key is " + (kv.version == 0 ? "deleted" : "given to " + kv.value) +
                              " at revision " + std::to_string(kv.mod_revision.value) + " while " +
                              holder->name() + " holds it");
        }
    }
}

std::optional<store::WatchId> KeySpace::open_stream(std::uint32_t node, WatchClient& watcher,
                                                    store::WatchRequest request) {
    Server& server = servers_[node];
    const auto id = server.machine->hub().add(server.machine->store(), std::move(request));
    if (id) server.streams[id->value] = &watcher;
    return id;
}

void KeySpace::close_stream(std::uint32_t node, store::WatchId id) {
    servers_[node].machine->hub().remove(id);
    servers_[node].streams.erase(id.value);
}

void KeySpace::resume_stream(std::uint32_t node, store::WatchId id) {
    servers_[node].machine->hub().wake(id);
    pump(node);
}

void KeySpace::ask_progress(std::uint32_t node, store::WatchId id) {
    servers_[node].machine->hub().request_progress(id);
    pump(node);
}

// Gives every watcher that can take more what there is for it.
void KeySpace::pump(std::uint32_t node) {
    Server& server = servers_[node];
    store::WatchHub& hub = server.machine->hub();
    while (const auto id = hub.next_ready()) {
        const auto stream = server.streams.find(id->value);
        if (stream == server.streams.end()) continue;
        WatchClient& watcher = *stream->second;
        if (!watcher.takes_more()) continue;  // it resumes
        const store::WatchBatch batch = hub.poll(server.machine->store(), *id);
        if (batch.kind == store::WatchBatch::Kind::kCancelled) server.streams.erase(id->value);
        if (batch.kind != store::WatchBatch::Kind::kNothing) watcher.receive(batch, server.machine->store());
    }
}

}  // namespace outrider::sim
