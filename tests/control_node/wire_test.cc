#include "control/node/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace outrider::node {
namespace {

using namespace raft;  // NOLINT

ConfigurationRef three() {
    return std::make_shared<const Configuration>(
        Configuration{{{{1}, true, "a=h:1"}, {{2}, true, "b=h:2"}, {{3}, false, "=h:3"}}});
}

Entry command(std::uint64_t index) {
    Entry entry;
    entry.term = {4};
    entry.index = {index};
    entry.type = EntryType::kCommand;
    entry.command = {77, 5, std::make_shared<const std::string>("data\0more", 9)};
    return entry;
}

Entry configuration(std::uint64_t index) {
    Entry entry;
    entry.term = {4};
    entry.index = {index};
    entry.type = EntryType::kConfiguration;
    entry.configuration = three();
    return entry;
}

std::string print(const Message& message) {
    proto::RaftMessage out;
    to_proto(message, out);
    return out.ShortDebugString();
}

Message through(const Message& message) {
    proto::RaftMessage out;
    to_proto(message, out);
    std::string bytes;
    out.SerializeToString(&bytes);
    proto::RaftMessage in;
    EXPECT_TRUE(in.ParseFromString(bytes));
    auto back = from_proto(in, message.from, message.to);
    EXPECT_TRUE(back.ok());
    return std::move(*back);
}

TEST(Wire, EveryMessageComesBackAsItWas) {
    const Instant at(Duration(123'456'789));
    Entry noop;
    noop.term = {3};
    noop.index = {9};
    const SnapshotMeta meta{{40}, {3}, three()};
    const std::vector<Body> bodies{
        VoteRequest{true, false, {8}, {2}},
        VoteRequest{false, true, {8}, {2}},
        VoteResponse{true, true, {9}},
        AppendRequest{{8}, {2}, {noop, command(10), configuration(11)}, {7}},
        AppendResponse{true, {8}, {6}, {2}},
        Heartbeat{{7}, 99, at},
        HeartbeatResponse{99, at},
        SnapshotChunk{meta, 512, std::make_shared<const std::string>("bytes"), true},
        SnapshotResponse{{40}, 1024},
        TimeoutNow{},
        ReadRequest{5},
        ReadResponse{5, true, {6}},
        StaleTerm{},
    };
    static_assert(std::variant_size_v<Body> == 12, "a new message needs a line above");
    for (const Body& body : bodies) {
        const Message message{{1}, {2}, {4}, body};
        const Message back = through(message);
        EXPECT_EQ(back.body.index(), body.index());
        EXPECT_EQ(back.from, message.from);
        EXPECT_EQ(back.to, message.to);
        EXPECT_EQ(print(back), print(message));
    }
}

TEST(Wire, RefusesConfigurationsThatCannotBe) {
    proto::Configuration unsorted;
    unsorted.add_members()->set_id(2);
    unsorted.add_members()->set_id(1);
    EXPECT_FALSE(from_proto(unsorted).ok());
    proto::Configuration nobody;
    nobody.add_members();
    EXPECT_FALSE(from_proto(nobody).ok());
    proto::Configuration many;
    for (std::uint64_t i = 1; i <= kMembersMax + 1; ++i)
        many.add_members()->set_id(i);
    EXPECT_FALSE(from_proto(many).ok());
}

TEST(Wire, RefusesWhatItDoesNotKnow) {
    proto::RaftMessage empty;
    EXPECT_FALSE(from_proto(empty, {1}, {2}).ok());
    proto::Entry entry;
    entry.set_type(9);
    EXPECT_FALSE(from_proto(entry).ok());
}

}  // namespace
}  // namespace outrider::node
