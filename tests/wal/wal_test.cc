#include "base/wal/wal.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/wal/virtual_disk.h"

namespace outrider::wal {
namespace {

const std::string kDirectory = "d";
constexpr WalOptions kSmall{.segment_bytes = 4096, .preallocate_bytes = 0};

struct Recovered {
    std::unique_ptr<Wal> log;
    std::vector<std::string> records;
    std::string error;
};

Recovered open(FileSystem& files, const WalOptions& options = kSmall) {
    Recovered out;
    auto log = Wal::open(files, kDirectory, options, [&](const Entry& entry) {
        out.records.push_back(fmt::format("{}:{}:{}", entry.index.value, entry.type, entry.payload));
    });
    if (log) {
        out.log = std::move(*log);
    } else {
        out.error = log.error();
    }
    return out;
}

Result<Index> put(Wal& log, std::string_view payload, std::uint8_t type = 1) {
    const Record record{type, payload};
    return log.append({&record, 1});
}

void put_synced(Wal& log, std::string_view payload) {
    auto index = put(log, payload);
    ASSERT_TRUE(index) << index.error();
    auto synced = log.sync();
    ASSERT_TRUE(synced) << synced.error();
}

// Records of 1,000 bytes: four fit into a segment.
std::string kilobyte(int i) {
    std::string out = fmt::format("{:04}", i);
    out.resize(976, '.');
    return out;
}

std::vector<std::string> segments(const VirtualDisk& disk) {
    std::vector<std::string> out;
    for (const std::string& path : disk.paths())
        out.push_back(path.substr(path.find('/') + 1));
    return out;
}

TEST(Wal, WhatWasSyncedIsDeliveredInOrder) {
    VirtualDisk disk(1);
    {
        Recovered first = open(disk);
        ASSERT_TRUE(first.log) << first.error;
        EXPECT_TRUE(first.log->recovery().created);
        EXPECT_EQ(first.log->first_index(), Index{1});
        EXPECT_EQ(first.log->next_index(), Index{1});
        const std::vector<Record> batch{{1, "one"}, {2, ""}, {255, "three"}};
        EXPECT_EQ(*first.log->append(batch), Index{1});
        EXPECT_EQ(first.log->next_index(), Index{4});
        EXPECT_EQ(first.log->durable_index(), Index{1});
        ASSERT_TRUE(first.log->sync());
        EXPECT_EQ(first.log->durable_index(), Index{4});
        EXPECT_EQ(*first.log->append({}), Index{4});
    }
    disk.power_loss();
    const Recovered again = open(disk);
    ASSERT_TRUE(again.log) << again.error;
    EXPECT_EQ(again.records, (std::vector<std::string>{"1:1:one", "2:2:", "3:255:three"}));
    EXPECT_EQ(again.log->next_index(), Index{4});
    EXPECT_EQ(again.log->durable_index(), Index{4});
    EXPECT_EQ(again.log->recovery().records, 3u);
    EXPECT_FALSE(again.log->recovery().torn);
}

TEST(Wal, OneSyncCoversManyAppendsAndAnIdleOneIsFree) {
    VirtualDisk disk(1);
    const Recovered opened = open(disk);
    const std::uint64_t before = disk.sync_calls();
    for (int i = 0; i < 50; ++i)
        ASSERT_TRUE(put(*opened.log, "x"));
    ASSERT_TRUE(opened.log->sync());
    ASSERT_TRUE(opened.log->sync());
    EXPECT_EQ(disk.sync_calls() - before, 1u);
}

TEST(Wal, SegmentsFollowEachOtherAndAreReleasedWhole) {
    VirtualDisk disk(1);
    {
        const Recovered opened = open(disk);
        Wal& log = *opened.log;
        for (int i = 1; i <= 9; ++i)
            put_synced(log, kilobyte(i));
        EXPECT_EQ(segments(disk),
                  (std::vector<std::string>{"00000000000000000001.wal", "00000000000000000005.wal",
                                            "00000000000000000009.wal"}));
        EXPECT_EQ(log.disk_bytes(), disk.used());
        ASSERT_TRUE(log.release({8}));
        EXPECT_EQ(log.first_index(), Index{5});
        ASSERT_TRUE(log.release({9}));
        EXPECT_EQ(log.first_index(), Index{9});
        ASSERT_TRUE(log.release({100})) << "the last segment stays";
        EXPECT_EQ(log.segment_count(), 1u);
        EXPECT_EQ(log.disk_bytes(), disk.used());
        ASSERT_TRUE(log.rotate());
        ASSERT_TRUE(log.rotate()) << "an empty segment is not followed by another";
        ASSERT_TRUE(log.release({10}));
        EXPECT_EQ(log.disk_bytes(), kSegmentHeaderBytes);
    }
    disk.power_loss();
    const Recovered again = open(disk);
    ASSERT_TRUE(again.log) << again.error;
    EXPECT_TRUE(again.records.empty());
    EXPECT_EQ(again.log->first_index(), Index{10});
    EXPECT_EQ(*put(*again.log, "ten"), Index{10});
}

TEST(Wal, ABatchLargerThanASegmentGetsItsOwn) {
    VirtualDisk disk(1);
    const Recovered opened = open(disk);
    put_synced(*opened.log, "small");
    put_synced(*opened.log, std::string(10'000, 'x'));
    put_synced(*opened.log, "small");
    EXPECT_EQ(opened.log->segment_count(), 3u);
    EXPECT_FALSE(put(*opened.log, std::string(kPayloadBytesMax + 1, 'x')));
    EXPECT_FALSE(opened.log->failed());
}

TEST(Wal, SpaceIsWrittenAheadWithinASegmentAndGivenBackAtItsEnd) {
    VirtualDisk disk(1);
    const WalOptions options{.segment_bytes = 8192, .preallocate_bytes = 4096};
    {
        const Recovered opened = open(disk, options);
        EXPECT_EQ(opened.log->disk_bytes(), 4096u);
        for (int i = 1; i <= 5; ++i)
            put_synced(*opened.log, kilobyte(i));
        EXPECT_EQ(opened.log->disk_bytes(), 8192u);
        for (int i = 6; i <= 9; ++i)
            put_synced(*opened.log, kilobyte(i));
        EXPECT_EQ(disk.read("d/00000000000000000001.wal").size(), 48u + 8000u);
        EXPECT_EQ(opened.log->disk_bytes(), disk.used());
    }
    disk.power_loss();
    EXPECT_EQ(open(disk, options).records.size(), 9u);
}

TEST(Wal, TruncationLeavesExactlyTheRecordsUpToItsIndex) {
    for (std::uint64_t last = 0; last <= 13; ++last) {
        VirtualDisk disk(last);
        Recovered opened = open(disk);
        Wal& log = *opened.log;
        std::vector<std::string> expected;
        for (int i = 1; i <= 13; ++i) {
            put_synced(log, kilobyte(i));
            if (static_cast<std::uint64_t>(i) <= last)
                expected.push_back(fmt::format("{}:1:{}", i, kilobyte(i)));
        }
        auto truncated = log.truncate_after({last});
        ASSERT_TRUE(truncated) << truncated.error();
        EXPECT_EQ(log.next_index(), Index{last + 1});
        EXPECT_EQ(log.disk_bytes(), disk.used());
        // Once with and once without something in their place.
        for (const bool more : {false, true}) {
            if (more) {
                put_synced(log, "new");
                expected.push_back(fmt::format("{}:1:new", last + 1));
            }
            std::vector<std::string> scanned;
            ASSERT_TRUE(log.scan({1}, [&](const Entry& entry) {
                scanned.push_back(fmt::format("{}:{}:{}", entry.index.value, entry.type, entry.payload));
            }));
            EXPECT_EQ(scanned, expected);
        }
        opened.log.reset();
        disk.power_loss();
        const Recovered again = open(disk);
        ASSERT_TRUE(again.log) << again.error;
        EXPECT_EQ(again.records, expected) << "after " << last;
    }
}

TEST(Wal, TruncationKeepsToTheLog) {
    VirtualDisk disk(1);
    const Recovered opened = open(disk);
    for (int i = 1; i <= 9; ++i)
        put_synced(*opened.log, kilobyte(i));
    ASSERT_TRUE(opened.log->release({5}));
    EXPECT_TRUE(opened.log->truncate_after({100}));
    EXPECT_EQ(opened.log->next_index(), Index{10});
    EXPECT_EQ(opened.log->truncate_after({3}).error(),
              "write-ahead log: cannot truncate after record 3: the log begins with 5");
    EXPECT_FALSE(opened.log->failed());
    EXPECT_TRUE(opened.log->truncate_after({4}));
    EXPECT_EQ(opened.log->next_index(), Index{5});
}

TEST(Wal, AScanBeginsWhereItIsAsked) {
    VirtualDisk disk(1);
    const Recovered opened = open(disk);
    for (int i = 1; i <= 9; ++i)
        ASSERT_TRUE(put(*opened.log, kilobyte(i)));
    for (std::uint64_t from = 0; from <= 10; ++from) {
        std::vector<std::uint64_t> seen;
        ASSERT_TRUE(opened.log->scan({from}, [&](const Entry& entry) { seen.push_back(entry.index.value); }));
        const std::uint64_t first = std::max<std::uint64_t>(from, 1);
        ASSERT_EQ(seen.size(), 10 - first);
        EXPECT_EQ(seen.empty() ? first : seen.front(), first);
    }
}

TEST(Wal, AFullDiskTakesNothingOfABatchAndWorksAgainWithSpace) {
    for (const std::uint64_t room : {0, 1, 100, 700, 1023}) {
        VirtualDisk disk(1);
        Recovered opened = open(disk, {.segment_bytes = 65536, .preallocate_bytes = 0});
        put_synced(*opened.log, kilobyte(1));
        disk.capacity = disk.used() + room;
        const std::string large = kilobyte(2);
        const std::vector<Record> batch{{1, "lost"}, {1, large}};
        for (int i = 0; i < 3; ++i) {
            const auto refused = opened.log->append(batch);
            ASSERT_FALSE(refused);
            EXPECT_EQ(refused.error(),
                      "write-ahead log: cannot append to d/00000000000000000001.wal: "
                      "No space left on device");
            EXPECT_FALSE(opened.log->failed());
            EXPECT_EQ(opened.log->next_index(), Index{2});
            EXPECT_EQ(disk.used(), 48u + 1000u);
        }
        disk.capacity = UINT64_MAX;
        put_synced(*opened.log, "kept");
        opened.log.reset();
        disk.power_loss();
        const Recovered again = open(disk);
        EXPECT_EQ(again.records, (std::vector<std::string>{"1:1:" + kilobyte(1), "2:1:kept"}));
    }
}

TEST(Wal, AFullDiskThatHasNoRoomForASegmentLeavesTheOldOne) {
    VirtualDisk disk(1);
    Recovered opened = open(disk);
    for (int i = 1; i <= 4; ++i)
        put_synced(*opened.log, kilobyte(i));
    disk.capacity = disk.used() + 20;
    const auto refused = put(*opened.log, kilobyte(5));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error(),
              "write-ahead log: cannot create d/00000000000000000005.wal: No space left on device");
    EXPECT_FALSE(opened.log->failed());
    EXPECT_EQ(segments(disk).size(), 1u) << "nothing half made is left";
    disk.capacity = UINT64_MAX;
    put_synced(*opened.log, kilobyte(5));
    EXPECT_EQ(opened.log->segment_count(), 2u);
}

TEST(Wal, AFullDiskOpens) {
    VirtualDisk disk(1);
    Recovered opened = open(disk);
    put_synced(*opened.log, "x");
    opened.log.reset();
    disk.capacity = disk.used();
    const Recovered again = open(disk);
    ASSERT_TRUE(again.log) << again.error;
    EXPECT_EQ(again.records.size(), 1u);
}

TEST(Wal, SpaceThatCannotBeWrittenAheadIsNotMissed) {
    VirtualDisk disk(1);
    const WalOptions options{.segment_bytes = 65536, .preallocate_bytes = 8192};
    Recovered opened = open(disk, options);
    for (int i = 1; i <= 8; ++i)
        put_synced(*opened.log, kilobyte(i));
    disk.capacity = disk.used() + 1500;
    put_synced(*opened.log, kilobyte(9));
    EXPECT_FALSE(opened.log->failed());
    EXPECT_LE(disk.used(), disk.capacity);
}

TEST(Wal, AfterAFailedSyncNothingIsConfirmedUntilItIsOpenedAgain) {
    VirtualDisk disk(1);
    Recovered opened = open(disk);
    put_synced(*opened.log, "confirmed");
    ASSERT_TRUE(put(*opened.log, "not confirmed"));
    disk.faults.sync_error = 1;
    const auto failed = opened.log->sync();
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error(),
              "write-ahead log: cannot sync d/00000000000000000001.wal: Input/output error; "
              "nothing more is accepted until the log is opened anew");
    disk.faults = {};
    EXPECT_TRUE(opened.log->failed());
    EXPECT_EQ(opened.log->durable_index(), Index{2});
    EXPECT_EQ(opened.log->sync().error(), failed.error());
    EXPECT_EQ(put(*opened.log, "more").error(), failed.error());
    EXPECT_EQ(opened.log->rotate().error(), failed.error());
    EXPECT_EQ(opened.log->release({9}).error(), failed.error());
    EXPECT_EQ(opened.log->truncate_after({1}).error(), failed.error());
    opened.log.reset();
    const Recovered again = open(disk);
    ASSERT_TRUE(again.log) << again.error;
    EXPECT_FALSE(again.log->failed());
    EXPECT_EQ(again.records[0], "1:1:confirmed");
}

TEST(Wal, WhatIsDeliveredAfterAFailedSyncIsDurable) {
    // The pages that the failed sync left clean show a record that the disk has never got.
    int shown = 0;
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        VirtualDisk disk(seed);
        Recovered opened = open(disk);
        put_synced(*opened.log, "confirmed");
        ASSERT_TRUE(put(*opened.log, std::string(2000, 'x')));
        disk.faults.sync_error = 1;
        ASSERT_FALSE(opened.log->sync());
        disk.faults = {};
        opened.log.reset();
        Recovered again = open(disk);
        ASSERT_TRUE(again.log) << again.error;
        if (again.records.size() == 2) ++shown;
        const std::vector<std::string> told = again.records;
        again.log.reset();
        disk.power_loss();
        EXPECT_EQ(open(disk).records, told) << "seed " << seed;
    }
    EXPECT_GT(shown, 10);
}

TEST(Wal, ATornEndIsCutAndReported) {
    VirtualDisk disk(1);
    Recovered opened = open(disk);
    put_synced(*opened.log, "whole");
    put_synced(*opened.log, "torn");
    opened.log.reset();
    const std::string path = "d/00000000000000000001.wal";
    disk.put(path, disk.read(path).substr(0, 48 + 32 + 30));
    Recovered again = open(disk);
    ASSERT_TRUE(again.log) << again.error;
    EXPECT_EQ(again.records, std::vector<std::string>{"1:1:whole"});
    ASSERT_TRUE(again.log->recovery().torn);
    EXPECT_EQ(again.log->recovery().torn->file, path);
    EXPECT_EQ(again.log->recovery().torn->offset, 80u);
    EXPECT_EQ(again.log->recovery().torn->bytes, 30u);
    EXPECT_EQ(again.log->recovery().torn->reason, "the file ends within a record's payload");
    EXPECT_EQ(disk.read(path).size(), 80u);
    EXPECT_EQ(*put(*again.log, "again"), Index{2});
}

TEST(Wal, EveryCutOfTheLastSegmentOpensAndGoesOn) {
    VirtualDisk disk(1);
    {
        Recovered opened = open(disk);
        for (int i = 1; i <= 4; ++i)
            put_synced(*opened.log, kilobyte(i));
        for (int i = 0; i < 8; ++i)
            put_synced(*opened.log, fmt::format("record {}", i));
    }
    const std::string path = "d/00000000000000000005.wal";
    const std::string bytes = disk.read(path);
    const std::string sealed = disk.read("d/00000000000000000001.wal");
    for (std::size_t size = 0; size <= bytes.size(); ++size) {
        VirtualDisk copy(size);
        ASSERT_FALSE(copy.make_directory(kDirectory));
        copy.put("d/00000000000000000001.wal", sealed);
        copy.put(path, bytes.substr(0, size));
        Recovered opened = open(copy);
        if (size < kSegmentHeaderBytes) {
            ASSERT_EQ(opened.error,
                      "write-ahead log: d/00000000000000000005.wal: offset 0: the segment's header is cut");
            continue;
        }
        ASSERT_TRUE(opened.log) << size << ": " << opened.error;
        ASSERT_EQ(opened.records.size(), 4 + (size - kSegmentHeaderBytes) / 40) << size;
        const Index next = opened.log->next_index();
        put_synced(*opened.log, "more");
        opened.log.reset();
        copy.power_loss();
        const Recovered again = open(copy);
        ASSERT_EQ(again.records.size(), next.value) << size;
        ASSERT_EQ(again.records.back(), fmt::format("{}:1:more", next.value));
    }
}

TEST(Wal, TwoNeverShareADirectory) {
    VirtualDisk disk(1);
    const Recovered first = open(disk);
    EXPECT_EQ(open(disk).error, "write-ahead log: d is in use by another log; two must not share a log");
}

// A log of three segments with records 1-4, 5-8 and 9, each changed in one way.
class WalDamage : public testing::Test {
  protected:
    WalDamage() {
        Recovered opened = open(disk);
        for (int i = 1; i <= 9; ++i)
            put_synced(*opened.log, kilobyte(i));
        put_synced(*opened.log, "ten");
        put_synced(*opened.log, "eleven");
    }
    static std::string path(int index) { return fmt::format("d/{:020}.wal", index); }
    void flip(int index, std::size_t at) {
        std::string bytes = disk.read(path(index));
        bytes[at] = static_cast<char>(bytes[at] ^ 1);
        disk.put(path(index), bytes);
    }
    VirtualDisk disk{1};
};

TEST_F(WalDamage, InAnEarlierSegmentIsRefusedWithItsPlace) {
    flip(5, 48 + 1000 + 30);
    EXPECT_EQ(open(disk).error,
              "write-ahead log: d/00000000000000000005.wal: offset 1048: record 6 is damaged: a record "
              "payload's check is "
              "wrong, and a later segment exists");
}

TEST_F(WalDamage, BeforeALaterSyncIsRefusedWithItsPlace) {
    flip(9, 48 + 3);
    const std::string before = disk.read(path(9));
    EXPECT_EQ(open(disk).error,
              "write-ahead log: d/00000000000000000009.wal: offset 48: record 9 is damaged: a record "
              "header's check is "
              "wrong, and the record at offset 1048 was written after this one was durable");
    EXPECT_EQ(disk.read(path(9)), before) << "nothing is touched";
}

TEST_F(WalDamage, AnEarlierSegmentThatWasCutIsRefused) {
    const std::string bytes = disk.read(path(5));
    disk.put(path(5), bytes.substr(0, 2000));
    EXPECT_EQ(open(disk).error,
              "write-ahead log: d/00000000000000000005.wal: offset 1048: record 6 is damaged: the file ends "
              "within a "
              "record's payload, and a later segment exists");
    disk.put(path(5), bytes.substr(0, 1048));
    EXPECT_EQ(open(disk).error,
              "write-ahead log: d/00000000000000000009.wal: the segment begins with record 9, but "
              "d/00000000000000000005.wal ends before record 6: records are missing between them");
}

TEST_F(WalDamage, AMissingSegmentIsRefused) {
    disk.erase(path(5));
    EXPECT_EQ(open(disk).error,
              "write-ahead log: d/00000000000000000009.wal: the segment begins with record 9, but "
              "d/00000000000000000001.wal ends before record 5: records are missing between them");
}

TEST_F(WalDamage, ASegmentOfAnotherLogIsRefused) {
    VirtualDisk other(2);
    {
        Recovered opened = open(other);
        for (int i = 1; i <= 9; ++i)
            put_synced(*opened.log, kilobyte(i));
    }
    disk.put(path(9), other.read(path(9)));
    const std::string error = open(disk).error;
    EXPECT_NE(error.find("d/00000000000000000009.wal: offset 16: the segment belongs to another log ("),
              std::string::npos)
        << error;
}

TEST_F(WalDamage, ASegmentUnderAnotherNameIsRefused) {
    disk.put(path(8), disk.read(path(9)));
    disk.erase(path(9));
    EXPECT_EQ(open(disk).error,
              "write-ahead log: d/00000000000000000008.wal: offset 32: the segment begins with record 9, not "
              "as its name "
              "says");
    disk.erase(path(8));
    disk.put("d/9.wal", "");
    EXPECT_EQ(open(disk).error, "write-ahead log: d/9.wal: the name is no segment's (twenty digits)");
}

TEST_F(WalDamage, AnotherFormatVersionIsRefused) {
    std::string bytes = disk.read(path(1));
    bytes[8] = 7;
    disk.put(path(1), bytes);
    EXPECT_EQ(open(disk).error,
              "write-ahead log: d/00000000000000000001.wal: offset 0: the segment has format version 7; this "
              "program reads "
              "version 1");
}

TEST_F(WalDamage, FilesOfOthersAreLeftAloneAndHalfMadeSegmentsAreDeleted) {
    disk.put("d/notes", "hello");
    disk.put("d/00000000000000000012.wal.tmp", "half");
    const Recovered opened = open(disk);
    ASSERT_TRUE(opened.log) << opened.error;
    EXPECT_EQ(opened.records.size(), 11u);
    EXPECT_EQ(segments(disk),
              (std::vector<std::string>{"00000000000000000001.wal", "00000000000000000005.wal",
                                        "00000000000000000009.wal", "notes"}));
}

}  // namespace
}  // namespace outrider::wal
