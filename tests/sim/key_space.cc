// The clients' requests, and how they find an answer.
#include "tests/sim/key_space.h"

#include <algorithm>
#include <utility>

#include "control/api/command.h"
#include "control/store/bugs.h"
#include "tests/sim/kv_client.h"
#include "tests/sim/lease_client.h"
#include "tests/sim/watch_client.h"

namespace outrider::sim {
using namespace std::chrono_literals;
using store::Bug;
using store::bug;

KeySpace::KeySpace(const Profile& profile) : kv_clients_(profile.clients) {
    for (std::uint64_t i = 0; i < profile.clients; ++i) {
        callers_.push_back(std::make_unique<KvClient>(*this));
    }
    for (std::uint64_t i = 0; i < profile.watchers; ++i) {
        callers_.push_back(std::make_unique<WatchClient>(*this));
    }
    for (std::uint64_t i = 0; i < profile.holders; ++i) {
        auto holder = std::make_unique<LeaseClient>(*this);
        holders_.push_back(holder.get());
        callers_.push_back(std::move(holder));
    }
    calls_.resize(callers_.size());
    store::Command nothing;
    nothing.request = store::DeleteRequest{{"none", {}}, false};
    idle_ = api::encode_command(nothing);
}

KeySpace::~KeySpace() = default;

void KeySpace::begin(Cluster& cluster) {
    cluster_ = &cluster;
    servers_.resize(cluster.nodes_max() + 1);
    for (std::uint32_t id = 0; id < callers_.size(); ++id) {
        callers_[id]->begin(id);
    }
    if (profile().watchers > 0) cluster.wake_at(now() + profile().progress_every, {kProgress, 0, 0});
}

raft::Command KeySpace::idle_command() const {
    return {0, 0, std::make_shared<const std::string>(idle_)};
}

void KeySpace::healed() {
    for (const auto& caller : callers_) {
        caller->healed();
    }
}

bool KeySpace::idle() const {
    if (busy_ > 0) return false;
    for (const auto& caller : callers_) {
        if (!caller->idle()) return false;
    }
    return true;
}

std::string KeySpace::waiting_for() const {
    for (std::size_t id = 0; id < callers_.size(); ++id) {
        if (calls_[id].busy) return "a request of client " + std::to_string(id) + " is not answered";
        if (!callers_[id]->idle()) return "watcher " + std::to_string(id) + " has not got every change";
    }
    return "nothing is waited for";
}

void KeySpace::wake_at(std::uint32_t caller, Instant at, std::uint64_t what) {
    cluster_->wake_at(at, {kTurn, caller, what});
}

void KeySpace::timer(const Timer& timer) {
    switch (timer.kind) {
        case kTurn:
            return callers_[timer.who]->turn(timer.what);
        case kAsk:
            if (calls_[timer.who].busy && calls_[timer.who].attempt == timer.what) ask(timer.who);
            return;
        case kSend:
            if (calls_[timer.who].busy && calls_[timer.who].attempt == timer.what) send(timer.who);
            return;
        case kTimeout:
            if (calls_[timer.who].busy && calls_[timer.who].attempt == timer.what) ask_again(timer.who);
            return;
        case kForward:
            return forwarded(timer);
        case kAnswer: {
            if (cluster_->up(timer.who) && cluster_->paused(timer.who))
                return cluster_->wake_at(cluster_->paused_until(timer.who), timer);
            const Forward forward = std::move(forwards_[timer.what]);
            free_slots_.push_back(timer.what);
            return renewed(forward.attempt, forward.ttl);
        }
        case kLease:
            return expire(timer.who);
        case kProgress:
            cluster_->wake_at(now() + profile().progress_every, {kProgress, 0, 0});
            for (std::uint32_t node = 1; node < servers_.size(); ++node) {
                if (!cluster_->answers(node)) continue;
                servers_[node].machine->hub().progress_round();
                pump(node);
            }
            return;
    }
}

void KeySpace::call(std::uint32_t id, Request request) {
    Call& call = calls_[id];
    require(!call.busy, "a caller has one request at a time");
    call.busy = true;
    ++busy_;
    call.times = 0;
    call.request = std::move(request);
    if (call.request.kind == Request::Kind::kWrite) ++call.sequence;
    ask(id);
}

void KeySpace::hang_up(std::uint32_t id) {
    Call& call = calls_[id];
    if (!call.busy) return;
    awaited_.erase(call.attempt);
    call.busy = false;
    call.opening = false;
    --busy_;
}

std::uint32_t KeySpace::leader_of(std::uint32_t node) const {
    return static_cast<std::uint32_t>(cluster_->core(node).leader().value);
}

// One attempt. Whether it is refused, answered, or lost is seen later.
void KeySpace::ask(std::uint32_t id) {
    Call& call = calls_[id];
    awaited_.erase(call.attempt);
    call.attempt = ++attempts_;
    awaited_[call.attempt] = id;
    ++call.times;
    if (call.times == 1 || call.request.kind != Request::Kind::kWrite) call.asked = now();
    if (const std::uint32_t home = callers_[id]->home(); home != 0) call.node = home;
    if (call.node == 0) call.node = cluster_->some_node();
    const Duration t = profile().options.election_timeout;
    // With each attempt more patience: every repeated write is one more entry, which a slow cluster would drown in.
    const Duration patience =
        callers_[id]->home() != 0
            ? 2s
            : 2 * t * static_cast<std::int64_t>(1 + std::min<std::uint64_t>(call.times, 40) / 4);
    cluster_->wake_at(now() + cluster_->between(t / 2, patience), {kTimeout, id, call.attempt});
    send(id);
}

// The request reaches the node. While that one pauses it waits in a socket; the client asks elsewhere after its timeout.
void KeySpace::send(std::uint32_t id) {
    Call& call = calls_[id];
    if (!cluster_->up(call.node)) return;
    if (cluster_->paused(call.node))
        return cluster_->wake_at(cluster_->paused_until(call.node), {kSend, id, call.attempt});
    switch (call.request.kind) {
        case Request::Kind::kWrite:
            return write(id);
        case Request::Kind::kRead:
            if (bug(Bug::kReadWithoutIndex)) return answer_read(id);
            cluster_->step(call.node, raft::BeginRead{call.attempt});
            return;
        case Request::Kind::kStaleRead:
            return answer_read(id);
        case Request::Kind::kKeepAlive: {
            const std::uint32_t leader = leader_of(call.node);
            const KeepAlive asked{call.node, call.attempt, call.request.lease};
            if (leader == call.node) return keep_alive(leader, asked);
            if (leader == 0) return ask_again(id);
            Forward forward{true, call.node, call.attempt, {}, asked.lease, {}};
            cluster_->carry(call.node, leader, {kForward, leader, keep(std::move(forward))});
            return;
        }
    }
}

void KeySpace::ask_again(std::uint32_t id) {
    Call& call = calls_[id];
    awaited_.erase(call.attempt);
    call.attempt = ++attempts_;  // what the last attempt brings later is not looked at
    call.node = cluster_->some_node();
    cluster_->wake_at(now() + cluster_->between(1ms, 20ms), {kAsk, id, call.attempt});
}

void KeySpace::write(std::uint32_t id) {
    Call& call = calls_[id];
    call.opening = call.session.value == 0;
    store::Command command;
    if (call.opening) {
        command.request = store::SessionOpenRequest{};
    } else {
        command = call.request.command;
        command.session = call.session;
        command.sequence = call.sequence;
    }
    raft::Command encoded{call.attempt, 0, std::make_shared<const std::string>(api::encode_command(command))};
    const std::uint32_t leader = leader_of(call.node);
    if (profile().sessions_age && harming() && one_in(300) && leader == call.node) age_sessions(leader);
    if (leader == call.node) {
        raft::Propose propose;
        propose.commands.push_back(std::move(encoded));
        const raft::Outcome outcome = cluster_->step(leader, std::move(propose));
        // A cluster of one may have answered already.
        if (outcome.refusal != raft::Refusal::kNone && call.busy) ask_again(id);
    } else if (leader == 0) {
        ask_again(id);
    } else {
        Forward forward{false, call.node, call.attempt, std::move(encoded), {}, {}};
        cluster_->carry(call.node, leader, {kForward, leader, keep(std::move(forward))});
    }
}

void KeySpace::age_sessions(std::uint32_t leader) {
    store::Command command;
    command.request = store::SessionsAgeRequest{store::kSessionIdleMillis / 2 + 1};
    const auto data = std::make_shared<const std::string>(api::encode_command(command));
    raft::Propose propose;
    propose.commands = {{0, 0, data}, {0, 0, data}};
    cluster_->step(leader, std::move(propose));
}

std::uint64_t KeySpace::keep(Forward forward) {
    if (free_slots_.empty()) {
        forwards_.push_back(std::move(forward));
        return forwards_.size() - 1;
    }
    const std::uint64_t slot = free_slots_.back();
    free_slots_.pop_back();
    forwards_[slot] = std::move(forward);
    return slot;
}

KeySpace::Call* KeySpace::awaited(std::uint64_t attempt, std::uint32_t node) {
    const auto it = awaited_.find(attempt);
    if (it == awaited_.end()) return nullptr;
    Call& call = calls_[it->second];
    return call.node == node ? &call : nullptr;
}

void KeySpace::answer_read(std::uint32_t id) {
    const Call& call = calls_[id];
    const store::Store& from = servers_[call.node].machine->store();
    store::Store::RangeResult result = from.range(call.request.range, {});
    Answer out;
    out.status = result.status;
    out.revision = from.revision();
    out.range = std::move(result.response);
    answer(id, std::move(out));
}

void KeySpace::answer_write(std::uint32_t id, const StoreMachine& machine) {
    Call& call = calls_[id];
    const store::Response& response = machine.response();
    if (call.opening) {
        if (response.status != store::Status::kOk) chronicle_.broken("a session is not opened");
        call.session = response.session;
        call.sequence = 1;
        awaited_.erase(call.attempt);
        call.attempt = ++attempts_;
        cluster_->wake_at(now(), {kAsk, id, call.attempt});
        return;
    }
    if (response.status == store::Status::kSessionUnknown) {
        call.session = {};
        if (!profile().sessions_age) chronicle_.broken("a session is forgotten");
    }
    if (response.status == store::Status::kSessionStale) {
        chronicle_.broken("a session's last command is called stale");
    }
    answer(id, {response.status, response.revision, response, {}, {}, {}});
}

void KeySpace::answer(std::uint32_t id, Answer out) {
    Call& call = calls_[id];
    if (harming() && profile().answer_loss > 0 && random().unit() < profile().answer_loss) return;
    out.asked = call.asked;
    hang_up(id);
    ++operations_;
    // Mostly the same node again.
    if (one_in(4)) call.node = 0;
    // A copy: the caller may ask on at once.
    const Request request = std::move(call.request);
    callers_[id]->answered(request, out);
}

void KeySpace::read(std::uint32_t node, std::uint64_t context) {
    if (const auto it = keep_alives_.find(context); it != keep_alives_.end()) {
        const KeepAlive asked = it->second;
        keep_alives_.erase(it);
        renew(node, asked);
    } else if (awaited(context, node) != nullptr) {
        answer_read(awaited_.at(context));
    }
}

void KeySpace::read_refused(std::uint32_t node, std::uint64_t context) {
    if (keep_alives_.erase(context) > 0) return;
    if (awaited(context, node) != nullptr) ask_again(awaited_.at(context));
}

}  // namespace outrider::sim
