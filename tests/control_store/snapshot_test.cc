#include "control/store/snapshot.h"

#include <gtest/gtest.h>

#include "tests/control_store/commands.h"

namespace outrider::store::test {
namespace {

// Large enough for several frames.
void fill(Driver& apply) {
    apply(LeaseGrantRequest{{7}, 60});
    apply(SessionOpenRequest{});
    for (int i = 0; i < 300; ++i)
        apply(put("key" + std::to_string(i % 200), std::string(2000, 'v'), i % 3 == 0 ? 7 : 0));
    apply(erase("key5"));
}

std::string error_of(const std::string& bytes) {
    SnapshotReader reader;
    if (const auto added = reader.add(bytes); !added) {
        EXPECT_EQ(reader.add("").error(), added.error()) << "an error stays";
        return added.error();
    }
    auto store = reader.finish();
    return store ? "" : store.error();
}

TEST(Snapshot, BringsEverythingBack) {
    Driver apply;
    fill(apply);
    const std::string bytes = snapshot(*apply.store);
    const auto copy = restore(bytes, 1000);
    ASSERT_NE(copy, nullptr);
    EXPECT_EQ(copy->applied_index(), apply.store->applied_index());
    EXPECT_EQ(copy->revision(), apply.store->revision());
    EXPECT_EQ(copy->leases().keys({7}), apply.store->leases().keys({7}));
    EXPECT_EQ(copy->sessions().all().size(), 1U);
    EXPECT_EQ(copy->history().size(), apply.store->history().size());
    EXPECT_EQ(snapshot(*copy), bytes);
}

TEST(Snapshot, OfAnEmptyStoreIsTheBytesThatTheHeaderSpecifies) {
    Store store;
    const std::string bytes = snapshot(store);
    const std::string header = std::string("H\x0bOUTRIDER-KV\x01\x00\x01\x00\x00\x00", 19);
    EXPECT_EQ(bytes.substr(0, 8), std::string("\x13\0\0\0\0\0\0\0", 8));
    EXPECT_EQ(bytes.substr(16, 19), header);
    EXPECT_EQ(bytes.substr(35, 8), std::string("\x02\0\0\0\1\0\0\0", 8));
    EXPECT_EQ(bytes.substr(51), std::string("E\x01"));
}

TEST(Snapshot, StoresThatGotTheSameByOtherWaysHaveTheSameBytes) {
    Driver one;
    fill(one);
    one(CompactRequest{one.store->revision()});
    Driver other;
    fill(other);
    other.store = restore(snapshot(*other.store));
    other(CompactRequest{other.store->revision()});
    EXPECT_EQ(snapshot(*one.store), snapshot(*other.store));
    EXPECT_EQ(one.store->hash(one.store->revision()), other.store->hash(other.store->revision()));
}

TEST(Snapshot, ACompactionUnderWayDoesNotChangeIt) {
    Driver apply;
    fill(apply);
    const std::string before = snapshot(*apply.store);
    SnapshotWriter writer(*apply.store);
    std::string bytes;
    ASSERT_TRUE(writer.next(bytes));
    apply(put("key0", "new"));
    apply(CompactRequest{apply.store->revision()});
    while (writer.next(bytes)) {
    }
    EXPECT_EQ(bytes, before);
}

TEST(Snapshot, ComesInFramesOfBoundedSize) {
    Driver apply;
    fill(apply);
    SnapshotWriter writer(*apply.store);
    std::size_t frames = 0;
    for (std::string frame; writer.next(frame); frame.clear()) {
        EXPECT_LE(frame.size(), kFrameHeaderBytes + kFrameBytes + 4096);
        ++frames;
    }
    EXPECT_GE(frames, 6U);
}

TEST(Snapshot, EveryFlippedByteIsFoundOut) {
    Driver apply;
    for (int i = 0; i < 20; ++i)
        apply(put("k" + std::to_string(i), "v"));
    const std::string bytes = snapshot(*apply.store);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        std::string damaged = bytes;
        damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
        EXPECT_NE(error_of(damaged), "") << "byte " << i;
    }
}

TEST(Snapshot, WhatIsCutShortMovedOrFollowedIsFoundOut) {
    Driver apply;
    fill(apply);
    SnapshotWriter writer(*apply.store);
    std::vector<std::string> frames;
    for (std::string frame; writer.next(frame); frame.clear())
        frames.push_back(frame);
    std::string all;
    std::string swapped;
    for (std::size_t i = 0; i < frames.size(); ++i) {
        EXPECT_NE(error_of(all), "") << "cut before frame " << i;
        all += frames[i];
        swapped += frames[i == 3 ? 4 : i == 4 ? 3 : i];
    }
    EXPECT_EQ(error_of(all), "");
    EXPECT_NE(error_of(all + "x"), "");
    EXPECT_NE(error_of(all + frames.back()), "");
    EXPECT_EQ(error_of(swapped), "snapshot, frame 3: another frame is in its place");
}

TEST(Hash, AgreesAmongMembersThatHaveAppliedMoreOrLess) {
    Driver one;
    fill(one);
    const Revision then = one.store->revision();
    const std::uint64_t hash = one.store->hash(then);
    one(put("key1", "changed"));
    one(erase("key2"));
    one(put("new", ""));
    EXPECT_EQ(one.store->hash(then), hash);
    EXPECT_NE(one.store->hash(one.store->revision()), hash);
}

}  // namespace
}  // namespace outrider::store::test
