// The whole state of a store as a stream of frames, and back. Equal stores give equal bytes.
//
// Format, version 1. Every integer outside of a payload is little-endian. A snapshot is a sequence of frames:
//    0   4  payload length, 1 to kFrameBytesMax
//    4   4  ordinal: 0, 1, 2 …
//    8   8  check: XXH3_64(payload, seed = the check of the frame before it + its ordinal; 0 before the first)
//   16   …  payload: a kind (one byte), then items of that kind, packed. Numbers are LEB128 varints in their shortest form
//           (a negative one as its 64 bits), text is a length and bytes.
// The seed chains the frames: one that is missing, moved, repeated or of another snapshot is found out at its place. 64
// bits of XXH3 and not a CRC-32 for the reasons given in base/wal/format.h.
//
// Kinds, in this order
//   'H' once: "OUTRIDER-KV", format version, applied index, revision, compacted, store time (ms), number of records
//   'L' leases by id: id, TTL in seconds, index of the grant
//   'S' sessions by id: id, last sequence, used (ms), revision, answer (text)
//   'K' records by key, a key's from old to new: key (empty: the same as the record before), mod revision, number in its
//       revision, kind (0 value, 1 deletion), and for a value: create revision, version, lease, value
//   'E' once: number of frames before it
// A frame of L, S or K is closed by the item that brings its payload to kFrameBytes or more.
//
// The index, the history, keys of leases and the size in bytes are made anew from the records and leases.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "control/store/store.h"

namespace outrider::store {

inline constexpr std::size_t kFrameHeaderBytes = 16;
inline constexpr std::size_t kFrameBytes = std::size_t{256} << 10;
inline constexpr std::size_t kFrameBytesMax = std::size_t{32} << 20;

// The state as it is now, a frame at a time, while the store goes on to apply commands: records made later are passed
// over. What a compaction makes invisible is collected when the writer is gone. Leases and sessions, which have no history, are
// taken at once.
class SnapshotWriter {
  public:
    // Of a store that has been collected, or can be now: nobody else may walk over it while it is collecting().
    explicit SnapshotWriter(Store& store);
    ~SnapshotWriter();
    SnapshotWriter(const SnapshotWriter&) = delete;
    SnapshotWriter& operator=(const SnapshotWriter&) = delete;

    std::uint64_t applied_index() const { return applied_index_; }
    Revision revision() const { return revision_; }
    // Appends the next frame; false when there is none.
    bool next(std::string& out);

  private:
    void write_tables();
    bool write_records();
    void write_record(const Record& record, bool same_key);
    void begin(char kind);
    void end();

    const Store& store_;
    const std::uint64_t applied_index_;
    const Revision revision_;
    std::uint32_t ordinal_ = 0;
    std::uint64_t check_ = 0;
    std::string payload_;
    std::string ready_;                 // whole frames
    std::size_t taken_ = 0;             // of ready_, by next()
    std::string key_;                   // of the chain
    std::vector<const Record*> chain_;  // what is left of it, the newest first
    bool same_key_ = false;             // something of it has been written
    std::string next_key_;              // behind it, what comes next is not less
    bool at_end_ = false;
};

// Takes the bytes in pieces of any size. After an error, the same again.
class SnapshotReader {
  public:
    // `memory`: of the store that is made.
    explicit SnapshotReader(std::shared_ptr<ColdMemory> memory = heap_memory());
    ~SnapshotReader();

    Result<void> add(std::string_view bytes);
    // The stream has ended.
    Result<std::unique_ptr<Store>> finish();

  private:
    Result<void> read_frame(std::string_view payload);
    Result<void> read_header(std::string_view items);
    Result<void> read_leases(std::string_view items);
    Result<void> read_sessions(std::string_view items);
    Result<void> read_records(std::string_view items);
    Result<void> read_end(std::string_view items);
    Result<void> place(const Record::Fields& fields, bool same_key);
    Error wrong(std::string_view what) const;

    std::unique_ptr<Store> store_;
    std::vector<Change> history_;  // in the order of the keys
    std::string error_;
    std::string pending_;
    std::uint32_t ordinal_ = 0;
    std::uint64_t check_ = 0;
    char last_kind_ = 0;
    std::uint64_t records_expected_ = 0;
};

}  // namespace outrider::store
