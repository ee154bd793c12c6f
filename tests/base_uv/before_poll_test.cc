#include <vector>

#include <gtest/gtest.h>

#include "tests/base_uv/loop_fixture.h"

namespace outrider::uv {
namespace {
using http::test::LoopRun;

TEST(BeforePoll, RunsAfterTheEventsOfATurnAndBeforeTheLoopSleeps) {
    LoopRun run;
    std::vector<int> order;
    int collected = 0;
    const auto hook = run.loop().before_poll([&] {
        if (collected == 0) return;
        order.push_back(-collected);
        collected = 0;
        run.loop().post([] {});  // or the loop would sleep, and the test with it
    });
    // Both of one turn, and what a timer does, of which no event follows that would end a sleep.
    run.loop().post([&] { order.push_back(++collected); });
    run.loop().post([&] { order.push_back(++collected); });
    ASSERT_TRUE(run.until([&] { return order.size() == 3; }));
    EXPECT_EQ(order, (std::vector<int>{1, 2, -2}));
    run.loop().after(std::chrono::milliseconds(1), [&] { ++collected; });
    ASSERT_TRUE(run.until([&] { return collected == 0 && order.size() == 4; }));
    EXPECT_EQ(order.back(), -1);
    run.loop().remove_before_poll(hook);
    run.in_event([&] { ++collected; });
    run.settle();
    EXPECT_EQ(collected, 1);
}

TEST(BeforePoll, HooksAreIndependent) {
    LoopRun run;
    int first = 0, second = 0;
    const auto a = run.loop().before_poll([&] { ++first; });
    const auto b = run.loop().before_poll([&] { ++second; });
    run.settle(3);
    EXPECT_EQ(first, second);
    run.loop().remove_before_poll(a);
    const int before = first;
    run.settle(3);
    EXPECT_EQ(first, before);
    EXPECT_GT(second, before);
    run.loop().remove_before_poll(b);
}

}  // namespace
}  // namespace outrider::uv
