// The bytes of the write-ahead log on disk, so exactly that another program can read it. Pure: bytes in, bytes out.
//
// A log is a directory. Its records lie in segment files named by the index of their first record, as twenty
// decimal digits and ".wal" (00000000000000000001.wal). Beside them: "lock" (empty or a process id; see files.h), and
// NAME.wal.tmp, a segment whose creation was cut short: it holds nothing and is deleted. Every integer is little-endian
// and unsigned. Offsets count from the beginning of a segment.
//
// Segment header, 48 bytes
//    0   8  magic: "OUTRWAL\n"
//    8   4  format version: 1
//   12   4  zero
//   16   8  log id: random, the same in every segment of a log; a segment of another log is found out by it
//   24   8  segment id: random, new for every file; it keeps bytes of an earlier file from being taken for this one's
//   32   8  index of the segment's first record, as in the file's name
//   40   8  check: XXH3_64(bytes 0..39, seed 0)
//
// Record, at an offset that is a multiple of 8: 24 bytes of header, the payload, zeros up to a multiple of 8
//    0   4  header check: the low 32 bits of XXH3_64(bytes 4..23, seed)
//    4   4  payload length in the low 24 bits (at most 16,777,215); type, the user's own byte, in the high 8
//    8   4  ordinal: the record's index less the segment's first; 0, 1, 2 … without a gap
//   12   4  durable: the offset below which this segment was known to be on the disk (fdatasync had returned) before
//           this record was written; at least 48, at most the record's own offset
//   16   8  body check: XXH3_64(payload and padding, seed)
//   24   …  payload, padding
//  where seed = the segment header's check + the record's offset, modulo 2^64.
//
// A segment ends where the file ends, or where only zeros follow (space written ahead of its use). A segment that is
// not the log's last was cut to its exact size and synced before the next was created, so all of it is durable.
//
// Why so
//   * XXH3_64 (xxhash 0.8 and later: its specification is public and frozen) and not CRC-32C: 64 bits miss damage of
//     any kind once in 2^64, where CRC-32C misses long bursts once in 2^32; the library is linked already, and it is
//     faster than the memory it reads. CRC's certainty for short bursts is not given up for nothing: the tests flip
//     every byte.
//   * The seed binds a record to its place in this one file. A block that a disk puts in the wrong place, what a
//     recycled block held before, or a payload that contains records (which a client may have chosen: it does not
//     know the ids) is never taken for a record.
//   * Two checks, because a search for records behind a damaged one (segment_reader.h) must not have to hash a
//     payload for every header that might be one: it stays linear.
//   * `durable` tells a torn tail from damage, see segment_reader.h. Without it a reader that finds a bad record before
//     a good one cannot know: disks write the sectors of one unsynced batch in any order.
//   * Alignment to 8 makes that search 8 times shorter and costs 3.5 bytes a record. Records are not aligned to
//     sectors: a batch is written once and never rewritten, except that recovery writes the same bytes again.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace outrider::wal {

inline constexpr std::uint32_t kFormatVersion = 1;
inline constexpr std::size_t kSegmentHeaderBytes = 48;
inline constexpr std::size_t kRecordHeaderBytes = 24;
inline constexpr std::size_t kRecordAlignment = 8;
inline constexpr std::size_t kPayloadBytesMax = (std::size_t{1} << 24) - 1;
// Of a file. `durable` is 32 bits wide; half of that leaves room for a last batch.
inline constexpr std::uint64_t kSegmentBytesMax = std::uint64_t{1} << 31;

// The place of a record in the log, counted from the log's first record on, through all segments.
struct Index {
    std::uint64_t value = 0;
    friend constexpr auto operator<=>(const Index&, const Index&) = default;
    friend constexpr Index operator+(Index index, std::uint64_t n) { return {index.value + n}; }
};

struct SegmentHeader {
    std::uint64_t log_id = 0;
    std::uint64_t segment_id = 0;
    Index first_index;
    std::uint64_t check = 0;  // filled in by encode() and decode_segment_header()
};

// A whole record as it lies in a segment; payload points into the segment's bytes.
struct RecordView {
    std::uint64_t offset = 0;  // of its header
    std::uint32_t ordinal = 0;
    std::uint32_t durable = 0;
    std::uint8_t type = 0;
    std::string_view payload;
};

constexpr std::size_t record_bytes(std::size_t payload_bytes) {
    return kRecordHeaderBytes + (payload_bytes + kRecordAlignment - 1) / kRecordAlignment * kRecordAlignment;
}

// Writes kSegmentHeaderBytes to out and fills in header.check.
void encode(SegmentHeader& header, char* out);

// The error names what is wrong with the bytes, without the file's name.
Result<SegmentHeader> decode_segment_header(std::string_view segment);

// Writes record_bytes(payload.size()) to out. Requires what the format says of each field.
void encode(const SegmentHeader& segment, const RecordView& record, char* out);

enum class RecordFault : std::uint8_t {
    kNone,
    kHeaderCut,     // the file ends within the header
    kHeaderCheck,   // the header's check is wrong
    kMisplaced,     // a sound header of another ordinal, or with an impossible `durable`
    kPayloadCut,    // the file ends within the payload
    kPayloadCheck,  // the payload's check is wrong
};
const char* to_string(RecordFault fault);

// Reads the record at `offset`, which must be aligned and at most segment.size().
RecordFault decode_record(const SegmentHeader& header, std::string_view segment, std::uint64_t offset,
                          std::uint32_t ordinal, RecordView& out);

// The first place at or behind `from` that holds the sound header of a record later than `ordinal` which says that
// what lies at `suspect` was durable before it was written.
std::optional<std::uint64_t> find_proof_of_durability(const SegmentHeader& header, std::string_view segment,
                                                      std::uint64_t suspect, std::uint32_t ordinal);

std::string segment_name(Index first_index);
// Nothing for a name that is not a segment's.
std::optional<Index> parse_segment_name(std::string_view name);

}  // namespace outrider::wal
