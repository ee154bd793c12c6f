#include "control/node/identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace outrider::node {
namespace {

config::ControlSettings settings(const std::string& name) {
    config::ControlSettings out;
    out.name = name;
    out.data = "/data";
    out.peers = {{"a", {"h", 1}}, {"b", {"h", 2}}, {"c", {"h", 3}}};
    return out;
}

std::string refused(const config::ControlSettings& with, const Identity& identity,
                    const raft::Configuration& known) {
    const auto checked = check_identity(with, identity, known);
    return checked ? "" : checked.error();
}

TEST(Identity, FoundersAgreeOnEverybodysId) {
    const Identity a = found_identity(settings("a"));
    const Identity b = found_identity(settings("b"));
    EXPECT_EQ(a.cluster_id, b.cluster_id);
    EXPECT_EQ(*a.founders, *b.founders);
    EXPECT_NE(a.node, b.node);
    EXPECT_TRUE(a.founders->voter(a.node));
    EXPECT_TRUE(a.founders->voter(b.node));
    EXPECT_EQ(a.founders->voters(), 3U);
}

TEST(Identity, AnotherListOrNameIsAnotherCluster) {
    const std::uint64_t one = cluster_id_of(settings("a"));
    config::ControlSettings list = settings("a");
    list.peers.erase("c");
    EXPECT_NE(cluster_id_of(list), one);
    config::ControlSettings named = settings("a");
    named.cluster = "blue";
    EXPECT_NE(cluster_id_of(named), one);
    EXPECT_NE(cluster_id_of(settings("a"), 7), one);
}

TEST(Identity, AloneANodeFoundsAClusterOfOne) {
    config::ControlSettings alone;
    alone.name = "a";
    const Identity identity = found_identity(alone);
    ASSERT_EQ(identity.founders->members.size(), 1U);
    EXPECT_EQ(identity.founders->members[0].address, "a=127.0.0.1:2380");
}

TEST(Identity, MayOpenItsOwnData) {
    const Identity a = found_identity(settings("a"));
    EXPECT_EQ(refused(settings("a"), a, *a.founders), "");
}

TEST(Identity, RefusesAnotherNodesData) {
    const Identity b = found_identity(settings("b"));
    EXPECT_THAT(refused(settings("a"), b, *b.founders), testing::HasSubstr("holds the data of node b"));
}

TEST(Identity, RefusesAnotherClustersData) {
    config::ControlSettings other = settings("a");
    other.peers = {{"a", {"x", 1}}, {"d", {"x", 2}}};
    const Identity theirs = found_identity(settings("a"));
    // Its own name is at another address there.
    EXPECT_THAT(refused(other, theirs, *theirs.founders), testing::HasSubstr("a is at x:1"));
    config::ControlSettings named = settings("a");
    named.cluster = "blue";
    EXPECT_THAT(refused(named, theirs, *theirs.founders), testing::HasSubstr("control.cluster"));
    raft::Configuration strangers{{{{9}, true, "z=h:9"}}};
    EXPECT_THAT(refused(other, theirs, strangers), testing::HasSubstr("another cluster"));
}

TEST(Identity, TheListMayFollowTheMembersAndMayLagBehind) {
    const Identity a = found_identity(settings("a"));
    raft::Configuration now = *a.founders;
    std::erase_if(now.members, [](const raft::Member& m) { return m.address == "c=h:3"; });
    now.members.push_back({{~std::uint64_t{0}}, true, "d=h:4"});
    config::ControlSettings updated = settings("a");
    updated.peers = {{"a", {"h", 1}}, {"b", {"h", 2}}, {"d", {"h", 4}}};
    EXPECT_EQ(refused(updated, a, now), "");
    EXPECT_EQ(refused(updated, a, *a.founders), "");
    EXPECT_EQ(refused(settings("a"), a, now), "");
}

TEST(Identity, AWrongAddressIsToldWithTheRightOne) {
    const Identity a = found_identity(settings("a"));
    config::ControlSettings wrong = settings("a");
    wrong.peers["b"] = {"h", 22};
    EXPECT_THAT(refused(wrong, a, *a.founders),
                testing::AllOf(testing::HasSubstr("b is at h:22"), testing::HasSubstr("h:2:")));
}

TEST(MemberAddress, ComesBackAsItWas) {
    for (const MemberAddress& address : {MemberAddress{"a", "h:1", false}, MemberAddress{"", "[::1]:2", true},
                                         MemberAddress{"n", "h:3", true}}) {
        const MemberAddress back = parse_member_address(to_string(address));
        EXPECT_EQ(back.name, address.name);
        EXPECT_EQ(back.peer, address.peer);
        EXPECT_EQ(back.promote, address.promote);
    }
}

}  // namespace
}  // namespace outrider::node
