// The shell itself: steps, effects, peers.
#include "control/node/node.h"

#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/uv/acceptor.h"
#include "control/node/identity.h"

namespace outrider::node {
namespace {

using namespace std::chrono_literals;

constexpr unsigned kRoundsATurn = 16;  // of what one turn's end brings about by itself

raft::Options options_of(const config::ControlSettings& settings) {
    raft::Options options;
    options.election_timeout = settings.election_timeout;
    options.heartbeat = settings.heartbeat;
    return options;
}

store::Limits limits_of(const config::ControlSettings& settings) {
    store::Limits limits;
    limits.store_bytes_max = settings.max_store.value;
    return limits;
}

store::WatchHub::Options watch_options(const config::ControlSettings& settings) {
    store::WatchHub::Options options;
    options.watchers_max = settings.max_watchers;
    return options;
}

}  // namespace

Node::Node(uv::Loop& loop, const config::ControlSettings& settings, std::unique_ptr<Storage> storage,
           const NodeMetrics& metrics, Fatal fatal)
    : loop_(loop),
      settings_(settings),
      metrics_(metrics),
      fatal_(std::move(fatal)),
      limits_(limits_of(settings)),
      identity_(*storage->found().state.identity),
      client_id_(uv::random_seed() | 1),
      store_(std::move(storage->found().store)),
      hub_(watch_options(settings)),
      next_context_(uv::random_seed()),
      raft_alarm_([this](Instant) { step(raft::Tick{}); }),
      lease_alarm_([this](Instant) { expire_leases(); }),
      housekeeping_([this](Instant) { on_housekeeping(); }),
      progress_alarm_([this](Instant) {
          hub_.progress_round();
          loop_.schedule(progress_alarm_, kProgressInterval);
          schedule_turn();
      }),
      hand_over_alarm_([this](Instant) {
          if (handed_over_) std::exchange(handed_over_, nullptr)();
      }),
      storage_(std::move(storage)) {
    LogReplay::State& state = storage_->found().state;
    const raft::ConfigurationRef known = [&] {
        for (auto it = state.entries.rbegin(); it != state.entries.rend(); ++it) {
            if (it->configuration != nullptr) return raft::ConfigurationRef(it->configuration);
        }
        return raft::ConfigurationRef(state.snapshot.configuration);
    }();
    member_ = state.snapshot.configuration->find(identity_.node) != nullptr;
    if (begins_founding(identity_, state)) founding_.emplace(*identity_.founders, identity_.node);
    // Alone there is nobody to wait for: the first tick finds the election due.
    const bool alone = known->voters() == 1 && known->voter(identity_.node);
    const Instant begin = alone ? loop_.now() - 4 * settings_.election_timeout : loop_.now();
    core_ = std::make_unique<raft::Core>(
        raft::Start{identity_.node, uv::random_seed(), options_of(settings_), state.hard_state,
                    state.snapshot, std::move(state.entries), storage_->memory()},
        begin);
}

Node::~Node() = default;

Result<void> Node::start(const std::string& api_address) {
    // What a peer may be silent for: long enough for a slow disk, short enough to notice that a partition has healed.
    const Duration patience = std::max<Duration>(3 * settings_.election_timeout, 1s);
    peers_ = std::make_unique<Peers>(
        loop_,
        Peers::Self{identity_.cluster_id, identity_.node, identity_.name, api_address, storage_->log_id()},
        std::move(storage_->found().known_logs), patience, uv::random_seed(),
        static_cast<PeersHandler&>(*this));
    if (!founding_) peers_->set_taking_part();
    if (auto listening = peers_->listen(settings_.peer_listen); !listening) return listening;
    storage_->start(*this, [this](std::function<void()> task) { loop_.post(std::move(task)); });
    peers_->follow(members());
    loop_.schedule(housekeeping_, settings_.heartbeat);
    loop_.schedule(progress_alarm_, kProgressInterval);
    arm();
    return {};
}

void Node::close(std::function<void()> done) {
    closed_ = true;
    for (Timer* timer : {static_cast<Timer*>(&raft_alarm_), static_cast<Timer*>(&lease_alarm_),
                         static_cast<Timer*>(&housekeeping_), static_cast<Timer*>(&progress_alarm_),
                         static_cast<Timer*>(&hand_over_alarm_)})
        loop_.cancel(*timer);
    for (const std::uint64_t sequence : requests_.all())
        refuse(sequence, api::kStopped);
    end_walks();
    peers_->close(std::move(done));
}

void Node::fail(const std::string& reason, End end) {
    if (std::exchange(failed_, true)) return;
    fatal_(end, reason);
}

// ---- steps ----------------------------------------------------------------------------------------------------------

void Node::step(raft::Event event) {
    if (failed_ || closed_) return;
    carry_out(core_->step(loop_.now(), std::move(event)));
    schedule_turn();
}

void Node::carry_out(raft::Effects effects) {
    if (effects.hard_state) hard_state_write_ = *effects.write;
    storage_->write(effects);
    for (raft::Message& message : effects.send) {
        if (hard_state_write_ <= durable_) {
            post(std::move(message));
        } else {
            held_.push_back({std::move(message), hard_state_write_});
        }
    }
    if (effects.role) on_role(*effects.role);
    if (effects.configuration) peers_->follow(**effects.configuration);
    if (!effects.apply.empty()) apply(effects.apply);
    for (const std::uint64_t context : effects.reads_refused)
        on_read_refused(context);
    for (const raft::Read& read : effects.reads)
        on_readable(read.context, read.index);
}

void Node::post(raft::Message message) {
    if (!peers_->connected(message.to)) return;
    if (auto* chunk = std::get_if<raft::SnapshotChunk>(&message.body)) {
        if (!storage_->read_chunk(*chunk)) return;
    }
    outgoing_.Clear();
    to_proto(message, *outgoing_.mutable_raft());
    peers_->send(message.to, outgoing_);
}

void Node::on_role(const raft::RoleChange& change) {
    leader_known_ = leader_known_ || change.leader != raft::kNoNode;
    if (metrics_.leader_changes != nullptr) metrics_.leader_changes->add();
    const std::string leader = change.leader == identity_.node  ? identity_.name
                               : change.leader == raft::kNoNode ? "nobody"
                                                                : peers_->status(change.leader).name;
    log_info("term {}: this node is {}, the leader is {}", change.term.value, raft::to_string(change.role),
             leader);
    if (change.role != raft::Role::kLeader) {
        lease_leading_ = false;
        session_clock_.step_down();
        lease_clock_.step_down();
        loop_.cancel(lease_alarm_);
        if (handed_over_) loop_.post(std::exchange(handed_over_, nullptr));
    }
    // Reads that another leader was asked for may never be answered.
    ask_reads_anew(Duration(0));
    if (change.leader != raft::kNoNode) unpark();
}

void Node::on_durable(raft::WriteId last) {
    if (failed_ || closed_) return;
    durable_ = last;
    while (!held_.empty() && held_.front().after <= durable_) {
        post(std::move(held_.front().message));
        held_.pop_front();
    }
    step(raft::Persisted{last});
}

void Node::arm() {
    if (closed_) return;
    if (const auto deadline = core_->next_deadline(); deadline && !founding_) {
        loop_.schedule(raft_alarm_, std::max(*deadline - loop_.now(), Duration(0)));
    } else {
        loop_.cancel(raft_alarm_);
    }
    if (const auto deadline = lease_clock_.next_deadline()) {
        loop_.schedule(lease_alarm_, std::max(*deadline - loop_.now(), Duration(0)));
    } else {
        loop_.cancel(lease_alarm_);
    }
}

void Node::schedule_turn() {
    if (in_turn_end_) {
        again_ = true;
    } else {
        loop_.add_turn_end(*this);
    }
}

// Everything that came in during the turn leaves together: one proposal, one round of reads, one write to each peer.
void Node::on_turn_end() {
    in_turn_end_ = true;
    for (unsigned round = 0; round < kRoundsATurn; ++round) {
        again_ = false;
        if (!closed_ && !failed_) {
            dispatch_all();
            begin_proposals();
            begin_reads();
            pump_watches();
        }
        peers_->flush();
        if (!again_) break;
    }
    in_turn_end_ = false;
    if (!closed_ && !failed_ && walk_on()) again_ = true;
    arm();
    if (again_) loop_.post([this] { schedule_turn(); });
}

// ---- peers ----------------------------------------------------------------------------------------------------------

void Node::on_frame(raft::NodeId from, proto::Frame& frame) {
    if (failed_ || closed_) return;
    switch (frame.body_case()) {
        case proto::Frame::kRaft: {
            if (founding_) return;  // as if it were lost on the way
            auto message = from_proto(*frame.mutable_raft(), from, identity_.node);
            if (!message) {
                log_warning("a message from {} is passed over: {}", peers_->status(from).name,
                            message.error());
                return;
            }
            tell_if_removed(from);
            step(std::move(*message));
            break;
        }
        case proto::Frame::kForward:
            on_forward(from, *frame.mutable_forward());
            break;
        case proto::Frame::kForwardRefused:
            on_forward_refused(frame.forward_refused());
            break;
        case proto::Frame::kLeaseAsk:
            on_lease_ask(from, frame.lease_ask());
            break;
        case proto::Frame::kLeaseTell:
            on_lease_tell(frame.lease_tell());
            break;
        case proto::Frame::kMemberAsk:
            on_member_ask(from, frame.member_ask());
            break;
        case proto::Frame::kMemberTell:
            on_member_tell(frame.member_tell());
            break;
        default:
            break;  // of a newer program
    }
}

void Node::on_peer_connected(raft::NodeId) {
    unpark();
}

// What it was asked may be lost. Reads and questions of leases are asked again; whether a command takes effect is seen when it is
// applied, or another leader begins.
void Node::on_peer_lost(raft::NodeId peer, bool replaced) {
    if (closed_ || peer != core_->leader()) return;
    if (!replaced) step(raft::LeaderGone{peer});
    ask_reads_anew(Duration(0));
    for (const std::uint64_t sequence : requests_.of_kind(RequestTable::Kind::kLease)) {
        RequestTable::Entry* entry = requests_.find(sequence);
        if (entry->sent && !lease_answers_.contains(sequence)) park(sequence, *entry);
    }
}

// ---- a node that begins (founding.h) --------------------------------------------------------------------------------

void Node::on_peer_taken(raft::NodeId peer) {
    if (!founding_) return;
    founding_->taken_by(peer);
    consider_founded();
}

void Node::on_peer_not_reached(raft::NodeId peer) {
    if (!founding_) return;
    founding_->not_reached(peer);
    consider_founded();
}

void Node::consider_founded() {
    if (failed_ || closed_ || !founding_->done()) return;
    founding_.reset();
    peers_->set_taking_part();
    log_info("nobody who was asked knows this node with other data: it takes part");
    schedule_turn();
}

// Most likely the cluster was restored from a backup, or its list has changed, since this node was made; then it got its data in
// another way than by its file, and has lost it.
void Node::on_other_cluster(raft::NodeId peer, const std::string& reason) {
    if (!founding_) return;
    const std::string address = parse_member_address(members().find(peer)->address).peer;
    fail(fmt::format(
             "this node begins without data, and at {} is a cluster that does not know it: {} If this node "
             "has been a member and its data is lost, remove the member, delete {}, and add it again "
             "(outrider ctl member remove, member add, control.join)",
             address, reason, settings_.data),
         End::kForGood);
}

void Node::keep_known_logs(const KnownLogs& logs, std::function<void()> done) {
    storage_->keep_known_logs(logs, std::move(done));
}

// Who asks has no data yet. An id is only given to a learner that a majority knows of: a voter without its data would vote a second
// time, and take back what it has acknowledged. Nor to a learner that was met with its data: what it acknowledged may be counted when
// it is promoted.
void Node::on_join_ask(const proto::JoinAsk& ask, proto::JoinTell& tell) {
    const raft::ConfigurationRef settled = core_->log().configuration_at(core_->commit_index());
    tell.set_cluster_id(identity_.cluster_id);
    tell.set_cluster(identity_.cluster);
    to_proto(*settled, *tell.mutable_members());
    for (const raft::Member& member : settled->members) {
        if (parse_member_address(member.address).peer != ask.address()) continue;
        const bool met = peers_->has_met(member.id);
        if (!member.voter && !met) {
            tell.set_node_id(member.id.value);
            continue;
        }
        tell.set_lost(true);
        log_warning(
            "a node without data asks at {} to be the member there, which {}: when its data is lost, "
            "remove the member and add it again",
            ask.address().substr(0, kNameBytesMax), member.voter ? "votes" : "has been here with its data");
    }
}

}  // namespace outrider::node
