#include "base/wal/format.h"

#include <array>
#include <cstring>

#include <fmt/format.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/check.h"

namespace outrider::wal {
namespace {

constexpr std::string_view kMagic("OUTRWAL\n", 8);
constexpr std::string_view kSuffix = ".wal";
constexpr std::size_t kIndexDigits = 20;
constexpr std::uint32_t kLengthMask = 0xffffff;

// Compilers turn these into one move on little-endian machines.
template <typename T>
void store(char* out, T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i)
        out[i] = static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
}

template <typename T>
T load(const char* in) {
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i)
        value |= static_cast<T>(static_cast<unsigned char>(in[i])) << (8 * i);
    return value;
}

std::uint64_t seed_at(const SegmentHeader& header, std::uint64_t offset) {
    return header.check + offset;
}

std::uint32_t header_check(const char* record, std::uint64_t seed) {
    return static_cast<std::uint32_t>(XXH3_64bits_withSeed(record + 4, kRecordHeaderBytes - 4, seed));
}

}  // namespace

void encode(SegmentHeader& header, char* out) {
    std::memcpy(out, kMagic.data(), kMagic.size());
    store<std::uint32_t>(out + 8, kFormatVersion);
    store<std::uint32_t>(out + 12, 0);
    store<std::uint64_t>(out + 16, header.log_id);
    store<std::uint64_t>(out + 24, header.segment_id);
    store<std::uint64_t>(out + 32, header.first_index.value);
    header.check = XXH3_64bits(out, kSegmentHeaderBytes - 8);
    store<std::uint64_t>(out + 40, header.check);
}

Result<SegmentHeader> decode_segment_header(std::string_view segment) {
    if (segment.size() < kSegmentHeaderBytes) return Error{"the segment's header is cut"};
    const char* in = segment.data();
    if (segment.substr(0, kMagic.size()) != kMagic) return Error{"this is not a write-ahead log's segment"};
    // Before the check: another version may check itself in another way.
    const auto version = load<std::uint32_t>(in + 8);
    if (version != kFormatVersion) {
        return Error{fmt::format("the segment has format version {}; this program reads version {}", version,
                                 kFormatVersion)};
    }
    SegmentHeader header;
    header.log_id = load<std::uint64_t>(in + 16);
    header.segment_id = load<std::uint64_t>(in + 24);
    header.first_index.value = load<std::uint64_t>(in + 32);
    header.check = load<std::uint64_t>(in + 40);
    if (header.check != XXH3_64bits(in, kSegmentHeaderBytes - 8) || load<std::uint32_t>(in + 12) != 0)
        return Error{"the segment header's check is wrong"};
    return header;
}

void encode(const SegmentHeader& segment, const RecordView& record, char* out) {
    require(record.payload.size() <= kPayloadBytesMax, "a payload keeps the format's bound");
    require(record.offset % kRecordAlignment == 0, "a record's offset is aligned");
    require(record.durable >= kSegmentHeaderBytes && record.durable <= record.offset,
            "`durable` lies between the segment's header and the record");
    const std::size_t total = record_bytes(record.payload.size());
    const std::size_t body = total - kRecordHeaderBytes;
    const std::uint64_t seed = seed_at(segment, record.offset);
    if (body != 0) std::memset(out + total - kRecordAlignment, 0, kRecordAlignment);
    if (!record.payload.empty())
        std::memcpy(out + kRecordHeaderBytes, record.payload.data(), record.payload.size());
    store<std::uint32_t>(out + 4, static_cast<std::uint32_t>(record.payload.size()) |
                                      static_cast<std::uint32_t>(record.type) << 24);
    store<std::uint32_t>(out + 8, record.ordinal);
    store<std::uint32_t>(out + 12, record.durable);
    store<std::uint64_t>(out + 16, XXH3_64bits_withSeed(out + kRecordHeaderBytes, body, seed));
    store<std::uint32_t>(out, header_check(out, seed));
}

const char* to_string(RecordFault fault) {
    switch (fault) {
        case RecordFault::kNone:
            return "the record is sound";
        case RecordFault::kHeaderCut:
            return "the file ends within a record's header";
        case RecordFault::kHeaderCheck:
            return "a record header's check is wrong";
        case RecordFault::kMisplaced:
            return "a record does not belong here";
        case RecordFault::kPayloadCut:
            return "the file ends within a record's payload";
        case RecordFault::kPayloadCheck:
            return "a record payload's check is wrong";
    }
    return "";
}

RecordFault decode_record(const SegmentHeader& header, std::string_view segment, std::uint64_t offset,
                          std::uint32_t ordinal, RecordView& out) {
    require(offset % kRecordAlignment == 0 && offset <= segment.size(), "a record is read at its place");
    const std::size_t rest = segment.size() - offset;
    if (rest < kRecordHeaderBytes) return RecordFault::kHeaderCut;
    const char* in = segment.data() + offset;
    const std::uint64_t seed = seed_at(header, offset);
    if (load<std::uint32_t>(in) != header_check(in, seed)) return RecordFault::kHeaderCheck;
    const auto type_and_length = load<std::uint32_t>(in + 4);
    out.offset = offset;
    out.ordinal = load<std::uint32_t>(in + 8);
    out.durable = load<std::uint32_t>(in + 12);
    out.type = static_cast<std::uint8_t>(type_and_length >> 24);
    if (out.ordinal != ordinal || out.durable < kSegmentHeaderBytes || out.durable > offset)
        return RecordFault::kMisplaced;
    const std::size_t length = type_and_length & kLengthMask;
    const std::size_t total = record_bytes(length);
    if (total > rest) return RecordFault::kPayloadCut;
    if (load<std::uint64_t>(in + 16) !=
        XXH3_64bits_withSeed(in + kRecordHeaderBytes, total - kRecordHeaderBytes, seed))
        return RecordFault::kPayloadCheck;
    // Padding is checked above; that it is zero makes every record's bytes unique.
    for (std::size_t i = kRecordHeaderBytes + length; i < total; ++i) {
        if (in[i] != 0) return RecordFault::kPayloadCheck;
    }
    out.payload = {in + kRecordHeaderBytes, length};
    return RecordFault::kNone;
}

std::optional<std::uint64_t> find_proof_of_durability(const SegmentHeader& header, std::string_view segment,
                                                      std::uint64_t suspect, std::uint32_t ordinal) {
    for (std::uint64_t at = suspect + kRecordAlignment; at + kRecordHeaderBytes <= segment.size();
         at += kRecordAlignment) {
        const char* in = segment.data() + at;
        const auto durable = load<std::uint32_t>(in + 12);
        if (durable <= suspect || durable > at) continue;
        if (load<std::uint32_t>(in + 8) <= ordinal) continue;
        if (load<std::uint32_t>(in) == header_check(in, seed_at(header, at))) return at;
    }
    return std::nullopt;
}

std::string segment_name(Index first_index) {
    return fmt::format("{:0{}}{}", first_index.value, kIndexDigits, kSuffix);
}

std::optional<Index> parse_segment_name(std::string_view name) {
    if (name.size() != kIndexDigits + kSuffix.size() || !name.ends_with(kSuffix)) return std::nullopt;
    const auto index = parse_decimal(name.substr(0, kIndexDigits));
    if (!index) return std::nullopt;
    return Index{*index};
}

}  // namespace outrider::wal
