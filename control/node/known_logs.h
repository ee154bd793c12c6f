// Which log each other member keeps its promises in, as this node has met it: how a node that has lost its data is told from the one
// that had it. Pure.
//
// A write-ahead log draws an id when it is made (base/wal/format.h) and keeps it for as long as there is anything of it, on
// whatever disk. A node whose directory was emptied makes a new one: under its old name, it has forgotten how it voted and what it
// acknowledged, and counted as the same voter it could elect a leader that lacks an acknowledged write. So each node tells its
// log's id in its greeting (Hello, control/proto/node.proto), and each remembers those of the members, durably, before it takes the
// first message of consensus from one. A member with another log is refused, and ends.
//
// A member that tells no log is of the version before, and is taken also when its log is known: else that version could not be
// put back once this one has run, which is how an upgrade that went wrong is mended. So an emptied node passes while it runs
// that version. It is believed less: its word that this node's log is lost does not end this node (Peers::on_reject).
//
// What this does not notice: a log that was put back to an earlier state (of a virtual machine, or a copy), a log that is new
// to every node that the emptied one meets (control/node/founding.h makes that rare), and a log that only versions before this have met.
//
// With each log stands what its member's version knows that others do not (Knowledge): a command that a member cannot read ends it,
// at each start anew, so what is new goes into the log when every member has told that it knows it. Remembered, so that it may go
// there also while some member is away.
//
// The file `peers` of the data directory: one frame (control/node/frame.h) with a control.node.KnownLogs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "control/raft/types.h"

namespace outrider::node {

inline constexpr std::uint32_t kKnownLogsFormat = 1;
inline constexpr std::size_t kKnownLogsBytesMax = std::size_t{64} << 10;

// Bits; numbers are never used again.
enum Knowledge : std::uint32_t {
    kKnowsSessions = 1,  // of clients, and that they age (store::SessionsAgeRequest)
};
inline constexpr std::uint32_t kOwnKnowledge = kKnowsSessions;

class KnownLogs {
  public:
    enum class Verdict : std::uint8_t {
        kKnown,    // it is the one that was met
        kNew,      // none was met: to be remembered
        kAnother,  // it has lost the one that was met
        kUntold,   // its version does not tell: taken as ever, also if one was met
    };
    // `log` 0: not told.
    Verdict judge(raft::NodeId node, std::uint64_t log) const;
    // 0: none was met.
    std::uint64_t of(raft::NodeId node) const;
    // Of a node that was not met before.
    void remember(raft::NodeId node, std::uint64_t log);
    // What the node told of itself last; 0 of one that was not met.
    std::uint32_t knowledge_of(raft::NodeId node) const;
    // True when it is news. Nothing is kept of a node that was not met.
    bool learn(raft::NodeId node, std::uint32_t knowledge);
    // Forgets who is not a member; true when there was one. Ids are never given twice, so nothing is lost with them, provided that
    // the configuration is committed.
    bool forget_others(const raft::Configuration& members);

    bool operator==(const KnownLogs&) const = default;

  private:
    friend std::string encode(const KnownLogs& logs);
    struct Known {
        std::uint64_t log = 0;
        std::uint32_t knowledge = 0;
        bool operator==(const Known&) const = default;
    };
    std::map<raft::NodeId, Known> logs_;
};

std::string encode(const KnownLogs& logs);
// The error says what is wrong with the file's bytes.
Result<KnownLogs> parse_known_logs(std::string_view bytes);

}  // namespace outrider::node
