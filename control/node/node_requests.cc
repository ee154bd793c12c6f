// What waits at the node: commands, reads, questions about leases.
#include <utility>

#include "base/log.h"
#include "control/api/command.h"
#include "control/node/node.h"

namespace outrider::node {
namespace {

api::Problem problem_of(raft::Refusal refusal) {
    switch (refusal) {
        case raft::Refusal::kTooLarge:
            return api::problem_of(store::Status::kRequestTooLarge);
        case raft::Refusal::kTooMuch:
            return api::kTooManyRequests;
        default:
            return api::kNoLeader;
    }
}

bool opens_session(const RequestTable::Entry& entry) {
    return entry.kind == RequestTable::Kind::kCommand &&
           std::holds_alternative<store::SessionOpenRequest>(entry.command.request);
}

}  // namespace

std::uint64_t Node::add(RequestTable::Entry entry) {
    Request& request = *entry.request;
    if (closed_ || failed_) {
        request.on_refused(api::kStopped);
        return 0;
    }
    if (requests_.full()) {
        request.on_refused(api::kTooManyRequests);
        return 0;
    }
    const std::uint64_t sequence = requests_.add(std::move(entry), loop_.now() + kRequestTime);
    queue_.push_back(sequence);
    schedule_turn();
    return sequence;
}

void Node::propose(Request& request, store::Command command) {
    RequestTable::Entry entry;
    entry.request = &request;
    entry.kind = Kind::kCommand;
    entry.data = std::make_shared<const std::string>(api::encode_command(command));
    entry.command = std::move(command);
    add(std::move(entry));
}

void Node::read(Request& request) {
    RequestTable::Entry entry;
    entry.request = &request;
    entry.kind = Kind::kRead;
    add(std::move(entry));
}

void Node::ask_lease(Request& request, store::LeaseId lease, bool renew) {
    RequestTable::Entry entry;
    entry.request = &request;
    entry.kind = Kind::kLease;
    entry.lease = lease;
    entry.renew = renew;
    add(std::move(entry));
}

// ---- sessions of clients --------------------------------------------------------------------------------------------

// A member that may not be able to read what sessions bring to the log: rather one that has said so.
const raft::Member* Node::without_sessions() const {
    const raft::Member* found = nullptr;
    for (const raft::Member& member : members().members) {
        if (member.id == identity_.node || peers_->knows(member.id, kKnowsSessions)) continue;
        if (found == nullptr || peers_->connected(member.id)) found = &member;
    }
    return found;
}

std::string Node::why_no_sessions(const raft::Member& member) const {
    const std::string name = peers_->status(member.id).name;
    if (peers_->connected(member.id))
        return "no session can be opened: " + name +
               " runs an outrider that does not know sessions: upgrade all nodes first";
    return "no session can be opened: " + name +
           " is not connected, and has not told yet that it knows sessions: upgrade and start all nodes "
           "first";
}

// True: refused, or parked for a member that may be about to connect.
bool Node::wait_for_sessions(std::uint64_t sequence) {
    const raft::Member* member = without_sessions();
    if (member == nullptr) return false;
    if (peers_->connected(member->id))
        refuse(sequence, {api::Code::kFailedPrecondition, why_no_sessions(*member)});
    else
        parked_.push_back(sequence);
    return true;
}

// ---- on their way ---------------------------------------------------------------------------------------------------

void Node::dispatch_all() {
    std::vector<std::uint64_t> now;
    now.swap(queue_);
    for (const std::uint64_t sequence : now) {
        if (RequestTable::Entry* entry = requests_.find(sequence)) dispatch(sequence, *entry);
    }
}

void Node::dispatch(std::uint64_t sequence, RequestTable::Entry& entry) {
    if (entry.kind == Kind::kRead) {
        reads_.add({.sequence = sequence});
        return;
    }
    if (opens_session(entry) && wait_for_sessions(sequence)) return;
    if (!leads() && !peers_->connected(core_->leader())) {
        parked_.push_back(sequence);
        return;
    }
    entry.sent = true;
    entry.term = core_->term();
    if (entry.kind == Kind::kMembers) {
        begin_change(sequence, entry);
        return;
    }
    if (leads()) {
        if (entry.kind == Kind::kCommand) {
            proposals_.push_back({{client_id_, sequence, entry.data}, raft::kNoNode});
        } else {
            reads_.add({sequence, raft::kNoNode, entry.lease, entry.renew});
        }
        return;
    }
    outgoing_.Clear();
    if (entry.kind == Kind::kCommand) {
        proto::Forward& forward = *outgoing_.mutable_forward();
        forward.set_client(client_id_);
        forward.set_sequence(sequence);
        forward.set_data(*entry.data);
    } else {
        proto::LeaseAsk& ask = *outgoing_.mutable_lease_ask();
        ask.set_sequence(sequence);
        ask.set_id(entry.lease.value);
        ask.set_renew(entry.renew);
    }
    peers_->send(core_->leader(), outgoing_);
}

bool Node::passes(raft::Refusal refusal) {
    return refusal == raft::Refusal::kNotLeader || refusal == raft::Refusal::kTransferring ||
           refusal == raft::Refusal::kNotReady || refusal == raft::Refusal::kChangeInProgress;
}

// Not at once: it is asked again when there is a leader to turn to, and at each housekeeping.
void Node::park(std::uint64_t sequence, RequestTable::Entry& entry) {
    entry.sent = false;
    parked_.push_back(sequence);
}

void Node::unpark() {
    if (closed_) return;
    queue_.insert(queue_.end(), parked_.begin(), parked_.end());
    parked_.clear();
    schedule_turn();
}

void Node::begin_proposals() {
    if (proposals_.empty()) return;
    std::vector<Proposal> batch;
    batch.swap(proposals_);
    if (!leads()) {
        for (const Proposal& proposal : batch)
            refuse_proposal(proposal, raft::Refusal::kNotLeader);
        return;
    }
    raft::Propose propose;
    propose.commands.reserve(batch.size());
    for (const Proposal& proposal : batch)
        propose.commands.push_back(proposal.command);
    raft::Effects effects = core_->step(loop_.now(), std::move(propose));
    const raft::Outcome outcome = *effects.outcome;
    carry_out(std::move(effects));
    if (metrics_.proposals != nullptr) metrics_.proposals->add(outcome.accepted);
    for (std::size_t i = outcome.accepted; i < batch.size(); ++i) {
        const bool only_this = outcome.refusal == raft::Refusal::kTooLarge;
        if (only_this && i > outcome.accepted) {
            proposals_.push_back(std::move(batch[i]));
            schedule_turn();
        } else {
            refuse_proposal(batch[i], outcome.refusal);
        }
    }
}

void Node::refuse_proposal(const Proposal& proposal, raft::Refusal refusal) {
    if (proposal.from != raft::kNoNode) {
        outgoing_.Clear();
        outgoing_.mutable_forward_refused()->set_sequence(proposal.command.sequence);
        outgoing_.mutable_forward_refused()->set_refusal(static_cast<std::uint32_t>(refusal));
        peers_->send(proposal.from, outgoing_);
        return;
    }
    RequestTable::Entry* entry = requests_.find(proposal.command.sequence);
    if (proposal.command.client != client_id_ || entry == nullptr) return;
    if (passes(refusal)) {
        park(proposal.command.sequence, *entry);
    } else {
        refuse(proposal.command.sequence, problem_of(refusal));
    }
}

void Node::on_forward(raft::NodeId from, proto::Forward& forward) {
    Proposal proposal{{forward.client(), forward.sequence(),
                       std::make_shared<const std::string>(std::move(*forward.mutable_data()))},
                      from};
    // What stands in the log must be readable for every member.
    if (const auto command = api::decode_command(*proposal.command.data); !command) {
        log_warning("a command from {} is refused: {}", peers_->status(from).name, command.error());
        refuse_proposal(proposal, raft::Refusal::kTooLarge);
        return;
    }
    proposals_.push_back(std::move(proposal));
    schedule_turn();
}

void Node::on_forward_refused(const proto::ForwardRefused& refused) {
    RequestTable::Entry* entry = requests_.find(refused.sequence());
    if (entry == nullptr) return;
    const auto refusal = static_cast<raft::Refusal>(refused.refusal());
    if (passes(refusal)) {
        park(refused.sequence(), *entry);
    } else {
        refuse(refused.sequence(), problem_of(refusal));
    }
}

void Node::refuse(std::uint64_t sequence, const api::Problem& problem) {
    if (auto entry = requests_.take(sequence)) entry->request->on_refused(problem);
}

// ---- reads ----------------------------------------------------------------------------------------------------------

void Node::begin_reads() {
    if (!reads_.waiting() || !has_leader()) return;
    if (!leads() && !peers_->connected(core_->leader())) return;
    const std::uint64_t context = next_context_++;
    reads_.ask(context, loop_.now());
    step(raft::BeginRead{context});
}

// Those that were last asked about so long ago: at the end of a turn in which there is a leader.
void Node::ask_reads_anew(Duration age) {
    const auto good = [this](const ReadItem& item) {
        const RequestTable::Entry* entry =
            item.from == raft::kNoNode ? requests_.find(item.sequence) : nullptr;
        return entry != nullptr && entry->kind == Kind::kRead;
    };
    for (const ReadItem& item : reads_.ask_anew(loop_.now(), age, good)) {
        if (item.from == raft::kNoNode) {
            queue_.push_back(item.sequence);  // a lease's question may have to go elsewhere now
        } else {
            reads_.add(item);
        }
    }
    if (reads_.waiting() || !queue_.empty()) schedule_turn();
}

void Node::on_readable(std::uint64_t context, raft::LogIndex index) {
    const ReadRounds::Items items = reads_.answered(context);
    if (items.empty()) return;  // another answer came first
    auto& waiting = readable_[index];
    waiting.insert(waiting.end(), items.begin(), items.end());
    answer_reads();
}

void Node::on_read_refused(std::uint64_t context) {
    // Not at once: the leader that refuses may not know yet that it is none.
    for (const ReadItem& item : reads_.refused(context)) {
        if (item.from == raft::kNoNode) {
            parked_.push_back(item.sequence);
        } else {
            // Though this node may lead: no round has confirmed it, and its clock may not speak without one.
            tell_lease(item, std::nullopt);
        }
    }
}

void Node::answer_reads() {
    while (!readable_.empty() && readable_.begin()->first.value <= store_->applied_index()) {
        const std::vector<ReadItem> items = std::move(readable_.begin()->second);
        readable_.erase(readable_.begin());
        for (const ReadItem& item : items)
            answer(item);
    }
}

void Node::answer(const ReadItem& item) {
    const bool knows = leads() && lease_leading_;
    const auto ask_clock = [&](store::LeaseId lease, bool renew) {
        return renew ? lease_clock_.keep_alive(loop_.now(), lease).value_or(-1)
                     : lease_clock_.seconds_left(loop_.now(), lease);
    };
    if (item.from != raft::kNoNode) {
        tell_lease(item, knows ? std::optional(ask_clock(item.lease, item.renew)) : std::nullopt);
        return;
    }
    RequestTable::Entry* entry = requests_.find(item.sequence);
    if (entry == nullptr) {
        lease_answers_.erase(item.sequence);
        return;
    }
    if (entry->kind == Kind::kRead) {
        requests_.take(item.sequence)->request->on_readable();
        return;
    }
    std::int64_t seconds = 0;
    if (const auto told = lease_answers_.find(item.sequence); told != lease_answers_.end()) {
        seconds = told->second;
        lease_answers_.erase(told);
    } else if (knows) {
        seconds = ask_clock(entry->lease, entry->renew);
    } else {
        parked_.push_back(item.sequence);
        return;
    }
    requests_.take(item.sequence)->request->on_lease(seconds);
}

// To the follower that asks; nothing: it is to ask again.
void Node::tell_lease(const ReadItem& item, std::optional<std::int64_t> seconds) {
    outgoing_.Clear();
    proto::LeaseTell& tell = *outgoing_.mutable_lease_tell();
    tell.set_sequence(item.sequence);
    tell.set_refused(!seconds);
    if (seconds) tell.set_seconds(*seconds);
    tell.set_read_index(store_->applied_index());
    peers_->send(item.from, outgoing_);
    schedule_turn();
}

void Node::on_lease_ask(raft::NodeId from, const proto::LeaseAsk& ask) {
    const ReadItem item{ask.sequence(), from, {ask.id()}, ask.renew()};
    if (!leads()) {
        answer(item);
        return;
    }
    reads_.add(item);
    schedule_turn();
}

void Node::on_lease_tell(const proto::LeaseTell& tell) {
    RequestTable::Entry* entry = requests_.find(tell.sequence());
    if (entry == nullptr || entry->kind != Kind::kLease) return;
    if (tell.refused()) {
        park(tell.sequence(), *entry);
        return;
    }
    lease_answers_[tell.sequence()] = tell.seconds();
    readable_[raft::LogIndex{tell.read_index()}].push_back({.sequence = tell.sequence()});
    answer_reads();
}

// ---- time -----------------------------------------------------------------------------------------------------------

void Node::on_housekeeping() {
    const Instant now = loop_.now();
    for (const std::uint64_t sequence : requests_.overdue(now)) {
        const RequestTable::Entry* entry = requests_.find(sequence);
        const bool never_began = entry != nullptr && !entry->sent && !has_leader();
        lease_answers_.erase(sequence);
        const raft::Member* unmet =
            entry != nullptr && !entry->sent && opens_session(*entry) ? without_sessions() : nullptr;
        if (unmet != nullptr && has_leader()) {
            refuse(sequence, {api::Code::kFailedPrecondition, why_no_sessions(*unmet)});
            continue;
        }
        refuse(sequence, never_began ? api::kNoLeader : api::kTimeout);
    }
    requests_.next_deadline();  // drops what is over
    // A message to or from the leader may have been lost.
    if (!leads()) ask_reads_anew(settings_.election_timeout);
    promote_ready();
    age_sessions();
    if (!parked_.empty()) unpark();
    if (reads_.waiting()) schedule_turn();
    loop_.schedule(housekeeping_, settings_.heartbeat);
}

}  // namespace outrider::node
