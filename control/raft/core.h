// The consensus of one node: Raft as published in Ongaro's thesis ("Consensus: Bridging Theory and Practice", 2014; the
// sections named here are its own), with etcd's flow control. Pure: time and events come in, Effects come out; it reads
// no clock, owns no socket, file or thread, and throws nothing.
//
// What it promises, with any minority of voters down and whatever the network does
//   * Election safety: at most one leader in a term.            Log matching: two entries of one index and term are
//   * Leader completeness: a committed entry is in the log of   equal, and so is everything before them.
//     every later leader.                                       State machine safety: all nodes apply the same entries.
//   * A read that is answered saw every write that was answered before it began.
//   * With a majority up and talking within an election timeout, there is a leader after a few election timeouts; where a
//     sync takes longer than that, after a few syncs (election.cc).
//
// Beyond the basic algorithm
//   * Pre-vote (9.6): a node asks before it raises its term, so one that was cut off disturbs nobody.
//   * Stickiness (4.2.3): no vote within an election timeout after hearing a leader. A node that has just started
//     acts as if it had just heard one: what it heard before is forgotten, and a lease may rest on it.
//   * A follower whose connection to the leader is lost (LeaderGone) campaigns soon after one election timeout.
//   * Check-quorum (6.2): a leader that has heard no majority within an election timeout steps down.
//   * Transfer (3.10) also serves a leader that removes itself: it hands over before it leaves.
//   * Membership (chapter 4): one voter at a time, in force when appended, learners first; no change before an entry of
//     the leader's own term is committed (Ongaro, raft-dev, "bug in single-server membership changes", 2015).
//   * Reads: ReadIndex (6.4), any number in one round of heartbeats; or a lease (6.4.1). A lease counts from the moment a
//     round was sent and lasts election_timeout * (1 - u) / (1 + u): the leader's clock may be slow and the followers'
//     fast, by u each. After a TimeoutNow there is no lease in that term any more: the target may campaign at any time.
//   * Asynchronous writes (10.2.1): effects.h says what the shell owes.
//
// Bounds: Options names them; what is refused says so in Outcome or reads_refused. The window in memory grows until the
// shell compacts; followers take what a leader sends, so its size is the shell's to watch (log_bytes is not kept here).
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "base/random.h"
#include "base/time.h"
#include "control/raft/effects.h"
#include "control/raft/log.h"
#include "control/raft/options.h"
#include "control/raft/progress.h"
#include "control/raft/types.h"

namespace outrider::raft {

// What is durable, and who this node is.
struct Start {
    NodeId id;
    std::uint64_t seed = 0;  // of the election timeouts; another on each node and at each start
    Options options;         // validate() has passed
    HardState hard_state;
    SnapshotMeta snapshot;  // applied
    std::vector<Entry> entries;
    std::shared_ptr<ColdMemory> memory = heap_memory();  // of old entries
};

class Core {
  public:
    Core(Start start, Instant now);
    Core(const Core&) = delete;
    Core& operator=(const Core&) = delete;

    // `now` never goes back.
    Effects step(Instant now, Event event);

    // When to say Tick; nothing while only messages or Persisted can change this node.
    std::optional<Instant> next_deadline() const;

    NodeId id() const { return id_; }
    Role role() const { return role_; }
    Term term() const { return hard_state_.term; }
    NodeId vote() const { return hard_state_.vote; }
    NodeId leader() const { return leader_; }
    LogIndex commit_index() const { return commit_; }
    LogIndex applied_index() const { return applied_; }
    const Log& log() const { return log_; }
    const Options& options() const { return options_; }
    NodeId transferring_to() const { return transfer_ ? transfer_->to : kNoNode; }
    const std::vector<Progress>& peers() const { return peers_; }  // empty unless leader
    // What every peer that is being replicated to already has: entries up to it serve nobody. Meant for
    // Compact.first_kept, within a limit of the shell's. last_index() unless leader.
    LogIndex low_water_mark() const;
    // Whether a read at that time needs no round: this leader holds a lease (thesis 6.4.1). For checks and for status.
    bool lease_holds(Instant now) const;
    // Whether that learner, at this leader, lacks so little that it may vote (Options::promotion_lag_max).
    bool caught_up(NodeId learner) const;

  private:
    struct PendingRead {
        std::uint64_t context = 0;
        NodeId from{};  // id_ when it is this node's own
        LogIndex index{};
        std::uint64_t round = 0;  // that confirms it
    };
    struct LeaderTransfer {
        NodeId to{};
        Instant until{};
        bool told = false;
    };
    struct Receiving {  // a snapshot
        SnapshotMeta meta{};
        std::uint64_t offset = 0;
    };

    // core.cc
    void on(const Tick&);
    void on(Message& message);
    void on(const Persisted& persisted);
    void on(const Compact& compact);
    void on(const LeaderGone& gone);
    bool admit(const Message& message);
    void finish(const RoleChange& before, const Configuration* configuration_before);
    WriteId write();
    void send(NodeId to, Body body);
    void become_follower(Term term, NodeId leader);
    void reset_election_deadline();
    Duration up_to(Duration bound);
    bool voter() const { return configuration().voter(id_); }
    bool may_campaign() const;
    // Its vote or its term is on the way to its disk, and what it says waits for that (effects.h): a campaign would begin for
    // nobody but itself.
    bool mute() const { return hard_state_write_.has_value(); }
    void follow_role();
    const Configuration& configuration() const { return *configuration_; }
    void append(Entry entry);
    void advance_commit(LogIndex commit);
    std::size_t majority() const;

    // election.cc
    bool hears_leader() const;
    void campaign(bool transfer);
    void ask_for_votes(bool pre, bool transfer);
    void count_votes();
    bool stands() const;
    void become_leader();
    void on_body(const Message& message, const VoteRequest& request);
    void on_body(const Message& message, const VoteResponse& response);
    void on_body(const Message& message, const TimeoutNow&);

    // follower.cc
    void hear(NodeId leader);
    void on_body(const Message& message, AppendRequest& request);
    bool well_formed(const Message& message, const AppendRequest& request) const;
    void take_entries(AppendRequest& request, std::size_t skip);
    void answer_append(bool partly_too);
    void on_body(const Message& message, const Heartbeat& heartbeat);
    void on_body(const Message& message, const SnapshotChunk& chunk);
    void install(const SnapshotMeta& meta);
    void on_body(const Message& message, const ReadResponse& response);
    void on_body(const Message&, const StaleTerm&) {}

    // leader.cc
    void lead(const Tick&);
    void follow_configuration(LogIndex next_of_new_peers);
    Progress* peer(NodeId id);
    const Progress* peer(NodeId id) const;
    Entry next_entry(EntryType type) const;
    void append_own(Entry entry);
    void broadcast_append();
    void send_appends(Progress& peer, bool empty_too);
    bool send_append(Progress& peer, bool empty_too);
    void send_chunk(Progress& peer);
    void resend_chunk(Progress& peer);
    void broadcast_heartbeat();
    void count_commits();
    std::optional<Instant> quorum_contact() const;
    void on_body(const Message& message, const AppendResponse& response);
    void on_body(const Message& message, const HeartbeatResponse& response);
    void on_body(const Message& message, const SnapshotResponse& response);

    // requests.cc
    void on(Propose& propose);
    void on(ChangeMembership& change);
    void on(const TransferLeadership& transfer);
    void on(const BeginRead& read);
    Refusal refusal(const Command& command) const;
    Refusal refusal(const ChangeMembership& change) const;
    Refusal refusal(const TransferLeadership& transfer) const;
    void try_transfer();
    void leave();
    void on_body(const Message& message, const ReadRequest& request);
    void take_read(std::uint64_t context, NodeId from);
    void answer_read(const PendingRead& read);
    void refuse_read(std::uint64_t context, NodeId from);
    void refuse_all_reads();
    void confirm_reads();
    void release_reads();
    bool committed_in_term() const;

    const NodeId id_;
    const Options options_;
    Random random_;
    Instant now_;
    Effects effects_;

    HardState hard_state_;
    HardState hard_state_written_;
    Term led_;  // the last in which this node knew a leader
    Log log_;
    ConfigurationRef configuration_;  // log_'s
    LogIndex commit_;
    LogIndex applied_;
    std::uint64_t writes_ = 0;

    Role role_ = Role::kFollower;
    NodeId leader_;
    Instant leader_heard_;       // stickiness counts from it
    Instant election_deadline_;  // while not leading
    bool leader_gone_ = false;   // until another is heard

    std::vector<NodeId> pre_granted_;          // while a pre-candidate
    std::vector<NodeId> granted_;              // in this term; stands() says until when
    std::optional<WriteId> hard_state_write_;  // under way; a candidate's own vote counts when it is durable
    Instant hard_state_begun_;

    LogIndex agreed_;  // follower: the log agrees with the leader of this term up to here
    bool answer_owed_ = false;
    std::optional<Receiving> receiving_;

    std::vector<Progress> peers_;  // leader: one for each other member, by id
    LogIndex term_start_;          // leader: its no-op
    Instant heartbeat_due_;
    std::uint64_t round_ = 0;
    std::uint64_t uncommitted_bytes_ = 0;
    std::optional<LeaderTransfer> transfer_;
    bool lease_given_up_ = false;               // a TimeoutNow is out in this term
    std::vector<PendingRead> reads_waiting_;    // for a round to begin
    std::deque<PendingRead> reads_confirming_;  // by round
};

}  // namespace outrider::raft
