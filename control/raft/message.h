// What nodes tell each other. Plain values: the shell encodes them and checks what it decodes; the core ignores a
// message that contradicts itself.
//
// The network may lose, delay, repeat and reorder messages. In order delivery (one connection per pair of nodes) is what
// makes the pipeline fast, never what makes it right.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/time.h"
#include "control/raft/types.h"

namespace outrider::raft {

struct VoteRequest {
    // Asks whether it would get votes in the term after its own (thesis 9.6). Changes nothing at the receiver.
    bool pre = false;
    // On behalf of the leader (thesis 3.10): granted even while the receiver hears that leader.
    bool transfer = false;
    LogIndex last_index{};
    Term last_term{};
};
struct VoteResponse {
    bool pre = false;
    bool granted = false;
    Term asked{};  // the term that the request was for
};

struct AppendRequest {
    LogIndex prev_index{};
    Term prev_term{};
    std::vector<Entry> entries{};  // without a gap from prev_index + 1
    LogIndex commit{};             // may lie behind the entries
};
struct AppendResponse {
    bool rejected = false;
    // Accepted: the follower's log is durable, and equal to the leader's, up to here. Rejected: the prev_index.
    LogIndex index{};
    // Rejected: the last entry that may still agree, and its term (thesis 5.3's "optimized", as etcd does it).
    LogIndex hint_index{};
    Term hint_term{};
};

struct Heartbeat {
    LogIndex commit{};        // never beyond what the receiver is known to have
    std::uint64_t round = 0;  // of this leader in this term, rising
    Instant sent_at{};        // by the leader's clock; echoed, and looked at by nobody else
};
struct HeartbeatResponse {
    std::uint64_t round = 0;
    Instant sent_at;
};

// The core leaves `data` and `last` for the shell to fill from the snapshot of meta.index, beginning at `offset`. When the
// shell has that snapshot no more it drops the message; the core, left without an answer, begins again with the newest one.
struct SnapshotChunk {
    SnapshotMeta meta{};
    std::uint64_t offset = 0;
    std::shared_ptr<const std::string> data{};
    bool last = false;
};
struct SnapshotResponse {
    LogIndex index{};          // of the snapshot
    std::uint64_t offset = 0;  // the chunk to send next
};

struct TimeoutNow {};  // "campaign at once" (thesis 3.10)

// A follower asks the leader for a read index (thesis 6.4).
struct ReadRequest {
    std::uint64_t context = 0;
};
struct ReadResponse {
    std::uint64_t context = 0;
    bool refused = false;
    LogIndex index{};
};

// The answer to a leader of an earlier term: the header's term deposes it.
struct StaleTerm {};

using Body =
    std::variant<VoteRequest, VoteResponse, AppendRequest, AppendResponse, Heartbeat, HeartbeatResponse,
                 SnapshotChunk, SnapshotResponse, TimeoutNow, ReadRequest, ReadResponse, StaleTerm>;

struct Message {
    NodeId from{};
    NodeId to{};
    Term term{};  // the sender's
    Body body{};
};

}  // namespace outrider::raft
