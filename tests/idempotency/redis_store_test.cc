// The Redis store against a real Redis: verdicts, waiting, and what it costs in writes.
#include <thread>

#include "tests/idempotency/redis_fixture.h"

namespace outrider::idempotency::test {
namespace {

using policy::Settled;

// An owner whose lease will soon pass. One that a slow machine lets pass before its owner hears of it makes none. Its key.
std::string own_briefly(Worker& worker, TestCall& call, policy::IdempotencyPolicy brief) {
    std::string key = "k";
    while (worker.asked(call, key, brief).as<policy::Forward>() == nullptr) {
        call = {};
        key += "k";
        brief.lease *= 2;
    }
    return key;
}

TEST(RedisStore, ForwardsTheFirstAndReplaysItsAnswer) {
    const RedisServer server;
    Worker worker(settings_for(server));
    TestCall first, second;
    worker.asked(first, "k");
    EXPECT_GT(first.owner().generation.value, 0u);
    const std::string binary("\0\r\n\xff body", 9);
    worker.settle(first, "k", answer(binary, 201));
    EXPECT_EQ(first.settled, Settled::kRecorded);
    EXPECT_TRUE(first.durable);
    const auto* replay = worker.asked(second, "k").as<policy::Replay>();
    ASSERT_NE(replay, nullptr);
    EXPECT_EQ(replay->status, 201);
    EXPECT_EQ(replay->response->body, binary);
    EXPECT_EQ(worker.errors.value(), 0u);
}

TEST(RedisStore, AnAnswerThatIsEmptyIsReplayedAndOneThatIsNotKeptConflicts) {
    const RedisServer server;
    Worker worker(settings_for(server));
    TestCall a, b, c, d;
    worker.settle(worker.asked(a, "empty"), "empty", answer("", 204));
    EXPECT_NE(worker.asked(b, "empty").as<policy::Replay>(), nullptr);
    worker.settle(worker.asked(c, "large"), "large", Answered{{200, nullptr}});
    EXPECT_EQ(c.settled, Settled::kRecordedWithoutAnswer);
    const auto* conflict = worker.asked(d, "large").as<policy::Conflict>();
    ASSERT_NE(conflict, nullptr);
    EXPECT_EQ(conflict->why, policy::ConflictWhy::kDoneNotReplayable);
    EXPECT_EQ(conflict->status, 200);
}

TEST(RedisStore, AnotherFingerprintIsAMismatch) {
    const RedisServer server;
    Worker worker(settings_for(server));
    TestCall a, b;
    worker.asked(a, "k");
    EXPECT_NE(worker.asked(b, "k", {}, "other").as<policy::Mismatch>(), nullptr);
}

TEST(RedisStore, WhatWasReleasedRunsAgainAndWhatWasCutIsUnknown) {
    const RedisServer server;
    Worker worker(settings_for(server));
    TestCall a, b, c, d;
    worker.settle(worker.asked(a, "k"), "k", Released{});
    EXPECT_EQ(a.settled, Settled::kReleased);
    worker.asked(b, "k");
    EXPECT_GT(b.owner().generation, a.owner().generation);
    worker.settle(b, "k", Cut{});
    EXPECT_EQ(b.settled, Settled::kUnknown);
    EXPECT_NE(worker.asked(c, "k").as<policy::OutcomeUnknown>(), nullptr);
    const auto* again =
        worker.asked(d, "k", {.on_unknown = policy::OnUnknown::kReexecute}).as<policy::Forward>();
    ASSERT_NE(again, nullptr);
    EXPECT_TRUE(again->reexecution);
}

TEST(RedisStore, AFormerOwnerChangesNothing) {
    const RedisServer server;
    Worker worker(settings_for(server));
    const policy::IdempotencyPolicy brief{.lease = 5ms, .on_unknown = policy::OnUnknown::kReexecute};
    TestCall a, b, c;
    const std::string key = own_briefly(worker, a, brief);
    while (b.as<policy::Forward>() == nullptr) {
        b = {};
        policy::IdempotencyPolicy conflict = brief;
        conflict.in_flight = policy::InFlightPolicy::kConflict;
        conflict.lease = 30s;
        worker.asked(b, key, conflict);
    }
    worker.settle(a, key, answer("late"));
    EXPECT_EQ(a.settled, Settled::kTooLate);
    worker.settle(b, key, answer("good"));
    EXPECT_EQ(worker.asked(c, key).as<policy::Replay>()->response->body, "good");
}

TEST(RedisStore, DuplicatesWaitAndGetTheAnswerOneQuestionForAll) {
    const RedisServer server;
    Worker worker(settings_for(server));
    Worker other(worker.shared);
    TestCall first;
    worker.asked(first, "k");
    std::array<TestCall, 20> waiting;
    for (TestCall& call : waiting)
        other.arrive(call, "k");
    ASSERT_TRUE(other.run.until([&] { return other.shared->waiting == waiting.size(); }));
    // The channel is heard, and the question after that is answered.
    ASSERT_TRUE(other.eventually([&] {
        return server.ask({"PUBSUB", "CHANNELS", "outrider:done:*"}).size() > 64;
    }));
    other.run.settle(50);
    EXPECT_EQ(server.ask({"CONFIG", "RESETSTAT"}), "OK");
    worker.settle(first, "k", answer("once"));
    ASSERT_TRUE(other.run.until([&] { return waiting.back().verdicts == 1; }));
    for (TestCall& call : waiting) {
        ASSERT_NE(call.as<policy::Replay>(), nullptr);
        EXPECT_EQ(call.as<policy::Replay>()->response->body, "once");
    }
    EXPECT_EQ(other.shared->waiting, 0u);
    // The settling one, and those who asked: one or two, not twenty.
    const std::string stats = server.ask({"INFO", "commandstats"});
    const std::string_view calls = "cmdstat_evalsha:calls=";
    ASSERT_NE(stats.find(calls), std::string::npos);
    EXPECT_LE(std::stoi(stats.substr(stats.find(calls) + calls.size())), 3);
}

TEST(RedisStore, ADuplicateOnAnotherThreadIsWoken) {
    const RedisServer server;
    const auto shared = std::make_shared<RedisShared>(settings_for(server));
    Worker worker(shared);
    TestCall first;
    worker.asked(first, "k");
    std::string got;
    std::thread thread([&] {
        Worker other(shared);
        TestCall second;
        other.asked(second, "k");
        if (const auto* replay = second.as<policy::Replay>()) got = replay->response->body;
    });
    ASSERT_TRUE(worker.eventually([&] { return shared->waiting == 1; }));
    worker.settle(first, "k", answer("woken"));
    thread.join();
    EXPECT_EQ(got, "woken");
}

TEST(RedisStore, AfterAReleaseTheFirstInLineRunsAndTheOthersWaitForIt) {
    const RedisServer server;
    Worker worker(settings_for(server));
    TestCall first;
    worker.asked(first, "k");
    std::array<TestCall, 3> waiting;
    for (TestCall& call : waiting)
        worker.arrive(call, "k");
    ASSERT_TRUE(worker.run.until([&] { return worker.shared->waiting == 3; }));
    worker.settle(first, "k", Released{});
    ASSERT_TRUE(worker.run.until([&] { return waiting[0].verdicts == 1; }));
    EXPECT_NE(waiting[0].as<policy::Forward>(), nullptr);
    EXPECT_EQ(worker.shared->waiting, 2u);
    worker.settle(waiting[0], "k", answer("second try"));
    ASSERT_TRUE(worker.run.until([&] { return waiting[2].verdicts == 1; }));
    EXPECT_NE(waiting[1].as<policy::Replay>(), nullptr);
    EXPECT_NE(waiting[2].as<policy::Replay>(), nullptr);
}

TEST(RedisStore, WhenTheLeasePassesThoseWhoWaitLearnThatItIsUnknown) {
    const RedisServer server;
    Worker worker(settings_for(server));
    TestCall first, second;
    const std::string key = own_briefly(worker, first, {.lease = 60ms});
    worker.asked(second, key);
    const auto* unknown = second.as<policy::OutcomeUnknown>();
    ASSERT_NE(unknown, nullptr);
    EXPECT_EQ(unknown->why, policy::UnknownWhy::kLeasePassed);
}

TEST(RedisStore, WaitingEndsAtItsTimeoutAtTheBoundAndWhenTheClientLeaves) {
    const RedisServer server;
    config::StoreSettings settings = settings_for(server);
    settings.max_waiting = 2;
    Worker worker(settings);
    TestCall first, slow, leaver, third;
    worker.asked(first, "k");
    worker.arrive(leaver, "k");
    worker.arrive(slow, "k", {.wait_timeout = 1500ms});
    ASSERT_TRUE(worker.run.until([&] { return worker.shared->waiting == 2; }));
    EXPECT_EQ(worker.asked(third, "k").as<policy::Conflict>()->why, policy::ConflictWhy::kInFlight);
    ASSERT_TRUE(worker.run.until([&] { return slow.verdicts == 1; }));
    EXPECT_EQ(slow.as<policy::Conflict>()->why, policy::ConflictWhy::kWaitedTooLong);
    worker.run.in_event([&] {
        leaver.inside = true;
        worker.client->leave(leaver);
        leaver.inside = false;
    });
    ASSERT_TRUE(worker.run.until([&] { return leaver.verdicts == 1; }));
    EXPECT_NE(leaver.as<policy::Conflict>(), nullptr);
    EXPECT_EQ(worker.shared->waiting, 0u);
}

TEST(RedisStore, WhoLeavesWhileItAsksForItsLineDoesNotHoldTheLineUp) {
    RedisServer server;
    Worker worker(settings_for(server));
    Worker other(worker.shared);
    TestCall first, leaver, second;
    worker.asked(first, "k");
    other.arrive(leaver, "k");
    ASSERT_TRUE(other.eventually([&] { return other.shared->waiting == 1; }));
    other.arrive(second, "k");
    ASSERT_TRUE(other.eventually([&] { return other.shared->waiting == 2; }));
    // The line asks by itself meanwhile, and whoever stands first has a question out.
    server.pause();
    const std::uint64_t writes = other.client->writes();
    ASSERT_TRUE(other.run.until([&] { return other.client->writes() > writes; }));
    other.run.in_event([&] { other.client->leave(leaver); });
    ASSERT_TRUE(other.run.until([&] { return leaver.verdicts == 1; }));
    server.resume();
    worker.settle(first, "k", answer("x"));
    ASSERT_TRUE(other.run.until([&] { return second.verdicts == 1; }));
    EXPECT_NE(second.as<policy::Replay>(), nullptr);
}

TEST(RedisStore, CommandsOfOneTurnShareOneWrite) {
    const RedisServer server;
    Worker worker(settings_for(server));
    std::array<TestCall, 50> calls;
    const std::uint64_t before = worker.client->writes();
    worker.run.in_event([&] {
        for (std::size_t i = 0; i < calls.size(); ++i)
            worker.client->arrive(calls[i], digest(std::to_string(i)), digest("f"), {},
                                  worker.run.loop().now());
    });
    ASSERT_TRUE(worker.run.until([&] { return calls.back().verdicts == 1; }));
    EXPECT_EQ(worker.client->writes() - before, 1u);
}

TEST(RedisStore, ScriptsThatRedisForgotAreSentAgain) {
    const RedisServer server;
    Worker worker(settings_for(server));
    EXPECT_EQ(server.ask({"SCRIPT", "FLUSH"}), "OK");
    TestCall a, b;
    worker.asked(a, "k");
    worker.settle(a, "k", answer("x"));
    EXPECT_EQ(a.settled, Settled::kRecorded);
    EXPECT_NE(worker.asked(b, "k").as<policy::Replay>(), nullptr);
    EXPECT_EQ(worker.errors.value(), 0u);
}

TEST(RedisStore, OperatorsLookAtAKeyAndForgetIt) {
    const RedisServer server;
    Worker worker(settings_for(server));
    const auto store = make_redis_store(settings_for(server), worker.run.loop(), worker.cells());
    TestCall first;
    worker.settle(worker.asked(first, "k"), "k", answer("12345", 202));
    std::optional<Result<KeyView>> seen;
    std::optional<Result<policy::Forgotten>> forgotten, again;
    std::optional<StoreStatus> status;
    worker.run.in_event([&] { store->look(digest("k"), [&](auto view) { seen.emplace(std::move(view)); }); });
    ASSERT_TRUE(worker.run.until([&] { return seen.has_value(); }));
    ASSERT_TRUE(seen->ok()) << seen->error();
    EXPECT_EQ(seen->value().phase, policy::KeyPhase::kDone);
    EXPECT_EQ(seen->value().status, 202);
    EXPECT_TRUE(seen->value().replayable);
    EXPECT_EQ(seen->value().answer_bytes, 6u);
    EXPECT_EQ(seen->value().expires.unix_micros - seen->value().claimed.unix_micros, 24 * 3'600'000'000LL);
    worker.run.in_event([&] {
        store->forget(digest("k"), [&](auto said) { forgotten.emplace(std::move(said)); });
        store->forget(digest("k"), [&](auto said) { again.emplace(std::move(said)); });
        store->status([&](StoreStatus said) { status = std::move(said); });
    });
    ASSERT_TRUE(worker.run.until([&] { return status && forgotten && again; }));
    EXPECT_EQ(forgotten->value(), policy::Forgotten::kForgotten);
    EXPECT_EQ(again->value(), policy::Forgotten::kAbsent);
    EXPECT_TRUE(status->ok) << status->problem;
}

TEST(RedisStore, KeysExpireInRedisAtTheEndOfTheirWindow) {
    const RedisServer server;
    Worker worker(settings_for(server));
    TestCall first;
    worker.asked(first, "k", {.window = 60s, .lease = 30s});
    const long long left = std::stoll(server.ask({"PTTL", "outrider:" + digest("k").hex()}));
    EXPECT_GT(left, 50'000);
    EXPECT_LE(left, 60'000);
}

}  // namespace
}  // namespace outrider::idempotency::test
