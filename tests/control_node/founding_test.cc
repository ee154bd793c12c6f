#include "control/node/founding.h"

#include <gtest/gtest.h>

namespace outrider::node {
namespace {

raft::Configuration founders(std::uint64_t count) {
    raft::Configuration out;
    for (std::uint64_t i = 1; i <= count; ++i)
        out.members.push_back({{i}, true, "n" + std::to_string(i) + "=h:1"});
    return out;
}

Identity identity(std::uint64_t count) {
    return {11, {1}, "n1", "", std::make_shared<const raft::Configuration>(founders(count))};
}

LogReplay::State nothing(const Identity& of) {
    LogReplay::State out;
    out.identity = of;
    out.snapshot = {{}, {}, of.founders};
    return out;
}

TEST(Founding, BeginsWithNothingButTheFounders) {
    const Identity three = identity(3);
    EXPECT_TRUE(begins_founding(three, nothing(three)));
    LogReplay::State restored = nothing(three);  // of a backup
    restored.snapshot.index = {70};
    restored.snapshot.term = {4};
    restored.hard_state = {{4}, raft::kNoNode};
    EXPECT_TRUE(begins_founding(three, restored));
}

TEST(Founding, IsOverWithTheFirstVoteOrEntry) {
    const Identity three = identity(3);
    LogReplay::State voted = nothing(three);
    voted.hard_state = {{1}, {2}};
    EXPECT_FALSE(begins_founding(three, voted));
    LogReplay::State heard = nothing(three);
    heard.hard_state = {{1}, raft::kNoNode};
    EXPECT_FALSE(begins_founding(three, heard));
    LogReplay::State written = nothing(three);
    written.entries.resize(1);
    EXPECT_FALSE(begins_founding(three, written));
}

TEST(Founding, IsNotForOneThatIsAloneOrJoins) {
    const Identity alone = identity(1);
    EXPECT_FALSE(begins_founding(alone, nothing(alone)));
    const Identity joined = identity(0);
    EXPECT_FALSE(begins_founding(joined, nothing(joined)));
}

TEST(Founding, WaitsUntilEachOtherHasBeenAsked) {
    Founding three(founders(3), {1});
    EXPECT_FALSE(three.done());
    three.taken_by({2});
    EXPECT_FALSE(three.done());  // the third may know better
    three.not_reached({3});
    EXPECT_TRUE(three.done());
}

TEST(Founding, NeedsAMajorityThatTakesIt) {
    Founding five(founders(5), {1});
    for (const std::uint64_t away : {3, 4, 5})
        five.not_reached({away});
    five.taken_by({2});
    five.taken_by({2});
    EXPECT_FALSE(five.done());
    five.taken_by({4});  // it was there the second time
    EXPECT_TRUE(five.done());
}

TEST(Founding, OfNobodyReachedIsNotDone) {
    Founding two(founders(2), {1});
    two.not_reached({2});
    EXPECT_FALSE(two.done());
    two.taken_by({2});
    EXPECT_TRUE(two.done());
}

TEST(Founding, CountsMembersThatCameLater) {
    Founding three(founders(3), {1});
    three.not_reached({2});
    three.not_reached({3});
    three.taken_by({9});  // both others have been replaced since
    EXPECT_TRUE(three.done());
}

}  // namespace
}  // namespace outrider::node
