#include "base/wal/segment_reader.h"

#include <algorithm>
#include <cstring>

namespace outrider::wal {
namespace {

bool all_zero(std::string_view bytes) {
    // Each byte equals the one before it, and the first is zero: memcmp does the work.
    return bytes.empty() ||
           (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace

SegmentReader::Step SegmentReader::next() {
    Step step;
    const RecordFault fault = decode_record(header_, segment_, offset_, ordinal_, step.record);
    if (fault != RecordFault::kNone) [[unlikely]]
        return end_of_records(fault);
    step.kind = Kind::kRecord;
    step.offset = offset_;
    offset_ += record_bytes(step.record.payload.size());
    ++ordinal_;
    proven_durable_ = std::max<std::uint64_t>(proven_durable_, step.record.durable);
    return step;
}

SegmentReader::Step SegmentReader::end_of_records(RecordFault fault) const {
    Step step;
    step.offset = offset_;
    if (all_zero(segment_.substr(offset_))) return step;
    step.fault = fault;
    if (!last_) {
        step.kind = Kind::kCorrupt;
        return step;
    }
    const auto proof = find_proof_of_durability(header_, segment_, offset_, ordinal_);
    step.kind = proof ? Kind::kCorrupt : Kind::kTorn;
    step.proof = proof.value_or(0);
    return step;
}

}  // namespace outrider::wal
