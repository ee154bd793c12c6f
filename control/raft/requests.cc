// What the shell asks for: commands, changes of members, transfers, reads.
#include <algorithm>
#include <utility>

#include "control/raft/bugs.h"
#include "control/raft/core.h"
#include "control/raft/quorum.h"

namespace outrider::raft {

Refusal Core::refusal(const Command& command) const {
    if (role_ != Role::kLeader) return Refusal::kNotLeader;
    if (transfer_) return Refusal::kTransferring;
    if (command.data->size() > options_.command_bytes_max.value) return Refusal::kTooLarge;
    if (uncommitted_bytes_ + command.data->size() > options_.uncommitted_bytes_max.value)
        return Refusal::kTooMuch;
    return Refusal::kNone;
}

void Core::on(Propose& propose) {
    Outcome outcome{.first_index = log_.last_index() + 1, .term = term()};
    for (Command& command : propose.commands) {
        outcome.refusal = refusal(command);
        if (outcome.refusal != Refusal::kNone) break;
        Entry entry = next_entry(EntryType::kCommand);
        entry.command = std::move(command);
        append_own(std::move(entry));
        ++outcome.accepted;
    }
    effects_.outcome = outcome;
    if (outcome.accepted == 0) return;
    broadcast_append();
    if (bug(Bug::kLeaderCountsUnpersisted)) count_commits();
}

Refusal Core::refusal(const ChangeMembership& change) const {
    using Kind = ChangeMembership::Kind;
    if (role_ != Role::kLeader) return Refusal::kNotLeader;
    if (transfer_) return Refusal::kTransferring;
    if (log_.configuration_index() > commit_) return Refusal::kChangeInProgress;
    // Else a change that another leader has appended and not committed may still be alive somewhere.
    if (!committed_in_term() && !bug(Bug::kChangeBeforeCommit)) return Refusal::kNotReady;
    const Member* member = configuration().find(change.node);
    if (change.kind == Kind::kAddLearner) {
        if (change.node == kNoNode) return Refusal::kNotMember;
        if (member != nullptr) return Refusal::kAlreadyMember;
        if (configuration().members.size() == kMembersMax) return Refusal::kTooManyMembers;
        return Refusal::kNone;
    }
    if (member == nullptr) return Refusal::kNotMember;
    if (change.kind == Kind::kUpdate) return Refusal::kNone;
    if (change.kind == Kind::kRemove) {
        return member->voter && configuration().voters() == 1 ? Refusal::kLastVoter : Refusal::kNone;
    }
    if (member->voter) return Refusal::kAlreadyMember;
    return caught_up(change.node) ? Refusal::kNone : Refusal::kNotCaughtUp;
}

bool Core::caught_up(NodeId learner) const {
    const Progress* progress = peer(learner);
    return progress != nullptr && progress->state() == Progress::State::kReplicate &&
           progress->match() + options_.promotion_lag_max >= log_.last_index();
}

void Core::on(ChangeMembership& change) {
    using Kind = ChangeMembership::Kind;
    Outcome outcome{.refusal = refusal(change), .first_index = log_.last_index() + 1, .term = term()};
    if (outcome.refusal != Refusal::kNone) {
        effects_.outcome = outcome;
        return;
    }
    Configuration next = configuration();
    const auto at = std::find_if(next.members.begin(), next.members.end(),
                                 [&](const Member& member) { return member.id >= change.node; });
    if (change.kind == Kind::kAddLearner) {
        next.members.insert(at, {change.node, false, std::move(change.address)});
    } else if (change.kind == Kind::kPromote) {
        at->voter = true;
    } else if (change.kind == Kind::kUpdate) {
        at->address = std::move(change.address);
    } else {
        next.members.erase(at);
    }
    Entry entry = next_entry(EntryType::kConfiguration);
    entry.configuration = std::make_shared<const Configuration>(std::move(next));
    append_own(std::move(entry));
    outcome.accepted = 1;
    effects_.outcome = outcome;
    broadcast_append();
    count_commits();
}

Refusal Core::refusal(const TransferLeadership& transfer) const {
    if (role_ != Role::kLeader) return Refusal::kNotLeader;
    if (transfer_) return Refusal::kTransferring;
    if (!configuration().voter(transfer.to)) return Refusal::kNotMember;
    return Refusal::kNone;
}

void Core::on(const TransferLeadership& transfer) {
    effects_.outcome = Outcome{.refusal = refusal(transfer), .term = term()};
    if (effects_.outcome->refusal != Refusal::kNone || transfer.to == id_) return;
    // When it has not worked by then, this leader goes on (3.10).
    transfer_ = LeaderTransfer{.to = transfer.to, .until = now_ + options_.election_timeout};
    try_transfer();
}

void Core::try_transfer() {
    if (!transfer_ || transfer_->told) return;
    const Progress* to = peer(transfer_->to);
    if (to == nullptr || to->match() != log_.last_index()) return;
    transfer_->told = true;
    lease_given_up_ = !bug(Bug::kLeaseAfterTransfer);
    send(transfer_->to, TimeoutNow{});
}

// Its own removal is committed (4.2.2). The voter that has most takes over, so that nobody waits for a timeout.
void Core::leave() {
    const Progress* best = nullptr;
    for (const Progress& peer : peers_) {
        if (!configuration().voter(peer.id())) continue;
        if (best == nullptr || peer.match() > best->match()) best = &peer;
    }
    if (best != nullptr) send(best->id(), TimeoutNow{});
    become_follower(hard_state_.term, kNoNode);
}

// ---- reads (thesis 6.4) ----

bool Core::committed_in_term() const {
    return commit_ >= term_start_;
}

bool Core::lease_holds(Instant now) const {
    if (!options_.lease_reads || lease_given_up_) return false;
    // One is added so that 0 can mean "never".
    const auto number = [](Instant at) {
        return static_cast<std::uint64_t>(at.time_since_epoch().count()) + 1;
    };
    Quorum quorum(majority());
    if (voter()) quorum.add(number(now));
    for (const Progress& peer : peers_) {
        const auto at = peer.acknowledged_at();
        if (configuration().voter(peer.id()) && at) quorum.add(number(*at));
    }
    const std::uint64_t reached = quorum.reached();
    if (reached == 0) return false;
    const double u = options_.clock_uncertainty;
    const double length = static_cast<double>(options_.election_timeout.count()) * (1 - u) / (1 + u);
    const Duration lease = bug(Bug::kLeaseIgnoresClock) ? options_.election_timeout
                                                        : Duration(static_cast<std::int64_t>(length));
    return now < Instant(Duration(static_cast<std::int64_t>(reached - 1))) + lease;
}

void Core::on(const BeginRead& read) {
    if (role_ != Role::kLeader && leader_ != kNoNode) {
        send(leader_, ReadRequest{read.context});
        return;
    }
    take_read(read.context, id_);
}

void Core::on_body(const Message& message, const ReadRequest& request) {
    take_read(request.context, message.from);
}

void Core::take_read(std::uint64_t context, NodeId from) {
    const bool full = reads_waiting_.size() + reads_confirming_.size() >= options_.reads_max;
    if (role_ != Role::kLeader || full) {
        refuse_read(context, from);
        return;
    }
    const bool at_once = bug(Bug::kReadWithoutRound) || lease_holds(now_);
    if (committed_in_term() && at_once) {
        answer_read({context, from, commit_, 0});
        return;
    }
    reads_waiting_.push_back({.context = context, .from = from});
    confirm_reads();
}

// Begins a round for those that wait, unless one for others is under way: they all ride on the next.
void Core::confirm_reads() {
    const bool may = committed_in_term() || bug(Bug::kReadBeforeTermCommit);
    if (reads_waiting_.empty() || !reads_confirming_.empty() || !may) return;
    broadcast_heartbeat();
}

void Core::release_reads() {
    if (reads_confirming_.empty()) return;
    Quorum quorum(majority());
    if (voter()) quorum.add(round_);
    for (const Progress& peer : peers_) {
        if (configuration().voter(peer.id())) quorum.add(peer.acknowledged_round());
    }
    const std::uint64_t confirmed = quorum.reached();
    while (!reads_confirming_.empty() && reads_confirming_.front().round <= confirmed) {
        answer_read(reads_confirming_.front());
        reads_confirming_.pop_front();
    }
    confirm_reads();
}

void Core::answer_read(const PendingRead& read) {
    if (read.from == id_) {
        effects_.reads.push_back({read.context, read.index});
    } else {
        send(read.from, ReadResponse{.context = read.context, .index = read.index});
    }
}

void Core::refuse_read(std::uint64_t context, NodeId from) {
    if (from == id_) {
        effects_.reads_refused.push_back(context);
    } else {
        send(from, ReadResponse{.context = context, .refused = true});
    }
}

void Core::refuse_all_reads() {
    for (const PendingRead& read : reads_waiting_) {
        refuse_read(read.context, read.from);
    }
    for (const PendingRead& read : reads_confirming_) {
        refuse_read(read.context, read.from);
    }
    reads_waiting_.clear();
    reads_confirming_.clear();
}

}  // namespace outrider::raft
