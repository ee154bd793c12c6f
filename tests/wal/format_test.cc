#include "base/wal/format.h"

#include <string>

#include <gtest/gtest.h>

#include "base/wal/segment_reader.h"

namespace outrider::wal {
namespace {

using Kind = SegmentReader::Kind;

std::string hex(std::string_view bytes) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    for (const char c : bytes) {
        out += kDigits[static_cast<unsigned char>(c) >> 4];
        out += kDigits[static_cast<unsigned char>(c) & 15];
    }
    return out;
}

// A segment as the log writes it: records after synced() say that all before was durable.
struct Segment {
    explicit Segment(std::uint64_t segment_id = 2) {
        header = {.log_id = 0x1112131415161718, .segment_id = segment_id, .first_index = {100}};
        bytes.resize(kSegmentHeaderBytes);
        encode(header, bytes.data());
    }
    void add(std::uint8_t type, std::string_view payload) {
        const std::size_t at = bytes.size();
        offsets.push_back(at);
        durables.push_back(durable);
        bytes.resize(at + record_bytes(payload.size()));
        encode(header,
               {.offset = at,
                .ordinal = static_cast<std::uint32_t>(offsets.size() - 1),
                .durable = durable,
                .type = type,
                .payload = payload},
               bytes.data() + at);
    }
    void synced() { durable = static_cast<std::uint32_t>(bytes.size()); }

    SegmentHeader header;
    std::string bytes;
    std::uint32_t durable = kSegmentHeaderBytes;
    std::vector<std::uint64_t> offsets;
    std::vector<std::uint32_t> durables;
};

// Three batches, the last of them not proven to be synced by anything behind it.
Segment three_batches() {
    Segment segment;
    for (int batch = 0; batch < 3; ++batch) {
        segment.add(1, "");
        segment.add(2, "seven b");
        segment.add(3, "eight by");
        segment.add(static_cast<std::uint8_t>(200 + batch), std::string(700, static_cast<char>('a' + batch)));
        segment.synced();
    }
    return segment;
}

struct Reading {
    std::size_t records = 0;
    SegmentReader::Step end;
};

Reading read(const Segment& segment, std::string_view bytes, bool last = true) {
    SegmentReader reader(segment.header, bytes, last);
    Reading out;
    for (out.end = reader.next(); out.end.kind == Kind::kRecord; out.end = reader.next())
        ++out.records;
    EXPECT_EQ(reader.next().kind, out.end.kind) << "the end stays the end";
    return out;
}

// How many records lie whole below `size`, and where the last of them ends.
std::size_t whole_records(const Segment& segment, std::uint64_t size, std::uint64_t& end) {
    std::size_t n = 0;
    end = kSegmentHeaderBytes;
    while (n < segment.offsets.size()) {
        const std::uint64_t next =
            n + 1 < segment.offsets.size() ? segment.offsets[n + 1] : segment.bytes.size();
        if (next > size) break;
        end = next;
        ++n;
    }
    return n;
}

bool only_zeros(std::string_view bytes) {
    return bytes.find_first_not_of('\0') == std::string_view::npos;
}

TEST(WalFormat, IsFrozen) {
    Segment segment;
    segment.add(0x7f, "abc");
    EXPECT_EQ(hex(segment.bytes),
              "4f55545257414c0a"
              "0100000000000000"
              "1817161514131211"
              "0200000000000000"
              "6400000000000000"
              "1bc7a62c89733d26"
              "9cd8de4b"
              "0300007f"
              "00000000"
              "30000000"
              "f656ff4d65916fbe"
              "6162630000000000");
}

TEST(WalFormat, ARecordReadsBackAsItWasWritten) {
    Segment segment;
    for (const std::size_t size : {0, 1, 7, 8, 9, 100, 4096, 70'000})
        segment.add(static_cast<std::uint8_t>(size), std::string(size, 'x'));
    SegmentReader reader(segment.header, segment.bytes, true);
    std::uint32_t ordinal = 0;
    for (const std::size_t size : {0, 1, 7, 8, 9, 100, 4096, 70'000}) {
        const SegmentReader::Step step = reader.next();
        ASSERT_EQ(step.kind, Kind::kRecord);
        EXPECT_EQ(step.offset, segment.offsets[ordinal]);
        EXPECT_EQ(step.record.ordinal, ordinal++);
        EXPECT_EQ(step.record.type, static_cast<std::uint8_t>(size));
        EXPECT_EQ(step.record.payload, std::string(size, 'x'));
    }
    EXPECT_EQ(reader.next_index(), Index{108});
    EXPECT_EQ(reader.next().kind, Kind::kEnd);
}

TEST(WalFormat, SegmentNamesSortAsTheirIndexes) {
    EXPECT_EQ(segment_name({1}), "00000000000000000001.wal");
    EXPECT_EQ(parse_segment_name("00000000000000000001.wal"), Index{1});
    EXPECT_EQ(parse_segment_name(segment_name({1'234'567'890'123'456'789})),
              Index{1'234'567'890'123'456'789});
    for (const char* name : {"", ".wal", "1.wal", "0000000000000000000x.wal", "00000000000000000001.wal.tmp",
                             "99999999999999999999.wal", "000000000000000000001.wal"})
        EXPECT_EQ(parse_segment_name(name), std::nullopt) << name;
}

TEST(WalFormat, AHeaderSaysWhatIsWrongWithIt) {
    const Segment segment;
    EXPECT_EQ(decode_segment_header(segment.bytes.substr(0, 47)).error(), "the segment's header is cut");
    EXPECT_EQ(decode_segment_header(std::string(48, '\0')).error(),
              "this is not a write-ahead log's segment");
    std::string newer = segment.bytes;
    newer[8] = 2;
    EXPECT_EQ(decode_segment_header(newer).error(),
              "the segment has format version 2; this program reads version 1");
    for (std::size_t i = 0; i < kSegmentHeaderBytes; ++i) {
        std::string damaged = segment.bytes;
        damaged[i] ^= 0x10;
        EXPECT_FALSE(decode_segment_header(damaged)) << "byte " << i;
    }
}

TEST(WalSegmentReader, EveryCutLeavesTheWholeRecordsBeforeIt) {
    const Segment segment = three_batches();
    for (std::size_t size = kSegmentHeaderBytes; size <= segment.bytes.size(); ++size) {
        const std::string_view bytes = std::string_view(segment.bytes).substr(0, size);
        std::uint64_t end = 0;
        const std::size_t records = whole_records(segment, size, end);
        const bool clean = only_zeros(bytes.substr(end));
        const Reading last = read(segment, bytes, true);
        ASSERT_EQ(last.records, records) << size;
        ASSERT_EQ(last.end.kind, clean ? Kind::kEnd : Kind::kTorn) << size;
        ASSERT_EQ(last.end.offset, end) << size;
        const Reading earlier = read(segment, bytes, false);
        ASSERT_EQ(earlier.records, records) << size;
        ASSERT_EQ(earlier.end.kind, clean ? Kind::kEnd : Kind::kCorrupt) << size;
    }
}

TEST(WalSegmentReader, EveryFlippedByteIsFoundAndIsDamageWhereALaterSyncProvesIt) {
    const Segment segment = three_batches();
    for (std::size_t at = kSegmentHeaderBytes; at < segment.bytes.size(); ++at) {
        std::uint64_t begin = 0;
        const std::size_t hit = whole_records(segment, at, begin);
        bool proven = false;
        for (std::size_t i = hit + 1; i < segment.offsets.size(); ++i)
            proven = proven || segment.durables[i] > begin;
        for (const int flip : {0x01, 0x80, 0xff}) {
            std::string bytes = segment.bytes;
            bytes[at] = static_cast<char>(bytes[at] ^ flip);
            const Reading last = read(segment, bytes, true);
            ASSERT_EQ(last.records, hit) << at;
            ASSERT_EQ(last.end.offset, begin) << at;
            ASSERT_EQ(last.end.kind, proven ? Kind::kCorrupt : Kind::kTorn) << at;
            ASSERT_EQ(read(segment, bytes, false).end.kind, Kind::kCorrupt) << at;
        }
    }
}

TEST(WalSegmentReader, ALostSectorOfTheLastBatchIsATornTailThoughSoundRecordsFollow) {
    Segment segment;
    segment.add(1, std::string(400, 'a'));
    segment.synced();
    const std::size_t batch = segment.bytes.size();
    for (int i = 0; i < 40; ++i)
        segment.add(1, std::string(100, 'b'));
    for (std::size_t sector = 512; sector + 512 < segment.bytes.size(); sector += 512) {
        std::string bytes = segment.bytes;
        bytes.replace(sector, 512, 512, '\0');
        const Reading reading = read(segment, bytes);
        EXPECT_EQ(reading.end.kind, Kind::kTorn) << sector;
        EXPECT_GE(reading.end.offset, batch);
        EXPECT_LE(reading.end.offset, sector + 512);
    }
}

TEST(WalSegmentReader, ALostSectorOfASyncedBatchIsDamage) {
    Segment segment;
    for (int i = 0; i < 40; ++i)
        segment.add(1, std::string(100, 'b'));
    segment.synced();
    segment.add(1, "later");
    for (std::size_t sector = 512; sector + 512 < segment.offsets.back(); sector += 512) {
        std::string bytes = segment.bytes;
        bytes.replace(sector, 512, 512, '\0');
        const Reading reading = read(segment, bytes);
        EXPECT_EQ(reading.end.kind, Kind::kCorrupt) << sector;
        EXPECT_EQ(reading.end.proof, segment.offsets.back());
    }
}

TEST(WalSegmentReader, ZerosBehindTheRecordsAreUnusedSpace) {
    const Segment segment = three_batches();
    for (const std::size_t zeros : {1, 7, 8, 24, 512, 100'000}) {
        for (const bool last : {true, false}) {
            const Reading reading = read(segment, segment.bytes + std::string(zeros, '\0'), last);
            EXPECT_EQ(reading.end.kind, Kind::kEnd) << zeros;
            EXPECT_EQ(reading.end.offset, segment.bytes.size());
            EXPECT_EQ(reading.records, segment.offsets.size());
        }
    }
    const std::string garbage = segment.bytes + std::string(4096, '\0') + "x";
    EXPECT_EQ(read(segment, garbage, true).end.kind, Kind::kTorn);
    EXPECT_EQ(read(segment, garbage, false).end.kind, Kind::kCorrupt);
}

TEST(WalSegmentReader, AnEmptySegmentEndsWhereItBegins) {
    const Segment segment;
    EXPECT_EQ(read(segment, segment.bytes).end.kind, Kind::kEnd);
    EXPECT_EQ(read(segment, segment.bytes).end.offset, kSegmentHeaderBytes);
}

TEST(WalSegmentReader, ARecordCountsOnlyInItsPlace) {
    const Segment segment = three_batches();
    Segment other(3);  // what another file with the same records held at the same offsets
    other.add(1, "");
    other.add(2, "seven b");
    std::string bytes = segment.bytes;
    bytes.replace(segment.offsets[1], 32, other.bytes, segment.offsets[1], 32);
    EXPECT_EQ(read(segment, bytes).end.offset, segment.offsets[1]);

    bytes = segment.bytes;  // the same record one place further
    bytes.replace(segment.offsets[5], 32, segment.bytes, segment.offsets[1], 32);
    EXPECT_EQ(read(segment, bytes).end.offset, segment.offsets[5]);
}

TEST(WalSegmentReader, APayloadFullOfRecordsProvesNothing) {
    Segment segment;
    segment.add(1, "first");
    segment.add(1, three_batches().bytes);  // ids and all
    std::string bytes = segment.bytes;
    bytes[segment.offsets[0] + 25] ^= 1;
    EXPECT_EQ(read(segment, bytes).end.kind, Kind::kTorn);
}

}  // namespace
}  // namespace outrider::wal
