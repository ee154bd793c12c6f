// One node of the quorum: the shell around the consensus core (control/raft) and the key space (control/store). It persists, sends,
// applies and answers, on one loop; the log and the snapshots have threads of their own (storage.h).
//
//   a client's command -> queue of this turn -> one Propose for all of them (or a frame to the leader)
//     -> Effects: write to the log's thread, appends to the peers -> Persisted, answers of peers -> apply -> the client's answer
//
// The contract of control/raft/effects.h is kept in carry_out(), and nowhere else: a message leaves when every hard state of its
// step and of earlier ones is durable; entries are promised by the core itself, after Persisted.
//
// A follower hands commands to the leader and answers its client when it has applied them itself: each carries the number under
// which it waits there (RequestTable) and who waits (client_id_, another at each start). So an answer never depends on the
// leader's being alive after the commit, and what is answered here can be read here.
//
// Every request ends: with its answer, with a refusal, or after kRequestTime. What was sent to a leader whose successor has
// begun is refused at once ("leader changed": the outcome is not known). Requests without a leader wait for one.
//
// Leases: only a leader that has applied an entry of its own term has a clock (LeaseClock). A renewal is answered after a round
// of heartbeats that confirms the leadership, like a read, also after the process was paused.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/metrics.h"
#include "base/uv/loop.h"
#include "config/control_settings.h"
#include "control/node/alarm.h"
#include "control/node/founding.h"
#include "control/node/peers.h"
#include "control/node/read_rounds.h"
#include "control/node/request.h"
#include "control/node/request_table.h"
#include "control/node/storage.h"
#include "control/raft/core.h"
#include "control/store/lease_clock.h"
#include "control/store/session_clock.h"
#include "control/store/store.h"
#include "control/store/watch_hub.h"

namespace outrider::node {

inline constexpr Duration kRequestTime = std::chrono::seconds(5);
inline constexpr Duration kProgressInterval = std::chrono::minutes(10);
// Of snapshot_entries one in so many stays in the log behind a snapshot, for followers that lag a little; and their bytes.
inline constexpr std::uint64_t kTailShare = 20;
inline constexpr std::uint64_t kTailBytes = std::uint64_t{32} << 20;
// A snapshot is made after so many bytes of log, too, or as many as the store has.
inline constexpr std::uint64_t kSnapshotBytes = std::uint64_t{64} << 20;

// What the API does with what the watches bring.
class WatchSink {
  public:
    // False: the client of this watch cannot take more now; WatchHub::wake() comes later.
    virtual bool on_watch(store::WatchId id) = 0;

  protected:
    ~WatchSink() = default;
};

// Metrics of the loop's thread.
struct NodeMetrics {
    Histogram* apply_seconds = nullptr;
    Counter* proposals = nullptr;
    Counter* applied = nullptr;
    Counter* leader_changes = nullptr;
};

class Node final : private PeersHandler, private StorageHandler, private uv::TurnEnd {
  public:
    // kForGood: started again with the same data directory it would only end again.
    enum class End { kFailed, kForGood };
    // The node cannot go on; called once.
    using Fatal = std::function<void(End end, const std::string& reason)>;

    Node(uv::Loop& loop, const config::ControlSettings& settings, std::unique_ptr<Storage> storage,
         const NodeMetrics& metrics, Fatal fatal);
    ~Node() override;

    // Listens to peers and begins to take part.
    Result<void> start(const std::string& api_address);
    // No more requests are answered; `done` comes when the loop has let go of every connection to a peer.
    void close(std::function<void()> done);

    // ---- for the API ----
    void propose(Request& request, store::Command command);
    void read(Request& request);
    void ask_lease(Request& request, store::LeaseId lease, bool renew);
    void change_members(Request& request, raft::ChangeMembership change);
    // Its client has gone.
    void forget(Request& request) { requests_.forget(request); }
    // When leadership has moved to another, or could not, within an election timeout.
    void hand_over(std::function<void()> done);

    // The state as it is, once it is collected, in a file without a name (Storage::save_backup). False: another snapshot is
    // being made.
    bool backup(Storage::OnBackup done);
    // Of the state as it is when its turn comes; nothing: the node ends.
    struct Hashed {
        store::Revision revision;
        std::uint32_t digest = 0;
    };
    using OnHash = std::function<void(const std::optional<Hashed>&)>;
    void hash(OnHash done);

    const store::Store& store() const { return *store_; }
    store::Store& store() { return *store_; }
    store::WatchHub& watches() { return hub_; }
    void set_watch_sink(WatchSink* sink) { sink_ = sink; }
    // Watches may have something to deliver.
    void schedule_turn();

    const Identity& identity() const { return identity_; }
    const raft::Core& core() const { return *core_; }
    const raft::Configuration& members() const { return *core_->log().configuration(); }
    // It was removed: members() may still name it, as it hears of no later configuration.
    bool left() const { return left_; }
    const store::Limits& limits() const { return limits_; }
    Peers& peers() { return *peers_; }
    const Storage& storage() const { return *storage_; }
    std::size_t waiting() const { return requests_.size(); }
    bool has_leader() const { return core_->leader() != raft::kNoNode; }
    bool leads() const { return core_->role() == raft::Role::kLeader; }
    std::size_t lease_count() const { return store_->leases().all().size(); }

  private:
    using Kind = RequestTable::Kind;
    using ReadItem = ReadRounds::Item;
    struct Held {
        raft::Message message;
        raft::WriteId after;
    };
    struct Proposal {
        raft::Command command;
        raft::NodeId from;  // kNoNode: of this node
    };

    // node.cc: the shell
    void step(raft::Event event);
    void carry_out(raft::Effects effects);
    void post(raft::Message message);
    void on_role(const raft::RoleChange& change);
    void arm();
    void on_turn_end() override;
    void fail(const std::string& reason, End end = End::kFailed);
    void on_frame(raft::NodeId from, proto::Frame& frame) override;
    void on_peer_connected(raft::NodeId peer) override;
    void on_peer_lost(raft::NodeId peer, bool replaced) override;
    void on_peer_taken(raft::NodeId peer) override;
    void on_peer_not_reached(raft::NodeId peer) override;
    void on_log_lost(const std::string& reason) override { fail(reason, End::kForGood); }
    void on_other_cluster(raft::NodeId peer, const std::string& reason) override;
    void keep_known_logs(const KnownLogs& logs, std::function<void()> done) override;
    void consider_founded();
    void on_join_ask(const proto::JoinAsk& ask, proto::JoinTell& tell) override;
    void on_durable(raft::WriteId last) override;
    void on_storage_failed(const std::string& reason) override { fail(reason); }

    // node_apply.cc: committed entries, snapshots, watches
    void apply(std::vector<raft::Entry>& entries);
    void apply_command(raft::Entry& entry);
    void apply_configuration(const raft::Entry& entry);
    void follow_leases(const store::Command& command, const store::Response& response);
    void refuse_sent_before(raft::Term term);
    void consider_snapshot();
    raft::LogIndex first_kept(raft::LogIndex snapshot) const;
    raft::SnapshotMeta applied_meta() const;
    void on_installed(const raft::SnapshotMeta& meta, std::unique_ptr<store::Store> store) override;
    void on_saved(const std::optional<raft::SnapshotMeta>& meta) override;
    void pump_watches();
    void expire_leases();
    void age_sessions();
    template <typename Request>
    void propose_own(const Request& request);

    // node_walks.cc: what goes over all of the state
    bool walk_on();
    void restart_walks();
    void end_walks();

    // node_requests.cc: what waits
    std::uint64_t add(RequestTable::Entry entry);
    void dispatch_all();
    void dispatch(std::uint64_t sequence, RequestTable::Entry& entry);
    // Worth another try: nothing was appended, and what is in the way passes.
    static bool passes(raft::Refusal refusal);
    void park(std::uint64_t sequence, RequestTable::Entry& entry);
    void unpark();
    const raft::Member* without_sessions() const;
    std::string why_no_sessions(const raft::Member& member) const;
    bool wait_for_sessions(std::uint64_t sequence);
    void begin_proposals();
    void refuse_proposal(const Proposal& proposal, raft::Refusal refusal);
    void begin_reads();
    void ask_reads_anew(Duration age);
    void on_readable(std::uint64_t context, raft::LogIndex index);
    void on_read_refused(std::uint64_t context);
    void answer_reads();
    void answer(const ReadItem& item);
    void tell_lease(const ReadItem& item, std::optional<std::int64_t> seconds);
    void on_forward(raft::NodeId from, proto::Forward& forward);
    void on_forward_refused(const proto::ForwardRefused& refused);
    void on_lease_ask(raft::NodeId from, const proto::LeaseAsk& ask);
    void on_lease_tell(const proto::LeaseTell& tell);
    void refuse(std::uint64_t sequence, const api::Problem& problem);
    void on_housekeeping();

    // node_members.cc: changes of members
    raft::Outcome make_change(raft::ChangeMembership change);
    void begin_change(std::uint64_t sequence, RequestTable::Entry& entry);
    void on_change_outcome(std::uint64_t sequence, const raft::Outcome& outcome);
    void on_member_ask(raft::NodeId from, const proto::MemberAsk& ask);
    void on_member_tell(const proto::MemberTell& tell);
    void answer_members();
    void tell_if_removed(raft::NodeId from);
    void leave();
    void promote_ready();

    uv::Loop& loop_;
    const config::ControlSettings settings_;
    const NodeMetrics metrics_;
    const Fatal fatal_;
    const store::Limits limits_;
    Identity identity_;
    const std::uint64_t client_id_;  // who waits for what this node proposes
    std::unique_ptr<store::Store> store_;
    std::unique_ptr<store::HashWalk> hash_walk_;
    std::vector<OnHash> hashing_;
    std::vector<OnHash> hash_waiting_;
    Storage::OnBackup backup_waiting_;
    store::WatchHub hub_;
    store::LeaseClock lease_clock_;
    store::SessionClock session_clock_;
    WatchSink* sink_ = nullptr;
    std::unique_ptr<raft::Core> core_;
    std::unique_ptr<Peers> peers_;
    std::optional<Founding> founding_;  // until it may take part in consensus
    proto::Frame outgoing_;

    raft::WriteId hard_state_write_;  // the last that has one
    raft::WriteId durable_;
    std::deque<Held> held_;
    std::uint64_t bytes_since_snapshot_ = 0;
    Instant no_snapshot_before_{};  // the last one could not be made
    bool leader_known_ = false;     // there has been one since the start
    bool lease_leading_ = false;
    bool member_ = false;  // by the last configuration that was applied
    bool left_ = false;    // it was removed, and ends
    bool failed_ = false;
    bool closed_ = false;
    bool in_turn_end_ = false;
    bool again_ = false;

    RequestTable requests_;
    std::vector<std::uint64_t> queue_;   // to be dispatched at the end of this turn
    std::vector<std::uint64_t> parked_;  // no leader to turn to
    std::vector<Proposal> proposals_;
    ReadRounds reads_;
    std::uint64_t next_context_;
    std::map<raft::LogIndex, std::vector<ReadItem>> readable_;  // when so much is applied
    std::map<std::uint64_t, std::int64_t> lease_answers_;       // by sequence, that wait to be readable
    std::function<void()> handed_over_;

    Alarm raft_alarm_;
    Alarm lease_alarm_;
    Alarm housekeeping_;
    Alarm progress_alarm_;
    Alarm hand_over_alarm_;
    std::unique_ptr<Storage> storage_;  // last: its threads end before what they report to
};

}  // namespace outrider::node
