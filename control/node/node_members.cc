// Changes of members, and handing the leadership over.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "control/node/identity.h"
#include "control/node/node.h"

namespace outrider::node {
void Node::change_members(Request& request, raft::ChangeMembership change) {
    RequestTable::Entry entry;
    entry.request = &request;
    entry.kind = Kind::kMembers;
    entry.change = std::move(change);
    add(std::move(entry));
}

// Only by the leader, which knows who is there. A voter is not removed when those that are left and connected would be no
// majority: the quorum would be lost with it.
raft::Outcome Node::make_change(raft::ChangeMembership change) {
    if (!leads()) return {.refusal = raft::Refusal::kNotLeader};
    if (change.kind == raft::ChangeMembership::Kind::kRemove && members().voter(change.node)) {
        std::size_t voters = 0;
        std::size_t there = 0;
        for (const raft::Member& member : members().members) {
            if (!member.voter || member.id == change.node) continue;
            ++voters;
            if (member.id == identity_.node || peers_->connected(member.id)) ++there;
        }
        if (there < voters / 2 + 1) return {.refusal = raft::Refusal::kLastVoter};
    }
    raft::Effects effects = core_->step(loop_.now(), std::move(change));
    const raft::Outcome outcome = *effects.outcome;
    carry_out(std::move(effects));
    schedule_turn();
    return outcome;
}

void Node::begin_change(std::uint64_t sequence, RequestTable::Entry& entry) {
    if (leads()) {
        on_change_outcome(sequence, make_change(entry.change));
        return;
    }
    outgoing_.Clear();
    proto::MemberAsk& ask = *outgoing_.mutable_member_ask();
    ask.set_sequence(sequence);
    ask.set_kind(static_cast<std::uint32_t>(entry.change.kind));
    ask.set_node(entry.change.node.value);
    ask.set_address(entry.change.address);
    peers_->send(core_->leader(), outgoing_);
}

void Node::on_change_outcome(std::uint64_t sequence, const raft::Outcome& outcome) {
    RequestTable::Entry* entry = requests_.find(sequence);
    if (entry == nullptr) return;
    if (outcome.refusal == raft::Refusal::kNone) {
        entry->index = outcome.first_index;
        entry->term = outcome.term;
        answer_members();
    } else if (passes(outcome.refusal)) {
        park(sequence, *entry);
    } else {
        requests_.take(sequence)->request->on_members(outcome.refusal);
    }
}

void Node::on_member_ask(raft::NodeId from, const proto::MemberAsk& ask) {
    raft::ChangeMembership change;
    change.kind = static_cast<raft::ChangeMembership::Kind>(ask.kind());
    change.node = {ask.node()};
    change.address = ask.address();
    const bool known = ask.kind() <= static_cast<std::uint32_t>(raft::ChangeMembership::Kind::kUpdate);
    const raft::Outcome outcome =
        known ? make_change(std::move(change)) : raft::Outcome{.refusal = raft::Refusal::kTooManyMembers};
    outgoing_.Clear();
    proto::MemberTell& tell = *outgoing_.mutable_member_tell();
    tell.set_sequence(ask.sequence());
    tell.set_refusal(static_cast<std::uint32_t>(outcome.refusal));
    tell.set_index(outcome.first_index.value);
    tell.set_term(outcome.term.value);
    peers_->send(from, outgoing_);
    schedule_turn();
}

// A node that was removed hears nothing of the cluster any more, not even that: whoever leads it tells it when it asks for votes. The
// term keeps a leader of the past from sending away a node that was added later.
void Node::tell_if_removed(raft::NodeId from) {
    const bool settled = core_->log().configuration_index() <= core_->commit_index();
    if (!leads() || !settled || members().find(from) != nullptr) return;
    outgoing_.Clear();
    proto::MemberTell& tell = *outgoing_.mutable_member_tell();
    tell.set_refusal(static_cast<std::uint32_t>(raft::Refusal::kNotMember));
    tell.set_term(core_->term().value);
    peers_->send(from, outgoing_);
    schedule_turn();
}

void Node::leave() {
    if (left_) return;
    log_warning("this node was removed from the cluster");
    left_ = true;
    // Whoever asked this node for that would wait for an entry that it is not sent any more.
    for (const std::uint64_t sequence : requests_.of_kind(Kind::kMembers)) {
        const RequestTable::Entry* entry = requests_.find(sequence);
        if (entry == nullptr || entry->change.kind != raft::ChangeMembership::Kind::kRemove) continue;
        if (entry->change.node != identity_.node) continue;
        requests_.take(sequence)->request->on_members(raft::Refusal::kNone);
    }
    // A leader that removed itself still has to say so to the others, and answers to give.
    loop_.after(settings_.election_timeout, [this] {
        fail(
            "this node was removed from the cluster: its data directory is of no more use. To take part "
            "again it joins "
            "anew, with an empty one (outrider ctl member add)",
            End::kForGood);
    });
}

void Node::on_member_tell(const proto::MemberTell& tell) {
    const bool removed = tell.sequence() == 0 &&
                         tell.refusal() == static_cast<std::uint32_t>(raft::Refusal::kNotMember) &&
                         tell.term() >= core_->term().value;
    if (removed) {
        if (member_ || members().find(identity_.node) != nullptr) leave();
        member_ = false;
        return;
    }
    const RequestTable::Entry* entry = requests_.find(tell.sequence());
    if (entry == nullptr || entry->kind != Kind::kMembers) return;
    raft::Outcome outcome;
    outcome.refusal = static_cast<raft::Refusal>(tell.refusal());
    outcome.first_index = {tell.index()};
    outcome.term = {tell.term()};
    on_change_outcome(tell.sequence(), outcome);
}

// Those whose change has been applied here. A change that another leader's entry has replaced is refused by the no-op that
// leader began with (refuse_sent_before).
void Node::answer_members() {
    for (const std::uint64_t sequence : requests_.of_kind(Kind::kMembers)) {
        const RequestTable::Entry* entry = requests_.find(sequence);
        if (entry == nullptr || entry->index == raft::LogIndex{}) continue;
        if (entry->index.value > store_->applied_index()) continue;
        requests_.take(sequence)->request->on_members(raft::Refusal::kNone);
    }
}

// Learners that were added as voters to be, and have caught up.
void Node::promote_ready() {
    if (!leads()) return;
    for (const raft::Member& member : members().members) {
        if (member.voter || !parse_member_address(member.address).promote) continue;
        if (!core_->caught_up(member.id)) continue;
        step(raft::ChangeMembership{raft::ChangeMembership::Kind::kPromote, member.id, {}});
        return;  // one at a time
    }
}

void Node::hand_over(std::function<void()> done) {
    const raft::Progress* best = nullptr;
    for (const raft::Progress& peer : core_->peers()) {
        if (!members().voter(peer.id()) || !peers_->connected(peer.id())) continue;
        if (best == nullptr || peer.match() > best->match()) best = &peer;
    }
    if (!leads() || best == nullptr) {
        done();
        return;
    }
    handed_over_ = std::move(done);
    log_info("the leadership is handed to {}", peers_->status(best->id()).name);
    loop_.schedule(hand_over_alarm_, settings_.election_timeout);
    step(raft::TransferLeadership{best->id()});
}

}  // namespace outrider::node
