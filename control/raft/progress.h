// What a leader knows of one peer, and what it may send it. The three states are those of etcd's tracker.
//
//   probe      one append at a time, until one is accepted: next_index is a guess
//   replicate  pipelined: next_index runs ahead of the answers, as far as the limits of what is in flight allow
//   snapshot   the entries that it lacks are gone; chunks are sent, one at a time
//
// Invariants: match < next; in replicate what is in flight lies behind match.
//
// What was sent is taken for lost only when a heartbeat is answered that left after it: the link may be so slow that answers to
// earlier ones still come in, and whatever was sent again for those would make it slower yet.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "base/time.h"
#include "control/raft/options.h"
#include "control/raft/types.h"

namespace outrider::raft {

class Progress {
  public:
    enum class State : std::uint8_t { kProbe, kReplicate, kSnapshot };
    struct Transfer {
        SnapshotMeta meta{};
        std::uint64_t offset = 0;  // the chunk that is under way
        std::uint64_t round = 0;   // of heartbeats, when that chunk was sent
        bool again = false;        // it was sent again, and nothing was heard of this snapshot since
    };

    Progress(NodeId id, LogIndex next, Instant now) : id_(id), next_(next), last_contact_(now) {}

    NodeId id() const { return id_; }
    State state() const { return state_; }
    LogIndex match() const { return match_; }
    LogIndex next() const { return next_; }
    std::optional<Transfer>& snapshot() { return snapshot_; }

    // May an append be sent now?
    bool ready(const Options& options) const;
    // An append with entries up to `last` goes out (last < next(): none), after the heartbeats of `round`.
    void sent(LogIndex last, std::uint64_t bytes, std::uint64_t round);
    // The peer's log agrees up to `match`; this log has terms from `base` on. True when that is news.
    bool accepted(LogIndex match, LogIndex base);
    // It refused the append behind `rejected`; `agrees_at_most` is the guess. False when nothing is to be sent for it.
    bool rejected(LogIndex rejected, LogIndex agrees_at_most);
    // It has answered the heartbeat of `round`: what was sent before that may have been lost.
    void resume(std::uint64_t round, const Options& options);
    void send_snapshot(const SnapshotMeta& meta);

    // Any answer in this term.
    void heard(Instant now) { last_contact_ = now; }
    Instant last_contact() const { return last_contact_; }
    void acknowledged(std::uint64_t round, Instant sent_at);
    std::uint64_t acknowledged_round() const { return acknowledged_round_; }
    // When the last acknowledged round left this leader; nothing before the first.
    std::optional<Instant> acknowledged_at() const { return acknowledged_at_; }

    LogIndex commit_sent;  // so that a commit is told once

  private:
    struct Sent {
        LogIndex last;
        std::uint64_t bytes = 0;
        std::uint64_t round = 0;
    };
    void become_probe();
    void free_inflight(LogIndex up_to);

    NodeId id_;
    State state_ = State::kProbe;
    LogIndex match_;
    LogIndex next_;
    bool probe_sent_ = false;
    std::uint64_t probe_round_ = 0;
    std::deque<Sent> inflight_;
    std::uint64_t inflight_bytes_ = 0;
    std::optional<Transfer> snapshot_;
    Instant last_contact_;
    std::uint64_t acknowledged_round_ = 0;
    std::optional<Instant> acknowledged_at_;
};

}  // namespace outrider::raft
