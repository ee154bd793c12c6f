// What goes into the core and what comes out of it.
//
// The shell's contract
//   * Effects are carried out in the order of the members of Effects, those of one step before those of the next.
//   * hard_state, chunk, install, truncate_after and append are one write, named by `write`. Writes become durable in the
//     order of their names. When one is, the shell says Persisted{write}; it may say so once for many (group commit).
//   * A message leaves when every hard_state of this and of earlier steps is durable. It need NOT wait for entries:
//     the core holds back whatever promises that an entry is durable until Persisted has come. So a leader's disk
//     works while its messages travel (thesis 10.2.1), and a follower answers after its disk.
//   * After a crash the core is built from what is durable: the newest hard state, the snapshot, the entries behind it.
//     A write of which a part survived counts as far as it goes: a prefix of the writes, and of the entries in the last.
//   * A write that fails ends the node. It is not tried again (base/wal/wal.h says why).
#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "control/raft/message.h"
#include "control/raft/types.h"

namespace outrider::raft {

// Names one write; rises from 1 for each core.
struct WriteId {
    std::uint64_t value = 0;
    friend constexpr auto operator<=>(const WriteId&, const WriteId&) = default;
};

enum class Role : std::uint8_t { kFollower, kPreCandidate, kCandidate, kLeader, kLearner };

// ---- in ----

struct Tick {};  // at or after next_deadline(); earlier it does nothing

// Commands in the order in which they shall stand in the log. One event for all that have come in makes one message
// for each peer and one write.
struct Propose {
    std::vector<Command> commands;
};

struct ChangeMembership {
    enum class Kind : std::uint8_t {
        kAddLearner,  // a node that is not a member
        kPromote,     // a learner that has caught up
        kRemove,      // a voter or learner, also the leader itself
        kUpdate,      // of a member's address; who votes stays as it is
    };
    Kind kind = Kind::kAddLearner;
    NodeId node{};
    std::string address{};  // kAddLearner, kUpdate
};

struct TransferLeadership {
    NodeId to{};
};

// A linearizable read. `context` comes back in Read or ReadRefused; never used twice, not even after a restart, since a
// leader may answer late. On a follower the answer may never come (a lost message): the shell bounds the wait.
struct BeginRead {
    std::uint64_t context = 0;
};

// That write, and all before it, are durable.
struct Persisted {
    WriteId write{};
};

// A snapshot of the state at `snapshot` is durable; entries before `first_kept` are needed no more. snapshot is applied
// and not before an earlier one; first_kept is at most snapshot + 1. Keeping some lets a slow follower catch up
// without the snapshot (Core::low_water_mark).
struct Compact {
    LogIndex snapshot{};
    LogIndex first_kept{};
};

// The connection to the leader is lost: its process is most likely dead. Its followers then campaign soon after
// the election timeout instead of up to twice that. A hint: it moves a deadline, and votes and leases count from when the
// leader was heard as ever. When it was none, the leader's next word takes it back.
struct LeaderGone {
    NodeId leader{};
};

using Event = std::variant<Tick, Message, Propose, ChangeMembership, TransferLeadership, BeginRead, Persisted,
                           Compact, LeaderGone>;

// ---- out ----

enum class Refusal : std::uint8_t {
    kNone,
    kNotLeader,         // Core::leader() may know better
    kTransferring,      // leadership is about to move
    kTooLarge,          // command_bytes_max
    kTooMuch,           // uncommitted_bytes_max
    kChangeInProgress,  // the last change of members is not committed
    kNotReady,          // this leader has not committed an entry of its term yet
    kNotCaughtUp,       // the learner lacks more than promotion_lag_max entries
    kAlreadyMember,
    kNotMember,  // or not of the kind that this takes
    kLastVoter,
    kTooManyMembers,  // kMembersMax
};
const char* to_string(Refusal refusal);
const char* to_string(Role role);

// Of Propose, ChangeMembership or TransferLeadership.
struct Outcome {
    Refusal refusal = Refusal::kNone;  // of the first that was not accepted
    std::size_t accepted = 0;          // how many commands were appended
    LogIndex first_index{};            // of the first accepted; the others follow
    Term term{};                       // an entry of another term at that index is not this proposal
};

// To be written to the file of the snapshot that is coming in. Offset 0 begins anew.
struct StoreChunk {
    SnapshotMeta meta{};
    std::uint64_t offset = 0;
    std::shared_ptr<const std::string> data{};
};

// May be answered when the state machine has applied `index`.
struct Read {
    std::uint64_t context = 0;
    LogIndex index{};
};

struct RoleChange {
    Role role = Role::kFollower;
    Term term{};
    NodeId leader{};  // kNoNode: not known
};

struct Effects {
    std::optional<WriteId> write;  // has a value exactly when one of the next five is there
    std::optional<HardState> hard_state;
    std::optional<StoreChunk> chunk;
    // The chunks are complete: the snapshot and this index replace the whole log, and the state machine's state.
    std::optional<SnapshotMeta> install;
    std::optional<LogIndex> truncate_after;  // entries behind it go
    std::vector<Entry> append;

    std::vector<Message> send;

    std::vector<Entry> apply;  // committed, and durable here; without a gap
    std::vector<Read> reads;
    std::vector<std::uint64_t> reads_refused;  // by context: no leader, no longer leader, or too many
    std::optional<RoleChange> role;            // role, term or leader is another than after the last step
    std::optional<ConfigurationRef> configuration;  // now in force; not yet committed
    std::optional<Outcome> outcome;
};

}  // namespace outrider::raft
