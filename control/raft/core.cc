// The step itself, terms, commit and apply. Elections, following, leading and requests have files of their own.
#include "control/raft/core.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "control/raft/bugs.h"
#include "control/raft/quorum.h"

namespace outrider::raft {

namespace {

constexpr std::uint64_t kSpreadMax = 16;  // election timeouts
// Of the election timeout, when the leader is known to be gone.
constexpr int kHeardLaterShare = 16;  // by which one voter may have heard it later than another
constexpr int kGoneShare = 4;         // over which campaigns are spread

}  // namespace

Core::Core(Start start, Instant now)
    : id_(start.id),
      options_(start.options),
      random_(start.seed),
      now_(now),
      hard_state_(start.hard_state),
      hard_state_written_(start.hard_state),
      led_(start.hard_state.term),
      log_(std::move(start.snapshot), std::move(start.entries), start.memory, start.options.warm),
      configuration_(log_.configuration()),
      commit_(log_.snapshot().index),
      applied_(commit_),
      leader_heard_(now) {
    require(id_ != kNoNode, "a node has an id");
    require(validate(options_).ok(), "options have been validated");
    require(hard_state_.term >= log_.last_term(), "no entry is of a term that the node has not seen");
    if (bug(Bug::kVoteAfterRestart)) leader_heard_ = now - 2 * options_.election_timeout;
    role_ = may_campaign() ? Role::kFollower : Role::kLearner;
    reset_election_deadline();
}

Effects Core::step(Instant now, Event event) {
    require(now >= now_, "time does not go back");
    now_ = now;
    effects_ = Effects{};
    const RoleChange before{role_, hard_state_.term, leader_};
    const Configuration* configuration_before = configuration_.get();
    std::visit([this](auto& what) { on(what); }, event);
    finish(before, configuration_before);
    return std::move(effects_);
}

void Core::finish(const RoleChange& before, const Configuration* configuration_before) {
    if (hard_state_ != hard_state_written_) {
        effects_.hard_state = hard_state_;
        hard_state_written_ = hard_state_;
    }
    const bool writes = effects_.hard_state || effects_.chunk || effects_.install ||
                        effects_.truncate_after || !effects_.append.empty();
    if (writes) {
        effects_.write = write();
        log_.written(*effects_.write);
        if (effects_.hard_state) {
            hard_state_write_ = effects_.write;
            hard_state_begun_ = now_;
        }
    }
    for (const LogIndex end = std::min(commit_, log_.durable_index()); applied_ < end;) {
        applied_ = applied_ + 1;
        effects_.apply.push_back(log_.at(applied_));
    }
    log_.settle(applied_);
    if (role_ != before.role || hard_state_.term != before.term || leader_ != before.leader) {
        effects_.role = RoleChange{role_, hard_state_.term, leader_};
    }
    if (configuration_.get() != configuration_before) effects_.configuration = configuration_;
}

WriteId Core::write() {
    return WriteId{++writes_};
}

std::optional<Instant> Core::next_deadline() const {
    if (role_ == Role::kLearner) return std::nullopt;
    if (role_ != Role::kLeader) return mute() ? std::nullopt : std::optional(election_deadline_);
    Instant next = heartbeat_due_;
    if (const auto contact = quorum_contact()) next = std::min(next, *contact + options_.election_timeout);
    if (transfer_) next = std::min(next, transfer_->until);
    return next;
}

void Core::on(const Tick& tick) {
    if (role_ == Role::kLeader) {
        lead(tick);
    } else if (role_ != Role::kLearner && !mute() && now_ >= election_deadline_) {
        campaign(false);
    }
}

void Core::on(Message& message) {
    if (message.to != id_ || message.from == id_ || message.from == kNoNode) return;
    if (!admit(message)) return;
    std::visit([&](auto& body) { on_body(message, body); }, message.body);
}

// Judges the term (thesis 3.3). False: the message goes no further.
bool Core::admit(const Message& message) {
    const auto* vote = std::get_if<VoteRequest>(&message.body);
    if (vote != nullptr) {
        // Not even the term is taken over, else a cut-off node would depose the leader (4.2.3).
        if (!vote->transfer && hears_leader()) return false;
        if (vote->pre) return true;  // compares terms itself, and changes none
    }
    const bool of_leader = std::holds_alternative<AppendRequest>(message.body) ||
                           std::holds_alternative<Heartbeat>(message.body) ||
                           std::holds_alternative<SnapshotChunk>(message.body);
    if (message.term > hard_state_.term) {
        become_follower(message.term, of_leader ? message.from : kNoNode);
        return true;
    }
    if (message.term == hard_state_.term) return true;
    // An answer is owed: this node may have a higher term and no way to an election, and the leader must learn of it.
    if (of_leader) send(message.from, StaleTerm{});
    if (vote != nullptr)
        send(message.from, VoteResponse{.pre = false, .granted = false, .asked = message.term});
    // A read index stays true in later terms, and a node that lags behind in terms may say yes to a pre-vote.
    const auto* answer = std::get_if<VoteResponse>(&message.body);
    const bool counts = answer != nullptr && (answer->pre || bug(Bug::kVoteOfAnyTerm));
    return std::holds_alternative<ReadResponse>(message.body) || counts;
}

void Core::become_follower(Term term, NodeId leader) {
    require(term >= hard_state_.term, "terms never fall");
    const bool led = role_ == Role::kLeader;
    if (term > hard_state_.term) hard_state_ = {term, kNoNode};
    role_ = may_campaign() ? Role::kFollower : Role::kLearner;
    leader_ = leader;
    pre_granted_.clear();
    granted_.clear();
    agreed_ = {};
    answer_owed_ = false;
    receiving_.reset();
    peers_.clear();
    transfer_.reset();
    if (led) refuse_all_reads();
    reset_election_deadline();
}

// A voter; also one whose removal is not known to be committed: without its log there may be no majority (thesis 4.2.2,
// figure 4.6). It does not count itself.
bool Core::may_campaign() const {
    return voter() || (log_.configuration_index() > commit_ && log_.previous_configuration()->voter(id_));
}

void Core::follow_role() {
    if (role_ == Role::kLearner && may_campaign()) {
        role_ = Role::kFollower;
        reset_election_deadline();
    } else if (role_ == Role::kFollower && !may_campaign()) {
        role_ = Role::kLearner;
    }
}

// The more terms went by without a leader, the more time for one of the candidates: some voters' disks may be slow.
void Core::reset_election_deadline() {
    const std::uint64_t in_vain = hard_state_.term.value - led_.value;
    const auto spread = static_cast<std::int64_t>(std::clamp<std::uint64_t>(in_vain, 1, kSpreadMax));
    election_deadline_ = now_ + options_.election_timeout + up_to(spread * options_.election_timeout);
}

Duration Core::up_to(Duration bound) {
    return Duration(static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(bound.count()))));
}

void Core::send(NodeId to, Body body) {
    effects_.send.push_back({id_, to, hard_state_.term, std::move(body)});
}

void Core::append(Entry entry) {
    effects_.append.push_back(entry);
    const bool changes = entry.type == EntryType::kConfiguration;
    log_.append(std::move(entry));
    if (changes) follow_configuration(log_.last_index());  // a new peer is sent this very entry
}

void Core::advance_commit(LogIndex commit) {
    if (commit <= commit_) return;
    require(commit <= log_.last_index(), "only what is in the log is committed");
    if (role_ == Role::kLeader) {
        for (LogIndex index = commit_ + 1; index <= commit; index = index + 1) {
            uncommitted_bytes_ -= log_.bytes(index);
        }
    }
    commit_ = commit;
    follow_role();
}

std::size_t Core::majority() const {
    const Configuration& now = configuration();
    if (bug(Bug::kChangeCountsOldMajority) && log_.configuration_index() > commit_) {
        return majority_of(log_.previous_configuration()->voters());
    }
    if (bug(Bug::kLearnerCounted)) return majority_of(now.members.size());
    return majority_of(now.voters());
}

void Core::on(const Persisted& persisted) {
    log_.persisted(persisted.write);
    if (hard_state_write_ && *hard_state_write_ <= persisted.write) {
        hard_state_write_.reset();
        // A candidate's questions leave only now, and a voter's answer: the election begins with that.
        if (leader_ == kNoNode) reset_election_deadline();
        if (role_ == Role::kCandidate) {
            // Others' votes may take as long as its own did. Bounded: what hung once, or was stopped, need not do so there.
            const auto most = static_cast<std::int64_t>(kSpreadMax) * options_.election_timeout;
            election_deadline_ += std::min<Duration>(now_ - hard_state_begun_, most);
            granted_.push_back(id_);
            count_votes();
        }
    }
    if (role_ == Role::kLeader) {
        count_commits();
    } else if (answer_owed_) {
        answer_append(true);
    }
}

void Core::on(const Compact& compact) {
    require(compact.snapshot <= applied_, "a snapshot covers applied entries only");
    if (compact.snapshot < log_.snapshot().index) return;  // one that came from the leader has overtaken it
    log_.compact(compact.snapshot, compact.first_kept);
}

// Not at once: who has heard the leader a little later refuses until its own election timeout is over. The rest is chance, so
// that two do not campaign together.
void Core::on(const LeaderGone& gone) {
    if (role_ != Role::kFollower || gone.leader == kNoNode || gone.leader != leader_) return;
    leader_gone_ = true;
    if (bug(Bug::kGoneMeansFree)) leader_heard_ = now_ - options_.election_timeout;
    const Duration t = options_.election_timeout;
    const Instant soon = std::max(leader_heard_ + t, now_) + t / kHeardLaterShare + up_to(t / kGoneShare);
    election_deadline_ = std::min(election_deadline_, soon);
}

LogIndex Core::low_water_mark() const {
    LogIndex low = log_.last_index();
    for (const Progress& peer : peers_) {
        if (peer.state() == Progress::State::kReplicate) low = std::min(low, peer.match());
    }
    return low;
}

const char* to_string(Role role) {
    switch (role) {
        case Role::kFollower:
            return "follower";
        case Role::kPreCandidate:
            return "pre-candidate";
        case Role::kCandidate:
            return "candidate";
        case Role::kLeader:
            return "leader";
        case Role::kLearner:
            return "learner";
    }
    return "unknown";
}

const char* to_string(Refusal refusal) {
    switch (refusal) {
        case Refusal::kNone:
            return "accepted";
        case Refusal::kNotLeader:
            return "this node is not the leader";
        case Refusal::kTransferring:
            return "leadership is being transferred";
        case Refusal::kTooLarge:
            return "the command is larger than command_bytes_max";
        case Refusal::kTooMuch:
            return "too many bytes are waiting to be committed";
        case Refusal::kChangeInProgress:
            return "the last change of members is not committed yet";
        case Refusal::kNotReady:
            return "this leader has not committed an entry of its own term yet";
        case Refusal::kNotCaughtUp:
            return "the learner has not caught up yet";
        case Refusal::kAlreadyMember:
            return "the node is a member already";
        case Refusal::kNotMember:
            return "there is no such member";
        case Refusal::kLastVoter:
            return "the last voter cannot be removed";
        case Refusal::kTooManyMembers:
            return "there are too many members";
    }
    return "unknown";
}

}  // namespace outrider::raft
