// The production key space on a simulated cluster: what a node does around its store (applying, forwarding to the leader,
// linearizable reads, watch streams, the leader's lease clock), and the clients' requests.
//
// This is the smallest shell that keeps the promises of control/store, as tests/raft/shell.h is for control/raft; the quorum's
// real shell must do the same:
//   * a write that comes to a follower is forwarded to the leader, and answered by the node that was asked when it applies it;
//   * a linearizable read waits for its index (BeginRead);
//   * the lease clock runs from the moment in which a leader has applied an entry of its own term until it steps down, and a
//     keepalive is answered when a majority has confirmed, after it came, that the leader still leads (BeginRead);
//   * a lease whose time is over is revoked by a command (Store::expiry);
//   * watchers hear of a snapshot that replaces the store.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "control/raft/core.h"
#include "control/store/lease_clock.h"
#include "tests/sim/application.h"
#include "tests/sim/caller.h"
#include "tests/sim/chronicle.h"
#include "tests/sim/cluster.h"
#include "tests/sim/store_machine.h"

namespace outrider::sim {

class WatchClient;
class LeaseClient;

class KeySpace : public Application {
  public:
    explicit KeySpace(const Profile& profile);
    ~KeySpace() override;

    void begin(Cluster& cluster) override;
    std::unique_ptr<raft::StateMachine> machine(std::uint32_t node) override;
    void crashed(std::uint32_t node) override;
    void timer(const Timer& timer) override;
    void applied(std::uint32_t node, const raft::Entry& entry, const std::string& result) override;
    void read(std::uint32_t node, std::uint64_t context) override;
    void read_refused(std::uint32_t node, std::uint64_t context) override;
    void settled(std::uint32_t node) override;
    raft::Command idle_command() const override;
    void healed() override;
    bool idle() const override;
    std::string waiting_for() const override;
    const std::optional<std::string>& violation() const override { return chronicle_.violation(); }
    std::uint64_t operations() const override { return operations_; }

    // ---- for the callers ----

    Cluster& cluster() { return *cluster_; }
    Random& random() { return cluster_->random(); }
    Instant now() const { return cluster_->now(); }
    const Profile& profile() const { return cluster_->profile(); }
    bool harming() const { return cluster_->harming(); }
    Chronicle& chronicle() { return chronicle_; }
    bool one_in(std::uint64_t n) { return random().below(n) == 0; }

    void wake_at(std::uint32_t caller, Instant at, std::uint64_t what = 0);
    bool calling(std::uint32_t caller) const { return calls_[caller].busy; }
    void call(std::uint32_t caller, Request request);
    // An answer is not waited for any more.
    void hang_up(std::uint32_t caller);

    // A stream from that node to the watcher, until it is closed or the node crashes; of a node that answers.
    std::optional<store::WatchId> open_stream(std::uint32_t node, WatchClient& watcher,
                                              store::WatchRequest request);
    void close_stream(std::uint32_t node, store::WatchId id);
    // The watcher can take more.
    void resume_stream(std::uint32_t node, store::WatchId id);
    void ask_progress(std::uint32_t node, store::WatchId id);
    StoreMachine& machine_of(std::uint32_t node) { return *servers_[node].machine; }

  private:
    enum TimerKind : std::uint16_t { kTurn, kAsk, kSend, kTimeout, kForward, kAnswer, kLease, kProgress };
    struct Call {
        bool busy = false;
        Request request;
        std::uint64_t attempt = 0;  // unique among all callers; also the context of a read
        std::uint32_t node = 0;     // asked in this attempt
        Instant asked{};            // of a write: the first attempt, which may be the one that took effect
        std::uint64_t times = 0;
        store::SessionId session;
        std::uint64_t sequence = 0;
        bool opening = false;  // the session
    };
    struct Server {
        StoreMachine* machine = nullptr;  // null: down
        store::LeaseClock leases;
        bool leading = false;
        raft::Term term;  // in which it leads
        raft::Term applied_term;
        std::optional<Instant> armed;  // for its leases; true time
        std::unordered_map<std::uint64_t, WatchClient*> streams;
    };
    struct Forward {  // under way from one node to another
        bool keep_alive = false;
        std::uint32_t from = 0;
        std::uint64_t attempt = 0;
        raft::Command command;
        store::LeaseId lease;
        std::optional<std::int64_t> ttl;
    };
    struct KeepAlive {  // at the leader, until it is confirmed
        std::uint32_t from = 0;
        std::uint64_t attempt = 0;
        store::LeaseId lease;
    };

    // key_space.cc
    void ask(std::uint32_t caller);
    void send(std::uint32_t caller);
    void ask_again(std::uint32_t caller);
    void write(std::uint32_t caller);
    void answer_read(std::uint32_t caller);
    void answer_write(std::uint32_t caller, const StoreMachine& machine);
    void answer(std::uint32_t caller, Answer answer);
    Call* awaited(std::uint64_t attempt, std::uint32_t node);
    std::uint32_t leader_of(std::uint32_t node) const;
    std::uint64_t keep(Forward forward);

    // key_space_nodes.cc
    void forwarded(const Timer& timer);
    void keep_alive(std::uint32_t node, const KeepAlive& asked);
    void renew(std::uint32_t node, const KeepAlive& asked);
    void renewed(std::uint64_t attempt, std::optional<std::int64_t> ttl);
    void follow_leases(std::uint32_t node);
    void follow_role(std::uint32_t node);
    void arm(std::uint32_t node);
    void expire(std::uint32_t node);
    void pump(std::uint32_t node);
    void check_holders();
    void age_sessions(std::uint32_t leader);

    Cluster* cluster_ = nullptr;
    const std::uint64_t kv_clients_;
    Chronicle chronicle_;
    std::vector<Server> servers_;  // by node
    std::vector<std::unique_ptr<Caller>> callers_;
    std::vector<Call> calls_;
    std::vector<LeaseClient*> holders_;
    std::unordered_map<std::uint64_t, std::uint32_t> awaited_;  // attempt -> caller
    std::unordered_map<std::uint64_t, KeepAlive> keep_alives_;  // by the context of their read
    std::vector<Forward> forwards_;                             // by slot
    std::vector<std::uint64_t> free_slots_;
    std::uint64_t attempts_ = 0;
    std::uint64_t busy_ = 0;
    std::uint64_t operations_ = 0;
    std::size_t changes_looked_at_ = 0;
    std::string idle_;
};

}  // namespace outrider::sim
