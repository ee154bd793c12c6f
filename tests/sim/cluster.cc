#include "tests/sim/cluster.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/check.h"
#include "tests/raft/describe.h"

namespace outrider::sim {
using namespace std::chrono_literals;
namespace {

constexpr std::uint32_t kNodesMax = 12;  // that ever are, those that left included
constexpr Duration kStart = 1s;
// After the harm: for elections, and for clients that try one node after the other.
constexpr Duration kPatience = 30s;
// A hundred times what a seed takes: messages that make more messages.
constexpr std::uint64_t kEventsMax = 1'000'000;

bool later(Instant a, std::uint64_t a_order, Instant b, std::uint64_t b_order) {
    return a != b ? a > b : a_order > b_order;
}
constexpr auto kLater = [](const auto& a, const auto& b) { return later(a.at, a.order, b.at, b.order); };

}  // namespace

Cluster::Cluster(std::uint64_t seed, Profile profile, Application& application, bool trace)
    : profile_(std::move(profile)),
      application_(application),
      trace_(trace),
      random_(mix64(seed + 1)),
      now_(kStart),
      nodes_(kNodesMax + 1),
      blocked_(kNodesMax + 1, std::vector<bool>(kNodesMax + 1)),
      invariants_([this](raft::NodeId id) -> const raft::Disk* {
          return id.value < nodes_.size() ? nodes_[id.value].disk.get() : nullptr;
      }) {
    raft::Configuration founders;
    for (std::uint64_t id = 1; id <= profile_.founders; ++id) {
        founders.members.push_back({{id}, true, ""});
    }
    const auto shared = std::make_shared<const raft::Configuration>(std::move(founders));
    for (Node& node : nodes_) {
        const double error = profile_.clock_rate_error;
        // Extremes find more than what lies between.
        constexpr double kExtremes[] = {-1, 1, 0};
        const std::uint64_t extreme = random_.below(4);
        node.rate = 1 + error * (extreme < 3 ? kExtremes[extreme] : 2 * random_.unit() - 1);
        node.offset = between(0s, 1000s);
    }
    if (profile_.one_slow_clock) {
        const std::uint64_t slow = 1 + random_.below(profile_.founders);
        for (std::uint64_t id = 1; id <= profile_.founders; ++id) {
            nodes_[id].rate = 1 + profile_.clock_rate_error * (id == slow ? -1 : 1);
        }
    }
    application_.begin(*this);
    for (std::uint32_t id = 1; id <= profile_.founders; ++id) {
        nodes_[id].disk = std::make_unique<raft::Disk>(shared);
        start(id);
    }
    push(now_ + profile_.harm_every, Kind::kHarm, 0, 0);
}

Cluster::~Cluster() = default;

Summary Cluster::run() {
    const Instant healed = now_ + profile_.duration;
    Event event;
    while (!summary_.violation && next(event)) {
        now_ = event.at;
        if (harming_ && now_ >= healed) heal_all();
        ++summary_.events;
        const std::uint64_t what = static_cast<std::uint64_t>(event.kind) * 64 + event.who;
        summary_.digest =
            mix64(summary_.digest * 31 + static_cast<std::uint64_t>(now_.time_since_epoch().count()) + what);
        handle(event);
        check();
        if (!harming_ && application_.idle()) break;
        if (summary_.events > kEventsMax && !summary_.violation) {
            summary_.violation = "a storm of messages: " + std::to_string(kEventsMax) + " events";
        }
        if (now_ > healed + kPatience && !summary_.violation) {
            summary_.violation = "no progress: " + std::to_string(kPatience / 1s) +
                                 " s after everything healed " + application_.waiting_for();
        }
    }
    summary_.ended = now_;
    summary_.leaders = invariants_.leaders();
    summary_.commits = invariants_.committed().value;
    summary_.operations = application_.operations();
    return summary_;
}

void Cluster::check() {
    if (summary_.violation) return;
    if (invariants_.violation()) {
        summary_.violation = *invariants_.violation();
    } else if (application_.violation()) {
        summary_.violation = *application_.violation();
    }
}

// Once a leader has committed in its term, no earlier one may answer reads on its lease, at any true time: it would not know
// of the commit (thesis 6.4.1).
void Cluster::check_leases(const raft::Core& leader) {
    if (leader.role() != raft::Role::kLeader || leader.log().term(leader.commit_index()) != leader.term())
        return;
    for (const Node& node : nodes_) {
        if (node.shell == nullptr || summary_.violation) continue;
        const raft::Core& other = node.shell->core();
        if (other.role() != raft::Role::kLeader || other.term() >= leader.term()) continue;
        if (!other.lease_holds(local(node, now_))) continue;
        summary_.violation = "node " + std::to_string(other.id().value) + " holds a lease in term " +
                             std::to_string(other.term().value) + " after node " +
                             std::to_string(leader.id().value) + " has committed in term " +
                             std::to_string(leader.term().value);
    }
}

void Cluster::push(Instant at, Kind kind, std::uint32_t who, std::uint64_t what, std::uint32_t epoch) {
    events_.push_back({at, ++order_, what, who, epoch, kind});
    std::push_heap(events_.begin(), events_.end(), kLater);
}

bool Cluster::next(Event& event) {
    if (events_.empty()) return false;
    std::pop_heap(events_.begin(), events_.end(), kLater);
    event = events_.back();
    events_.pop_back();
    return true;
}

void Cluster::handle(const Event& event) {
    switch (event.kind) {
        case Kind::kDeliver:
            deliver(event);
            return;
        case Kind::kTick: {
            Node& node = nodes_[event.who];
            if (node.shell == nullptr || node.epoch != event.epoch) return;
            if (node.paused_until > now_) {
                // Behind some of the messages that have come in the meantime, perhaps.
                push(node.paused_until + between(0ms, 2ms), event.kind, event.who, event.what, event.epoch);
                return;
            }
            if (node.armed && *node.armed <= now_) node.armed.reset();
            const auto deadline = node.shell->core().next_deadline();
            if (deadline && *deadline <= local(node, now_)) {
                step(event.who, raft::Tick{});
            } else {
                settle(event.who);
            }
            return;
        }
        case Kind::kSynced:
            synced(event);
            return;
        case Kind::kApplication:
            application_.timer({static_cast<std::uint16_t>(event.epoch), event.who, event.what});
            return;
        case Kind::kHarm:
            if (harming_) harm();
            return;
        case Kind::kRestart:
            if (nodes_[event.who].shell == nullptr) start(event.who);
            return;
        case Kind::kClosed:
            closed(event);
            return;
    }
}

Duration Cluster::between(Duration low, Duration high) {
    return low + Duration(static_cast<std::int64_t>(
                     random_.below(static_cast<std::uint64_t>((high - low).count()) + 1)));
}

Instant Cluster::local(const Node& node, Instant at) const {
    const auto elapsed = static_cast<double>(at.time_since_epoch().count());
    return Instant(node.offset + Duration(static_cast<std::int64_t>(elapsed * node.rate)));
}

// The first instant at which the node's clock shows `at` or more.
Instant Cluster::global(const Node& node, Instant at) const {
    const auto elapsed = static_cast<double>((at.time_since_epoch() - node.offset).count());
    Instant guess(Duration(static_cast<std::int64_t>(elapsed / node.rate)));
    while (local(node, guess) < at) {
        guess += Duration(1);
    }
    return guess;
}

void Cluster::start(std::uint32_t id) {
    Node& node = nodes_[id];
    node.syncing = false;
    node.armed.reset();
    node.paused_until = node.hears_from = {};
    node.shell =
        std::make_unique<raft::Shell>(*this, raft::NodeId{id}, profile_.options, random_.next(), *node.disk,
                                      application_.machine(id), profile_.chunk_bytes, local(node, now_));
    ++node.starts;
    invariants_.started(node.shell->core());
    if (trace_) note(id, "starts in term " + std::to_string(node.shell->core().term().value));
    settle(id);
}

void Cluster::crash(std::uint32_t id) {
    Node& node = nodes_[id];
    if (node.shell == nullptr) return;
    if (trace_) note(id, "crashes");
    ++summary_.crashes;
    node.shell.reset();
    application_.crashed(id);
    node.disk->crash(random_);
    ++node.epoch;
    // A process that dies is told by its machine, unless that is gone with it.
    if (random_.below(4) != 0) {
        for (const std::uint32_t other : running()) {
            tell_closed(other, id);
        }
    }
    const Duration t = profile_.options.election_timeout;
    push(now_ + between(1ms, random_.below(3) == 0 ? 5 * t : t / 2), Kind::kRestart, id, 0);
}

raft::Outcome Cluster::step(std::uint32_t id, raft::Event event) {
    Node& node = nodes_[id];
    node.shell->step(local(node, now_), std::move(event));
    const raft::Outcome outcome = node.shell->outcome.value_or(raft::Outcome{});
    settle(id);
    return outcome;
}

// Begins a sync when something is to be synced, and sees to the next Tick.
void Cluster::settle(std::uint32_t id) {
    Node& node = nodes_[id];
    if (node.shell == nullptr) return;
    if (node.disk->pending() && !node.syncing) {
        node.syncing = true;
        push(std::max(now_, node.stalled_until) + between(profile_.sync_min, profile_.sync_max),
             Kind::kSynced, id, node.disk->last_written().value, node.epoch);
    }
    application_.settled(id);
    const auto deadline = node.shell->core().next_deadline();
    if (!deadline) return;
    const Instant at = std::max(now_, global(node, *deadline));
    if (node.armed && *node.armed <= at) return;
    node.armed = at;
    push(at, Kind::kTick, id, 0, node.epoch);
}

void Cluster::deliver(const Event& event) {
    Node& node = nodes_[event.who];
    if (node.shell != nullptr && node.hears_from > now_) {
        push(node.hears_from, event.kind, event.who, event.what);
        return;
    }
    raft::Message message = std::move(messages_[event.what]);
    free_slots_.push_back(event.what);
    if (node.shell == nullptr || message.to == raft::kNoNode) return;
    if (trace_) note(event.who, "gets " + describe(message));
    step(event.who, std::move(message));
}

// The node's connection to the peer was closed, by the other end or on the way.
void Cluster::tell_closed(std::uint32_t node, std::uint32_t peer) {
    if (const auto at = arrival(peer, node)) push(*at, Kind::kClosed, node, peer, nodes_[node].epoch);
}

void Cluster::closed(const Event& event) {
    Node& node = nodes_[event.who];
    if (node.shell == nullptr || node.epoch != event.epoch) return;
    if (node.hears_from > now_) {
        push(node.hears_from, event.kind, event.who, event.what, event.epoch);
        return;
    }
    if (trace_) note(event.who, "loses its connection to " + std::to_string(event.what));
    if (node.shell->core().leader().value == event.what) ++summary_.lost_leaders;
    step(event.who, raft::LeaderGone{{event.what}});
}

void Cluster::synced(const Event& event) {
    Node& node = nodes_[event.who];
    if (node.shell == nullptr || node.epoch != event.epoch) return;
    if (node.paused_until > now_) {
        push(node.paused_until, event.kind, event.who, event.what, event.epoch);
        return;
    }
    node.syncing = false;
    if (harming_ && profile_.sync_error > 0 && random_.unit() < profile_.sync_error) {
        if (trace_) note(event.who, "cannot sync");
        crash(event.who);
        return;
    }
    node.shell->synced(local(node, now_), {event.what});
    settle(event.who);
}

void Cluster::heal_all() {
    harming_ = false;
    for (auto& from : blocked_) {
        std::fill(from.begin(), from.end(), false);
    }
    for (std::uint32_t id = 1; id < nodes_.size(); ++id) {
        nodes_[id].paused_until = nodes_[id].hears_from = nodes_[id].stalled_until = {};
        if (nodes_[id].disk != nullptr && nodes_[id].shell == nullptr) start(id);
    }
    application_.healed();
}

void Cluster::wake_at(Instant at, Application::Timer timer) {
    push(std::max(at, now_), Kind::kApplication, timer.who, timer.what, timer.kind);
}

void Cluster::carry(std::uint32_t from, std::uint32_t to, Application::Timer timer) {
    if (const auto at = arrival(from, to)) wake_at(*at, timer);
}

std::optional<Instant> Cluster::arrival(std::uint64_t from, std::uint32_t to) {
    if (to >= nodes_.size() || nodes_[to].disk == nullptr || blocked_[from][to]) return std::nullopt;
    if (harming_ && profile_.loss > 0 && random_.unit() < profile_.loss) return std::nullopt;
    Duration delay = between(profile_.delay_min, profile_.delay_max);
    if (harming_ && profile_.late > 0 && random_.unit() < profile_.late) {
        delay += between(0ms, 2 * profile_.options.election_timeout);
    }
    return now_ + delay;
}

void Cluster::note(std::uint32_t node, const std::string& what) {
    std::printf("%12.6f  %u  %s\n", seconds_of(now_.time_since_epoch() - kStart), node, what.c_str());
}

void Cluster::send(raft::Message message) {
    invariants_.sent(message);
    ++summary_.messages;
    const auto from = message.from.value;
    const auto to = static_cast<std::uint32_t>(message.to.value);
    const bool twice = harming_ && profile_.duplicate > 0 && random_.unit() < profile_.duplicate;
    for (int copy = 0; copy < (twice ? 2 : 1); ++copy) {
        const auto at = arrival(from, to);
        if (!at) continue;
        std::uint64_t slot = messages_.size();
        if (free_slots_.empty()) {
            messages_.emplace_back();
        } else {
            slot = free_slots_.back();
            free_slots_.pop_back();
        }
        messages_[slot] = message;
        push(*at, Kind::kDeliver, to, slot);
    }
}

void Cluster::applied(raft::Shell& shell, const raft::Entry& entry, std::string result) {
    application_.applied(index(shell), entry, result);
}

void Cluster::read(raft::Shell& shell, std::uint64_t context) {
    application_.read(index(shell), context);
}

void Cluster::read_refused(raft::Shell& shell, std::uint64_t context) {
    application_.read_refused(index(shell), context);
}

void Cluster::stepped(raft::Shell& shell, const raft::Effects& effects) {
    ++summary_.steps;
    invariants_.stepped(shell.core(), effects);
    if (profile_.options.lease_reads && !effects.apply.empty()) check_leases(shell.core());
    if (effects.install) ++summary_.installs;
    if (!trace_) return;
    const std::uint32_t id = index(shell);
    if (effects.install) note(id, "installs the snapshot of " + std::to_string(effects.install->index.value));
    if (effects.truncate_after) note(id, "truncates after " + std::to_string(effects.truncate_after->value));
    if (effects.role) {
        note(id, std::string("is ") + to_string(effects.role->role) + " in term " +
                     std::to_string(effects.role->term.value));
    }
    if (effects.configuration) note(id, "members {" + describe(**effects.configuration) + "}");
    for (const raft::Entry& entry : effects.append) {
        note(id, "appends " + std::to_string(entry.index.value) + "/" + std::to_string(entry.term.value));
    }
    for (const raft::Entry& entry : effects.apply) {
        note(id, "applies " + std::to_string(entry.index.value) + "/" + std::to_string(entry.term.value));
    }
}

}  // namespace outrider::sim
