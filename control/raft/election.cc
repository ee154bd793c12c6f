// Elections: thesis 3.4, pre-vote 9.6, stickiness 4.2.3, TimeoutNow 3.10.
//
// Where a sync takes longer than an election timeout every vote comes late. Somebody is elected all the same, since
//   * nobody campaigns while its vote or term is being written (mute): its questions would wait for the disk as well;
//   * a candidate waits for the others as long again as its own vote took;
//   * votes of its term count also while it asks for pre-votes of the next one (stands);
//   * with each term that had no leader campaigns are spread more widely, so that the candidates whose disks are fast do not
//     draw each other from term to term before the slow voters have answered.
#include <algorithm>

#include "control/raft/bugs.h"
#include "control/raft/core.h"
#include "control/raft/quorum.h"

namespace outrider::raft {

bool Core::hears_leader() const {
    return role_ == Role::kLeader || now_ < leader_heard_ + options_.election_timeout;
}

void Core::campaign(bool transfer) {
    if (!may_campaign()) return;
    std::vector<NodeId> granted = std::move(granted_);
    become_follower(hard_state_.term, kNoNode);  // ends whatever it was
    if (transfer) {
        ask_for_votes(false, true);
        return;
    }
    pre_granted_.assign(1, id_);
    granted_ = std::move(granted);
    if (bug(Bug::kPreVoteRaisesTerm)) hard_state_ = {{hard_state_.term.value + 1}, kNoNode};
    ask_for_votes(true, false);
}

void Core::ask_for_votes(bool pre, bool transfer) {
    role_ = pre ? Role::kPreCandidate : Role::kCandidate;
    if (!pre) {
        // A term may be led only when it can no longer be forgotten; alone, nobody else remembers it.
        pre_granted_.clear();
        granted_.clear();
        hard_state_ = {{hard_state_.term.value + 1}, id_};
    }
    reset_election_deadline();
    // Refused by a voter that heard the leader later, perhaps: a pre-vote may be asked for again at any time.
    const Duration again = options_.election_timeout / 4;
    if (pre && leader_gone_) election_deadline_ = now_ + again + up_to(again);
    for (const Member& member : configuration().members) {
        const bool votes = member.voter || bug(Bug::kLearnerCounted);
        if (!votes || member.id == id_) continue;
        send(member.id, VoteRequest{pre, transfer, log_.last_index(), log_.last_term()});
    }
    count_votes();
}

void Core::count_votes() {
    const auto elects = [this](const std::vector<NodeId>& granted) {
        const auto votes = std::count_if(granted.begin(), granted.end(), [this](NodeId id) {
            return configuration().voter(id) || bug(Bug::kLearnerCounted);
        });
        return static_cast<std::size_t>(votes) >= majority();
    };
    if (stands() && elects(granted_)) {
        become_leader();
    } else if (role_ == Role::kPreCandidate && elects(pre_granted_)) {
        ask_for_votes(false, false);
    }
}

// Whether votes of this term make it the leader. As a pre-candidate too: its voters have voted in this term for nobody else, and
// neither its term nor its log has changed since it asked them, for that takes a higher term or a leader of this one, and
// both end its campaign (become_follower).
bool Core::stands() const {
    return role_ == Role::kCandidate || (role_ == Role::kPreCandidate && !granted_.empty());
}

void Core::on_body(const Message& message, const VoteRequest& request) {
    // The voter's log must not be more complete than the candidate's (3.6.1).
    const bool up_to_date = request.last_term != log_.last_term() ? request.last_term > log_.last_term()
                                                                  : request.last_index >= log_.last_index();
    if (request.pre) {
        const Term asked{message.term.value + 1};
        send(message.from, VoteResponse{true, up_to_date && asked > hard_state_.term, asked});
        return;
    }
    // A learner votes as well: it may be a voter and not know it yet.
    const bool idle = role_ == Role::kFollower || role_ == Role::kLearner;
    const bool free = hard_state_.vote == kNoNode || hard_state_.vote == message.from || bug(Bug::kTwoVotes);
    const bool granted = up_to_date && idle && free;
    if (granted) {
        hard_state_.vote = message.from;
        if (bug(Bug::kVoteNotPersisted)) hard_state_written_.vote = message.from;
        reset_election_deadline();
    }
    send(message.from, VoteResponse{false, granted, message.term});
}

void Core::on_body(const Message& message, const VoteResponse& response) {
    const bool of_term = response.asked == term() || bug(Bug::kVoteOfAnyTerm);
    const bool awaited = response.pre
                             ? role_ == Role::kPreCandidate && response.asked.value == term().value + 1
                             : stands() && of_term;
    if (!awaited || !response.granted) return;
    std::vector<NodeId>& granted = response.pre ? pre_granted_ : granted_;
    if (std::find(granted.begin(), granted.end(), message.from) != granted.end()) return;
    granted.push_back(message.from);
    count_votes();
}

void Core::on_body(const Message& message, const TimeoutNow&) {
    if (message.from != leader_) return;  // of this term: admit() has seen to it
    campaign(true);
}

void Core::become_leader() {
    role_ = Role::kLeader;
    leader_ = id_;
    led_ = term();
    leader_gone_ = false;
    pre_granted_.clear();
    granted_.clear();
    lease_given_up_ = false;
    round_ = 0;
    uncommitted_bytes_ = 0;
    for (LogIndex index = commit_ + 1; index <= log_.last_index(); index = index + 1) {
        uncommitted_bytes_ += log_.bytes(index);
    }
    follow_configuration(log_.last_index() + 1);
    term_start_ = log_.last_index() + 1;
    append_own(next_entry(EntryType::kNoop));
    heartbeat_due_ = now_ + options_.heartbeat;
    broadcast_append();
    count_commits();
}

}  // namespace outrider::raft
