// The connections to the other nodes: one TCP connection a pair (single-socket channel), frames in order in both directions.
//
// Of two nodes the one with the lower id dials; the other dials as well when nothing has come for kOtherWaits, because a node that
// was cut off may not know that a new one exists. When both have, the newer connection stays; when each holds another for the
// newer, both end, and one is dialled anew.
//
// Each end begins with a Hello (control/proto/node.proto). Who belongs to another cluster, is another node than was called, or
// speaks another protocol gets a Reject with the reason, and both ends log it. So does a member that has another log than
// the one it was met with (known_logs.h): on_log_lost() tells it there.
//
// Invariants
//   * A peer has at most one open channel. Frames handed to send() leave in order, in one system call a turn, or are lost
//     together with the channel; on_peer_lost() says so.
//   * Nothing that a member says is handed on before the log it has is remembered durably: until then it is set aside.
//   * A channel on which nothing was heard for the patience is closed: both ends ping three times as often. TCP alone would
//     go on for minutes after a partition has healed.
//   * What waits for a slow peer is bounded (kQueuedBytesMax), connections that have not said Hello are (kStrangersMax).
//   * A hang-up at any moment, also while it is being written to, is an event like another.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/result.h"
#include "base/uv/acceptor.h"
#include "base/uv/loop.h"
#include "base/uv/resolver.h"
#include "config/settings.h"
#include "control/node/alarm.h"
#include "control/node/complaints.h"
#include "control/node/known_logs.h"
#include "control/node/wire.h"
#include "control/raft/types.h"

namespace outrider::node {

inline constexpr std::uint32_t kPeerProtocol = 1;
inline constexpr std::size_t kQueuedBytesMax = std::size_t{64} << 20;
inline constexpr std::size_t kStrangersMax = 64;
inline constexpr Duration kStrangersTold = std::chrono::seconds(30);  // in the log, at most so often
// Of a frame before the Hello, and with it.
inline constexpr std::size_t kGreetingBytesMax = std::size_t{64} << 10;
inline constexpr std::size_t kNameBytesMax = 256;
inline constexpr Duration kOtherWaits = std::chrono::seconds(1);

class PeersHandler {
  public:
    // May take what it likes out of the frame.
    virtual void on_frame(raft::NodeId from, proto::Frame& frame) = 0;
    virtual void on_peer_connected(raft::NodeId peer) = 0;
    // `replaced`: a newer one takes its place, and on_peer_connected() follows.
    virtual void on_peer_lost(raft::NodeId peer, bool replaced) = 0;
    // For a node that does not know yet whether the others know it (founding.h): this one has seen its greeting and does not mind,
    // or could not be asked this time.
    virtual void on_peer_taken(raft::NodeId peer) = 0;
    virtual void on_peer_not_reached(raft::NodeId peer) = 0;
    // A member knows this node with another log; it is where the members are expected, or has the log that it is known with.
    // `reason`: a sentence for the operator.
    virtual void on_log_lost(const std::string& reason) = 0;
    // At the address of `peer` is a node that takes part in another cluster.
    virtual void on_other_cluster(raft::NodeId peer, const std::string& reason) = 0;
    // `done`, on the loop's thread, when they are durable.
    virtual void keep_known_logs(const KnownLogs& logs, std::function<void()> done) = 0;
    virtual void on_join_ask(const proto::JoinAsk& ask, proto::JoinTell& tell) = 0;

  protected:
    ~PeersHandler() = default;
};

class Peers {
  public:
    struct Self {
        std::uint64_t cluster_id = 0;
        raft::NodeId id;
        std::string name;
        std::string api_address;
        std::uint64_t log_id = 0;
    };
    struct Status {
        std::string name;
        std::string api_address;  // "": not heard yet
        bool connected = false;
    };

    // `patience`: how long a peer may be silent. `known_logs`: as they were kept.
    Peers(uv::Loop& loop, Self self, KnownLogs known_logs, Duration patience, std::uint64_t seed,
          PeersHandler& handler);
    ~Peers();
    Peers(const Peers&) = delete;
    Peers& operator=(const Peers&) = delete;

    Result<void> listen(const config::HostPort& address);
    std::uint16_t port() const;
    // Keeps a channel with each of these.
    void follow(const raft::Configuration& members);
    // These are committed, and the newest: what is known of others is of no more use.
    void forget_others(const raft::Configuration& members);
    bool has_met(raft::NodeId peer) const { return logs_.of(peer) != 0; }
    // By its last greeting, also while it is away.
    bool knows(raft::NodeId peer, Knowledge what) const { return (logs_.knowledge_of(peer) & what) != 0; }

    const Self& self() const { return self_; }
    // This node's cluster is there: it has data, or has been founded.
    void set_taking_part() { taking_part_ = true; }
    bool connected(raft::NodeId peer) const;
    // False: there is no channel to it.
    bool send(raft::NodeId to, const proto::Frame& frame);
    // Hands what was sent in this turn to the kernel.
    void flush();
    Status status(raft::NodeId peer) const;
    std::size_t connected_count() const;

    // Closes everything; `done` is called when the loop has let go of it.
    void close(std::function<void()> done);

  private:
    class Channel;
    friend class Channel;
    struct Peer {
        raft::NodeId id;
        bool listed = false;  // in the configuration
        config::HostPort address;
        std::string name;
        std::string api_address;
        Channel* channel = nullptr;  // open
        Channel* dialling = nullptr;
        bool resolving = false;
        unsigned failures = 0;
        std::string last_problem;  // in reaching it
        Complaints problems;
        Complaints lost_log;  // it was refused for that, whoever dialled
        std::unique_ptr<Alarm> redial;
    };

    Peer& peer(raft::NodeId id);
    Peer* find(raft::NodeId id);
    const Peer* find(raft::NodeId id) const;
    void dial_later(Peer& peer, bool at_once);
    void dial(raft::NodeId id);
    void connect(Peer& peer, const std::string& ip);
    void dial_failed(raft::NodeId id, const std::string& why);
    void note_problem(Peer& peer, const std::string& why);
    void accept(int fd);

    // Of channels.
    void greet(Channel& channel);
    bool on_first_frame(Channel& channel, proto::Frame& frame);
    bool on_hello(Channel& channel, const proto::Hello& hello);
    std::size_t unlisted_open() const;
    void reject(Channel& channel, const std::string& why, proto::Reject::Cause cause = proto::Reject::OTHER);
    void on_reject(Channel& channel, const proto::Reject& reject);
    bool may_end_this_node(const Channel& channel) const;
    void admit(Channel& channel);
    void admit_held();
    void keep_logs();
    void hold_new_member(Peer& peer);
    void opened(Channel& channel, const proto::Hello& hello);
    void ended(Channel& channel, const std::string& why);
    void note_stranger(const std::string& address, const std::string& why);
    void gone(Channel& channel);
    proto::Hello hello(raft::NodeId to) const;

    uv::Loop& loop_;
    const Self self_;
    KnownLogs logs_;
    KnownLogs kept_logs_;  // of those, what is durable; and perhaps what is being forgotten
    const Duration patience_;
    Random random_;
    PeersHandler& handler_;
    uv::Resolver resolver_;
    uv::Acceptor* acceptor_ = nullptr;
    std::map<raft::NodeId, Peer> peers_;
    Complaints refusals_;  // of who dialled, members or not
    std::vector<Channel*> channels_;
    std::vector<Channel*> unsent_;  // with frames of this turn
    proto::Frame incoming_;
    std::optional<Instant> stranger_told_;
    std::function<void()> closed_;
    bool taking_part_ = false;
    bool closing_ = false;
};

}  // namespace outrider::node
