// Reads the records of one segment and says how it ends. Pure: the segment's bytes come in whole.
//
// Torn or corrupt. At the first place that holds no sound record (format.h):
//   * only zeros, or nothing, until the end of the file          -> kEnd: the log ends here in good order. Space that
//                                                                   was written ahead, or ext4 after a power loss
//   * the segment is not the log's last                          -> kCorrupt: all of it was durable before the next
//                                                                   one was created
//   * behind it stands the sound header of a record whose
//     `durable` lies above this place                            -> kCorrupt: this place had reached the disk when
//                                                                   that record was written, and is damaged now
//   * otherwise                                                  -> kTorn: nothing shows that what stood here was
//                                                                   ever durable, so nobody was told that it was.
//                                                                   The log ends here and what follows is cut off
// "A bad record before a good one" would be too much: sectors of one unsynced batch reach the disk in any order, and a
// power loss may leave its second record without its first. It also is enough: each synced batch's first record
// proves everything before it.
//
// What this cannot tell: damage in the last batch that was synced, with nothing written since, looks like a torn tail
// and is cut. No log of one copy can tell (Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage",
// FAST '18, section 3.3.3); a quorum has other copies.
//
// A segment header is never torn: a segment gets its name when its header is durable (wal.h). A bad one is damage.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/wal/format.h"

namespace outrider::wal {

class SegmentReader {
  public:
    enum class Kind : std::uint8_t { kRecord, kEnd, kTorn, kCorrupt };

    struct Step {
        Kind kind = Kind::kEnd;
        std::uint64_t offset = 0;  // of the record; of the log's end (kEnd, kTorn); of the damage (kCorrupt)
        RecordView record;         // kRecord
        RecordFault fault = RecordFault::kNone;  // kTorn, kCorrupt
        std::uint64_t proof = 0;                 // kCorrupt in the last segment: the record that proves it
    };

    // `header` is what decode_segment_header() read from `segment`; both outlive the reader.
    SegmentReader(const SegmentHeader& header, std::string_view segment, bool last)
        : header_(header), segment_(segment), last_(last) {}

    // After anything but kRecord, the same again.
    Step next();

    // The index of the next record, or of the first that is missing.
    Index next_index() const { return header_.first_index + ordinal_; }
    // Everything below is known to have been synced.
    std::uint64_t proven_durable() const { return proven_durable_; }

  private:
    Step end_of_records(RecordFault fault) const;

    const SegmentHeader& header_;
    std::string_view segment_;
    bool last_;
    std::uint64_t offset_ = kSegmentHeaderBytes;
    std::uint32_t ordinal_ = 0;
    std::uint64_t proven_durable_ = kSegmentHeaderBytes;
};

}  // namespace outrider::wal
