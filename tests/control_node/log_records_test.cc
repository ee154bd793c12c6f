#include "control/node/log_records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace outrider::node {
namespace {

using raft::Entry;
using raft::LogIndex;

raft::ConfigurationRef founders() {
    return std::make_shared<const raft::Configuration>(raft::Configuration{{{{1}, true, "a=h:1"}}});
}

Identity identity() {
    return {11, {1}, "a", "name", founders()};
}

class Replay : public testing::Test {
  protected:
    void add(RecordType type, const std::string& payload) {
        const auto added = replay_.add(static_cast<std::uint8_t>(type), payload);
        ASSERT_TRUE(added.ok()) << added.error();
    }
    Result<void> add_entry(std::uint64_t term, std::uint64_t index) {
        Entry entry;
        entry.term = {term};
        entry.index = {index};
        std::string payload;
        encode(entry, scratch_, payload);
        return replay_.add(static_cast<std::uint8_t>(RecordType::kEntry), payload);
    }
    void entries(std::uint64_t term, std::uint64_t first, std::uint64_t last) {
        for (std::uint64_t i = first; i <= last; ++i)
            ASSERT_TRUE(add_entry(term, i).ok());
    }
    std::string finished() {
        auto state = replay_.finish();
        if (!state) return state.error();
        std::string out = "snapshot " + std::to_string(state->snapshot.index.value) + " term " +
                          std::to_string(state->hard_state.term.value) + ":";
        for (const Entry& entry : state->entries)
            out += " " + std::to_string(entry.index.value) + "." + std::to_string(entry.term.value);
        return out;
    }

    LogReplay replay_;
    proto::Entry scratch_;
};

TEST_F(Replay, OfNothingIsAnEmptyDirectory) {
    const auto state = replay_.finish();
    ASSERT_TRUE(state.ok());
    EXPECT_FALSE(state->identity);
}

TEST_F(Replay, KeepsTheIdentity) {
    add(RecordType::kIdentity, encode(identity()));
    const auto state = replay_.finish();
    ASSERT_TRUE(state.ok());
    ASSERT_TRUE(state->identity);
    EXPECT_EQ(state->identity->cluster_id, 11U);
    EXPECT_EQ(state->identity->name, "a");
    EXPECT_EQ(state->identity->cluster, "name");
    EXPECT_EQ(*state->identity->founders, *founders());
    EXPECT_EQ(*state->snapshot.configuration, *founders());
}

TEST_F(Replay, TheLastHardStateCounts) {
    add(RecordType::kIdentity, encode(identity()));
    add(RecordType::kHardState, encode(raft::HardState{{3}, {1}}));
    add(RecordType::kHardState, encode(raft::HardState{{5}, {}}));
    entries(5, 1, 3);
    EXPECT_EQ(finished(), "snapshot 0 term 5: 1.5 2.5 3.5");
}

TEST_F(Replay, TruncationAndReplacementCutTheEnd) {
    add(RecordType::kIdentity, encode(identity()));
    entries(1, 1, 9);
    add(RecordType::kTruncation, encode_truncation({6}));
    entries(2, 7, 8);
    entries(3, 5, 5);
    EXPECT_EQ(finished(), "snapshot 0 term 3: 1.1 2.1 3.1 4.1 5.3");
}

TEST_F(Replay, AnOwnSnapshotTakesThePlaceOfEntries) {
    add(RecordType::kIdentity, encode(identity()));
    entries(1, 1, 9);
    add(RecordType::kSnapshot, encode(raft::SnapshotMeta{{6}, {1}, founders()}, false));
    entries(1, 10, 11);
    EXPECT_EQ(finished(), "snapshot 6 term 1: 7.1 8.1 9.1 10.1 11.1");
}

TEST_F(Replay, AnInstalledSnapshotTakesThePlaceOfEverything) {
    add(RecordType::kIdentity, encode(identity()));
    entries(1, 1, 9);
    add(RecordType::kSnapshot, encode(raft::SnapshotMeta{{6}, {2}, founders()}, true));
    EXPECT_EQ(finished(), "snapshot 6 term 2:");
}

TEST_F(Replay, OldSegmentsMayBeGone) {
    entries(1, 50, 60);
    add(RecordType::kIdentity, encode(identity()));
    add(RecordType::kHardState, encode(raft::HardState{{1}, {1}}));
    add(RecordType::kSnapshot, encode(raft::SnapshotMeta{{55}, {1}, founders()}, false));
    EXPECT_EQ(finished(), "snapshot 55 term 1: 56.1 57.1 58.1 59.1 60.1");
}

TEST_F(Replay, AGapIsAnError) {
    add(RecordType::kIdentity, encode(identity()));
    entries(1, 1, 3);
    const auto added = add_entry(1, 6);
    ASSERT_FALSE(added.ok());
    EXPECT_THAT(added.error(), testing::HasSubstr("entries 4 to 5 are missing"));
}

TEST_F(Replay, AGapBehindTheSnapshotIsAnError) {
    entries(1, 50, 60);
    add(RecordType::kIdentity, encode(identity()));
    add(RecordType::kSnapshot, encode(raft::SnapshotMeta{{40}, {1}, founders()}, false));
    EXPECT_THAT(finished(), testing::HasSubstr("entries 41 to 49 are missing"));
}

TEST_F(Replay, RefusesANewerFormatAndSaysWhatToDo) {
    proto::Identity newer;
    ASSERT_TRUE(newer.ParseFromString(encode(identity())));
    newer.set_format(kDataFormat + 1);
    const auto added =
        replay_.add(static_cast<std::uint8_t>(RecordType::kIdentity), newer.SerializeAsString());
    ASSERT_FALSE(added.ok());
    EXPECT_THAT(added.error(), testing::HasSubstr("start it with the newer outrider"));
    EXPECT_FALSE(replay_.add(99, "").ok());
}

}  // namespace
}  // namespace outrider::node
