// A snapshot as a file, and as it travels to a node that is behind: the same bytes. Pure.
//
//    0   8  magic: "OUTRSNP\n"
//    8   4  format version: 1
//   12   4  length of the header
//   16   …  header: control.node.SnapshotHeader
//    …   8  check: XXH3_64 of all bytes before it
//    …      the state: control/store/snapshot.h, which has checks and an end of its own
// Integers are little-endian. The name is snapshot-INDEX.snap, twenty digits; what ends in .tmp is unfinished and is deleted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "control/raft/types.h"
#include "control/store/snapshot.h"

namespace outrider::node {

inline constexpr std::uint32_t kSnapshotFormat = 1;
inline constexpr std::size_t kSnapshotHeaderBytesMax = std::size_t{64} << 10;

struct SnapshotHead {
    std::uint64_t cluster_id = 0;
    raft::SnapshotMeta meta;
};

std::string encode(const SnapshotHead& head);
std::string snapshot_name(raft::LogIndex index);
// Nothing for a name that is not a snapshot's.
std::optional<raft::LogIndex> parse_snapshot_name(std::string_view name);

// Takes the file's bytes in pieces of any size. After an error, the same again.
class SnapshotParser {
  public:
    // `memory`: of the store that is made.
    explicit SnapshotParser(std::shared_ptr<ColdMemory> memory = heap_memory())
        : reader_(std::move(memory)) {}
    Result<void> add(std::string_view bytes);
    struct Snapshot {
        SnapshotHead head;
        std::unique_ptr<store::Store> store;
    };
    // The file has ended.
    Result<Snapshot> finish();

  private:
    Result<bool> read_head();

    std::string pending_;  // until the head is whole
    std::optional<SnapshotHead> head_;
    store::SnapshotReader reader_;
    std::string error_;
};

}  // namespace outrider::node
