// Any bytes as a segment of the write-ahead log.
//
// Held here: nothing is read outside of the segment; a record that is delivered has its checks right (by a second
// implementation of them) and is written again as the same bytes; records lie one behind the other; cut where the
// reader says, the segment reads clean and holds the same records; and no later segment turns damage into an end.
//
// The first byte: bit 0: the log's last segment; bit 1: make the header's check right first; bit 2: make the checks of
// records right as they follow each other, so that what lies behind them is reached. The segment follows.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <xxhash.h>

#include "base/check.h"
#include "base/wal/format.h"
#include "base/wal/segment_reader.h"

namespace {
using namespace outrider;
using namespace outrider::wal;

using Kind = SegmentReader::Kind;

template <typename T>
T at(const std::string& bytes, std::size_t offset) {
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof value);  // on little-endian machines
    return value;
}

template <typename T>
void put(std::string& bytes, std::size_t offset, T value) {
    std::memcpy(bytes.data() + offset, &value, sizeof value);
}

void repair_header(std::string& bytes) {
    if (bytes.size() < kSegmentHeaderBytes) return;
    bytes.replace(0, 16, std::string_view("OUTRWAL\n\1\0\0\0\0\0\0\0", 16));
    put<std::uint64_t>(bytes, 40, XXH3_64bits(bytes.data(), 40));
}

// Each record's checks over whatever its fields say, as far as the lengths lead.
void repair_records(std::string& bytes) {
    if (bytes.size() < kSegmentHeaderBytes) return;
    const auto header = at<std::uint64_t>(bytes, 40);
    std::size_t offset = kSegmentHeaderBytes;
    for (int i = 0; i < 64 && bytes.size() - offset >= kRecordHeaderBytes; ++i) {
        const std::size_t length = at<std::uint32_t>(bytes, offset + 4) & 0xffff;  // or none would fit
        put<std::uint16_t>(bytes, offset + 4, static_cast<std::uint16_t>(length));
        bytes[offset + 6] = 0;
        const std::size_t total = record_bytes(length);
        if (total > bytes.size() - offset) break;
        const std::uint64_t seed = header + offset;
        put<std::uint64_t>(bytes, offset + 16,
                           XXH3_64bits_withSeed(bytes.data() + offset + 24, total - 24, seed));
        put<std::uint32_t>(
            bytes, offset,
            static_cast<std::uint32_t>(XXH3_64bits_withSeed(bytes.data() + offset + 4, 20, seed)));
        offset += total;
    }
}

void check_record(const SegmentHeader& header, const RecordView& record, const std::string& bytes) {
    const std::size_t total = record_bytes(record.payload.size());
    require(record.offset + total <= bytes.size(), "a record lies within its segment");
    const std::uint64_t seed = header.check + record.offset;
    const char* raw = bytes.data() + record.offset;
    require(at<std::uint64_t>(bytes, record.offset + 16) == XXH3_64bits_withSeed(raw + 24, total - 24, seed),
            "a delivered payload has its check right");
    require(at<std::uint32_t>(bytes, record.offset) ==
                static_cast<std::uint32_t>(XXH3_64bits_withSeed(raw + 4, 20, seed)),
            "a delivered header has its check right");
    std::string again(total, '\x5a');
    encode(header, record, again.data());
    require(again == std::string_view(raw, total), "a record is written again as the same bytes");
}

struct Reading {
    std::vector<std::uint64_t> offsets;
    SegmentReader::Step end;
};

Reading read(const SegmentHeader& header, const std::string& bytes, bool last) {
    const std::unique_ptr<char[]> exact(new char[bytes.size()]);  // the sanitizer guards its ends
    std::memcpy(exact.get(), bytes.data(), bytes.size());
    SegmentReader reader(header, {exact.get(), bytes.size()}, last);
    Reading out;
    std::uint64_t next = kSegmentHeaderBytes;
    for (out.end = reader.next(); out.end.kind == Kind::kRecord; out.end = reader.next()) {
        const RecordView& record = out.end.record;
        require(record.offset == next && out.end.offset == next, "records lie one behind the other");
        require(record.ordinal == out.offsets.size(), "ordinals count");
        check_record(header, record, bytes);
        next += record_bytes(record.payload.size());
        out.offsets.push_back(record.offset);
    }
    require(out.end.offset == next, "the end lies behind the last record");
    require(reader.proven_durable() <= next, "only what was read is durable");
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const bool last = (data[0] & 1) != 0;
    std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
    if ((data[0] & 2) != 0) repair_header(bytes);
    if ((data[0] & 4) != 0) repair_records(bytes);

    const auto header = decode_segment_header(bytes);
    if (!header) {
        require(!header.error().empty(), "a refusal has a reason");
        return 0;
    }
    std::string again(kSegmentHeaderBytes, '\0');
    SegmentHeader copy = *header;
    encode(copy, again.data());
    require(again == std::string_view(bytes).substr(0, kSegmentHeaderBytes),
            "a header is written again as the same bytes");

    const Reading reading = read(*header, bytes, last);
    const Reading other = read(*header, bytes, !last);
    require(reading.offsets == other.offsets, "the records do not depend on what follows the segment");
    require((reading.end.kind == Kind::kEnd) == (other.end.kind == Kind::kEnd),
            "a clean end is one in every segment");
    require(last || reading.end.kind != Kind::kTorn, "only the last segment can be torn");
    if (reading.end.kind == Kind::kCorrupt && last)
        require(reading.end.proof > reading.end.offset, "damage has a proof behind it");
    if (reading.end.kind == Kind::kCorrupt) return 0;
    bytes.resize(reading.end.offset);
    const Reading cut = read(*header, bytes, last);
    require(cut.end.kind == Kind::kEnd && cut.offsets == reading.offsets, "what is cut reads clean");
    return 0;
}
