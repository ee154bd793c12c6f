// What a node writes to its write-ahead log, and what it makes of the log when it starts. Pure.
//
// Records (control/proto/node.proto), by type:
//   1 Identity        whose data this is; the first record
//   2 HardState       term and vote; the last one counts
//   3 Entry           of the replicated log. One at an index that is there already replaces it and all behind it
//   4 Truncation      entries behind an index do not count any more
//   5 SnapshotRecord  a snapshot file is durable. Entries up to it are in it
// The newest Identity, HardState and SnapshotRecord are written again before segments that hold them are deleted, so the
// log's remaining records always tell everything.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "control/node/wire.h"
#include "control/raft/types.h"

namespace outrider::node {

enum class RecordType : std::uint8_t {
    kIdentity = 1,
    kHardState = 2,
    kEntry = 3,
    kTruncation = 4,
    kSnapshot = 5,
};

// Of the data directory as a whole; raised when an older program could not read it any more.
inline constexpr std::uint32_t kDataFormat = 1;

struct Identity {
    std::uint64_t cluster_id = 0;
    raft::NodeId node;
    std::string name;
    std::string cluster;
    // With which the cluster began; empty on a node that joined it later.
    raft::ConfigurationRef founders = std::make_shared<const raft::Configuration>();
};

std::string encode(const Identity& identity);
std::string encode(const raft::HardState& state);
std::string encode_truncation(raft::LogIndex after);
std::string encode(const raft::SnapshotMeta& snapshot, bool installed);
// Into `out`, which keeps its memory.
void encode(const raft::Entry& entry, proto::Entry& scratch, std::string& out);

// Takes the log's records in order.
class LogReplay {
  public:
    // The error says what is wrong with this record; nothing more may be added then.
    Result<void> add(std::uint8_t type, std::string_view payload);

    struct State {
        std::optional<Identity> identity;  // nothing: the log is empty
        raft::HardState hard_state;
        raft::SnapshotMeta snapshot;  // of index 0: none; the founders' configuration
        std::vector<raft::Entry> entries;
    };
    // Everything has been added.
    Result<State> finish();

  private:
    Result<void> add_identity(std::string_view payload);
    Result<void> add_entry(std::string_view payload);
    Result<void> add_snapshot(std::string_view payload);

    std::optional<Identity> identity_;
    raft::HardState hard_state_;
    std::optional<raft::SnapshotMeta> snapshot_;
    std::deque<raft::Entry> entries_;
    proto::Entry scratch_;
};

}  // namespace outrider::node
