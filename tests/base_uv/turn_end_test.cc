// What is done once at the end of a turn, and sockets that a library reads itself.
#include <array>
#include <functional>
#include <memory>

#include "base/uv/poll.h"
#include "tests/base_uv/loop_fixture.h"

namespace outrider::uv {
namespace {

using http::test::LoopRun;

struct Hook final : TurnEnd {
    explicit Hook(std::function<void()> f) : run(std::move(f)) {}
    void on_turn_end() override { run(); }
    std::function<void()> run;
};

// A hook that runs does not end the poll that follows.
bool soon(LoopRun& run, const std::function<bool()>& holds) {
    return run.until([&] {
        run.loop().post([] {});
        return holds();
    });
}

TEST(TurnEnd, RunsOnceAfterAllEventsOfItsTurn) {
    LoopRun run;
    int ran = 0;
    int events = 0;
    Hook hook([&] {
        ++ran;
        EXPECT_EQ(events, 3);
    });
    for (int i = 0; i < 3; ++i) {
        run.loop().post([&] {
            ++events;
            run.loop().add_turn_end(hook);
        });
    }
    ASSERT_TRUE(soon(run, [&] { return ran != 0; }));
    run.settle();
    EXPECT_EQ(ran, 1);
}

TEST(TurnEnd, WhatATimerAddsDoesNotWaitForAnotherEvent) {
    LoopRun run;
    bool ran = false;
    Hook hook([&] {
        ran = true;
        run.loop().post([] {});  // the test sees it after the poll
    });
    run.in_event(
        [&] { run.loop().after(std::chrono::milliseconds(1), [&] { run.loop().add_turn_end(hook); }); });
    const Instant before = read_clock();
    ASSERT_TRUE(run.until([&] { return ran; }));
    EXPECT_LT(read_clock() - before, std::chrono::seconds(5));
}

TEST(TurnEnd, OneThatIsGoneDoesNotRunAndOneMayAddAnother) {
    LoopRun run;
    bool second_ran = false;
    auto gone = std::make_unique<Hook>([] { ADD_FAILURE(); });
    Hook second([&] { second_ran = true; });
    Hook first([&] {
        gone.reset();
        run.loop().add_turn_end(second);
    });
    run.in_event([&] {
        run.loop().add_turn_end(first);
        run.loop().add_turn_end(*gone);
    });
    ASSERT_TRUE(soon(run, [&] { return second_ran; }));
}

struct Watcher final : Poll::Handler {
    void on_readable() override {
        ++readable;
        if (drop) poll.reset();
    }
    void on_writable() override { ++writable; }
    std::unique_ptr<Poll> poll;
    int readable = 0;
    int writable = 0;
    bool drop = false;
};

TEST(Poll, TellsWhatIsAskedForAndMayGoFromWithin) {
    LoopRun run;
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()), 0);
    Watcher watcher;
    watcher.poll = std::move(Poll::open(run.loop(), ends[0], watcher).value());
    watcher.poll->watch(true, false);
    run.settle();
    EXPECT_EQ(watcher.readable + watcher.writable, 0);
    watcher.poll->watch(true, true);
    ASSERT_TRUE(run.until([&] { return watcher.writable != 0; }));
    watcher.drop = true;
    ASSERT_EQ(::write(ends[1], "x", 1), 1);
    ASSERT_TRUE(run.until([&] { return watcher.readable != 0; }));
    const int writable = watcher.writable;
    run.settle();
    EXPECT_EQ(watcher.readable, 1);
    EXPECT_EQ(watcher.writable, writable);
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST(Poll, ARefusedConnectionIsNoticed) {
    LoopRun run;
    const int listening = http::test::listen_on_loopback();
    const SocketAddress address = local_address(listening);
    ::close(listening);
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    ::connect(fd, address.raw(), address.size());
    Watcher watcher;
    watcher.poll = std::move(Poll::open(run.loop(), fd, watcher).value());
    watcher.poll->watch(true, true);
    EXPECT_TRUE(run.until([&] { return watcher.readable != 0 && watcher.writable != 0; }));
    watcher.poll.reset();
    ::close(fd);
}

}  // namespace
}  // namespace outrider::uv
