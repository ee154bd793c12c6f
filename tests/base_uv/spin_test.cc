// Polling before sleeping, on a loop: what its next poll would do is asked of libuv. When is tests/base/spin_policy_test.cc's.
#include "tests/base_uv/loop_fixture.h"

namespace outrider::uv {
namespace {

using http::test::LoopRun;
using namespace std::chrono_literals;

// One turn with an event in it; true when the poll behind it would not sleep.
bool polls_after_an_event(LoopRun& run) {
    run.in_event([] {});
    run.loop().post([] {});
    uv_run(run.loop().raw(), UV_RUN_ONCE);
    // Decided before the poll of the turn that follows the event.
    uv_run(run.loop().raw(), UV_RUN_NOWAIT);
    return uv_backend_timeout(run.loop().raw()) == 0;
}

TEST(LoopSpin, PollsOnlyWhileAnAnswerIsAwaited) {
    LoopRun run;
    run.loop().spin(1h);
    EXPECT_FALSE(polls_after_an_event(run));
    run.loop().answer_awaited();
    EXPECT_TRUE(polls_after_an_event(run));
    run.loop().answer_awaited();
    run.loop().answer_ended();
    EXPECT_TRUE(polls_after_an_event(run)) << "one is left";
    run.in_event([&] { run.loop().answer_ended(); });
    EXPECT_FALSE(polls_after_an_event(run));
}

TEST(LoopSpin, SleepsByDefaultAndWhenSwitchedOff) {
    LoopRun run;
    run.loop().answer_awaited();
    EXPECT_FALSE(polls_after_an_event(run));
    run.loop().spin(1h);
    EXPECT_TRUE(polls_after_an_event(run));
    run.loop().spin(0s);
    EXPECT_FALSE(polls_after_an_event(run));
}

TEST(LoopSpin, ATimerStillFiresMeanwhile) {
    LoopRun run;
    run.loop().spin(1h);
    run.loop().answer_awaited();
    bool fired = false;
    run.in_event([&] { run.loop().after(5ms, [&] { fired = true; }); });
    EXPECT_TRUE(run.until([&] { return fired; }));
}

TEST(LoopSpin, SleepsWhenItsTimeIsSpent) {
    LoopRun run;
    run.loop().spin(1ms);
    run.loop().answer_awaited();
    run.in_event([] {});
    // Without an event polling ends by itself; UV_RUN_NOWAIT never sleeps, so this counts turns, not time.
    EXPECT_TRUE(run.until([&] {
        uv_run(run.loop().raw(), UV_RUN_NOWAIT);
        return uv_backend_timeout(run.loop().raw()) != 0;
    }));
}

}  // namespace
}  // namespace outrider::uv
