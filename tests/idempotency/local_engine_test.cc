// A local store on a disk that is full, fails, is locked, or holds what it does not know.
#include "idempotency/local_engine.h"

#include <gtest/gtest.h>

#include "base/wal/wal.h"
#include "tests/idempotency/engine_fixture.h"
#include "tests/idempotency/log_text.h"
#include "tests/wal/virtual_disk.h"

namespace outrider::idempotency::test {
namespace {
using namespace std::chrono_literals;
using policy::Forward;
using policy::KeyPhase;
using policy::OutcomeUnknown;
using policy::Replay;
using policy::StoreFailed;

class LocalEngineTest : public testing::Test {
  protected:
    wal::VirtualDisk disk_{3};
    EngineOnDisk store_{disk_};

    void start() { ASSERT_EQ(store_.start(), ""); }
    void restart() {
        store_.stop();
        disk_.power_loss();
        start();
    }
    policy::Owner claim(std::uint64_t key) {
        const Reply reply = store_.ask(key);
        const auto* forward = verdict_in<Forward>(reply);
        EXPECT_NE(forward, nullptr);
        return forward != nullptr ? forward->owner : policy::Owner{};
    }
    bool durable(const Reply& reply) { return std::get<SettledReply>(reply.what).durable; }
    bool answer(std::uint64_t key, const policy::Owner& owner, std::string body) {
        return durable(store_.tell(key, owner, Answered{{200, response(std::move(body))}}));
    }
};

TEST_F(LocalEngineTest, WhatWasAnsweredIsThereAfterAPowerFailure) {
    start();
    EXPECT_TRUE(answer(1, claim(1), "one"));
    claim(2);
    const policy::Owner third = claim(3);
    EXPECT_TRUE(durable(store_.tell(3, third, Released{})));
    restart();
    const Reply done = store_.ask(1);
    ASSERT_NE(verdict_in<Replay>(done), nullptr);
    EXPECT_EQ(verdict_in<Replay>(done)->response->body, "one");
    ASSERT_NE(verdict_in<OutcomeUnknown>(store_.ask(2)), nullptr);
    EXPECT_NE(verdict_in<Forward>(store_.ask(3)), nullptr);
}

TEST_F(LocalEngineTest, AReplayDoesNotTouchTheDisk) {
    start();
    EXPECT_TRUE(answer(1, claim(1), "one"));
    const std::uint64_t before = disk_.sync_calls();
    disk_.faults.write_error = 1;
    for (int i = 0; i < 100; ++i)
        EXPECT_NE(verdict_in<Replay>(store_.ask(1)), nullptr);
    EXPECT_EQ(disk_.sync_calls(), before);
}

TEST_F(LocalEngineTest, WithoutSyncARoundDoesNotWaitForTheDisk) {
    store_.settings.sync = config::SyncMode::kNone;
    start();
    const std::uint64_t before = disk_.sync_calls();
    EXPECT_TRUE(answer(1, claim(1), "one"));
    EXPECT_EQ(disk_.sync_calls(), before);
    store_.engine->finish();
    restart();
    EXPECT_NE(verdict_in<Replay>(store_.ask(1)), nullptr) << "an orderly end syncs";
}

TEST_F(LocalEngineTest, AFullDiskRefusesClaimsAndIsWrittenAgainWhenThereIsSpace) {
    start();
    const policy::Owner owner = claim(1);
    disk_.capacity = 0;
    EXPECT_FALSE(answer(1, owner, std::string(300 << 10, 'x')));  // beyond what is written ahead
    EXPECT_FALSE(store_.engine->status().ok);
    EXPECT_NE(store_.engine->status().problem.find("No space left"), std::string::npos)
        << store_.engine->status().problem;
    EXPECT_GT(store_.errors.value(), 0u);
    EXPECT_NE(verdict_in<Replay>(store_.ask(1)), nullptr) << "memory knows it";
    // Until nothing fits any more.
    bool refused = false;
    for (std::uint64_t key = 100; key < 5000 && !refused; ++key)
        refused = verdict_in<StoreFailed>(store_.ask(key)) != nullptr;
    EXPECT_TRUE(refused);
    disk_.capacity = UINT64_MAX;
    store_.pass_time(2s);
    EXPECT_TRUE(store_.engine->status().ok) << store_.engine->status().problem;
    EXPECT_EQ(store_.engine->rounds().unwritten(), 0u);
    claim(5000);
    restart();
    const Reply reply = store_.ask(1);
    ASSERT_NE(verdict_in<Replay>(reply), nullptr) << "the answer that could not be written was written later";
    EXPECT_EQ(verdict_in<Replay>(reply)->response->body.size(), std::size_t{300} << 10);
}

TEST_F(LocalEngineTest, ADiskThatIsNearlyFullDoesNotFillTheApplicationLog) {
    const LogText log;
    start();
    disk_.capacity = 300 << 10;  // claims fit, large answers do not
    const auto flap = [&](std::uint64_t key) {
        EXPECT_FALSE(answer(key, claim(key), std::string(300 << 10, 'x')));
    };
    for (std::uint64_t key = 1; key <= 50; ++key)
        flap(key);
    EXPECT_EQ(log.count("new keys are refused"), 1u) << log.text();
    EXPECT_LE(log.count("can be written again"), 1u) << log.text();
    store_.time += LocalLog::kQuiet;
    flap(51);
    EXPECT_EQ(log.count("new keys are refused"), 2u) << log.text();
}

TEST_F(LocalEngineTest, AfterAFailedSyncTheLogIsOpenedAnewAndNothingConfirmedIsLost) {
    start();
    const policy::Owner owner = claim(1);
    disk_.faults.sync_error = 1;
    EXPECT_NE(verdict_in<StoreFailed>(store_.ask(2)), nullptr);
    disk_.faults.sync_error = 0;
    EXPECT_NE(verdict_in<StoreFailed>(store_.ask(3)), nullptr) << "nothing is accepted until it is opened";
    EXPECT_FALSE(answer(1, owner, "one"));
    EXPECT_FALSE(store_.engine->status().ok);
    store_.pass_time(LocalLog::kReopenFirst);
    claim(2);
    EXPECT_TRUE(store_.engine->status().ok) << store_.engine->status().problem;
    store_.pass_time(2s);
    restart();
    EXPECT_NE(verdict_in<Replay>(store_.ask(1)), nullptr);
    EXPECT_NE(verdict_in<OutcomeUnknown>(store_.ask(2)), nullptr);
    EXPECT_NE(verdict_in<Forward>(store_.ask(3)), nullptr);
}

TEST_F(LocalEngineTest, ReopeningIsTriedLessAndLessOften) {
    start();
    disk_.faults.sync_error = 1;
    EXPECT_NE(verdict_in<StoreFailed>(store_.ask(1)), nullptr);
    const std::uint64_t before = disk_.sync_calls();
    store_.pass_time(1h);
    EXPECT_LT(disk_.sync_calls() - before, 200u);
    EXPECT_GT(disk_.sync_calls() - before, 20u);
    disk_.faults.sync_error = 0;
    store_.pass_time(LocalLog::kReopenMax);
    claim(1);
}

TEST_F(LocalEngineTest, ALogThatLostWhatItHadConfirmedIsNotUsed) {
    start();
    claim(1);
    disk_.faults.sync_error = 1;
    EXPECT_NE(verdict_in<StoreFailed>(store_.ask(2)), nullptr);
    disk_.faults.sync_error = 0;
    for (const std::string& path : disk_.paths())
        if (path.ends_with(".wal")) disk_.erase(path);
    store_.pass_time(10min);
    EXPECT_NE(store_.engine->status().problem.find("lost records"), std::string::npos)
        << store_.engine->status().problem;
    EXPECT_NE(verdict_in<StoreFailed>(store_.ask(2)), nullptr);
}

TEST_F(LocalEngineTest, ExpiredKeysLeaveNoMoreThanTwoSegments) {
    store_.policy.window = 60s;
    start();
    std::uint64_t segments_max = 0;
    for (std::uint64_t key = 0; key < 3000; ++key) {
        answer(key, claim(key), "a body");
        segments_max = std::max(segments_max, store_.engine->status().segments);
        store_.time += 20ms;
    }
    EXPECT_GT(segments_max, 10u);
    store_.pass_time(2min);
    EXPECT_LE(store_.engine->status().segments, 2u);
    EXPECT_EQ(store_.engine->status().done, 0u);
    EXPECT_FALSE(store_.engine->next_due().has_value());
    restart();
    EXPECT_EQ(store_.engine->status().done, 0u);
}

TEST_F(LocalEngineTest, AFewKeysThatLiveLongDoNotHoldTheWholeLog) {
    store_.settings.max_memory = {1 << 20};
    start();
    store_.policy.window = 24h * 30;
    for (std::uint64_t key = 0; key < 5; ++key)
        EXPECT_TRUE(answer(key, claim(key), "long"));
    store_.policy.window = 1min;
    std::uint64_t disk_max = 0;
    for (std::uint64_t key = 100; key < 20'000; ++key) {
        EXPECT_TRUE(answer(key, claim(key), "short"));
        disk_max = std::max(disk_max, store_.engine->status().disk_bytes);
        store_.time += 1s;
    }
    EXPECT_LT(disk_max, 6 * store_.settings.segment_bytes.value + 2 * store_.settings.max_memory.value);
    restart();
    for (std::uint64_t key = 0; key < 5; ++key)
        EXPECT_NE(verdict_in<Replay>(store_.ask(key)), nullptr);
}

TEST_F(LocalEngineTest, ALogWithoutALiveKeyIsBegunAnew) {
    store_.settings.segment_bytes = {64 << 20};
    store_.policy.window = 1min;
    start();
    for (std::uint64_t key = 0; key < 40; ++key)
        answer(key, claim(key), std::string(100 << 10, 'x'));
    EXPECT_GT(store_.engine->status().disk_bytes, 3u << 20);
    store_.pass_time(2min);
    EXPECT_LT(store_.engine->status().disk_bytes, 1u << 20);
    EXPECT_EQ(store_.engine->status().segments, 1u);
}

TEST_F(LocalEngineTest, AMillionExpiriesDoNotStopService) {
    store_.settings.kind = config::StoreKind::kMemory;
    store_.policy.window = 60s;
    start();
    std::vector<Question> questions;
    for (std::uint64_t key = 0; key < 20'000; ++key)
        questions.push_back(
            {{1, 0}, Ask{digest(key), digest(99), store_.policy, {key + 1}, Instant(store_.time)}});
    for (std::size_t taken = 0; taken < questions.size();) {
        std::vector<Reply> replies;
        taken += store_.engine->round(std::span(questions).subspan(taken), replies);
    }
    const std::size_t all = store_.engine->rounds().bytes();
    store_.time += 1h;
    store_.round({});
    EXPECT_GT(store_.engine->rounds().bytes(), all / 2) << "one round takes a few of them";
    store_.pass_time(1s);
    EXPECT_EQ(store_.engine->rounds().bytes(), 0u);
}

TEST_F(LocalEngineTest, AForgetThatIsNotDurableIsAnError) {
    start();
    answer(1, claim(1), "one");
    disk_.faults.sync_error = 1;
    std::vector<Reply> replies;
    EXPECT_FALSE(store_.engine->forget(digest(1), replies));
    disk_.faults.sync_error = 0;
    store_.pass_time(5s);
    restart();
    EXPECT_NE(verdict_in<Forward>(store_.ask(1)), nullptr) << "written later";
}

// Opening
// ---------------------------------------------------------------------------------------------------------

TEST_F(LocalEngineTest, ADirectoryInUseIsTriedForASecondAndThenNamed) {
    const auto lock = disk_.lock("/log/store.lock");
    const std::string error = store_.start();
    EXPECT_NE(error.find("is another outrider using it?"), std::string::npos) << error;
    EXPECT_EQ(store_.paused, Duration(1s));
}

TEST_F(LocalEngineTest, APredecessorThatIsNotQuiteGoneIsWaitedFor) {
    auto lock = disk_.lock("/log/lock");
    auto opened = LocalEngine::open(store_.settings, {.files = &disk_,
                                                      .clock = [] { return Instant(1s); },
                                                      .wall = {1},
                                                      .pause = [&](Duration) { lock.lock.reset(); }});
    EXPECT_TRUE(opened.ok());
}

TEST_F(LocalEngineTest, ARecordOfAnotherVersionIsNotGuessedAt) {
    for (const std::uint8_t type : {std::uint8_t{1}, std::uint8_t{9}}) {
        SCOPED_TRACE(static_cast<int>(type));
        store_.settings.path = "/log" + std::to_string(type);
        {
            auto log = wal::Wal::open(disk_, store_.settings.path, {}, [](const wal::Entry&) {});
            ASSERT_TRUE(log.ok());
            const wal::Record record{type, "\x77 what a later version wrote"};
            ASSERT_TRUE((*log)->append({&record, 1}).ok());
            ASSERT_TRUE((*log)->sync().ok());
        }
        const std::string error = store_.start();
        EXPECT_NE(error.find("version of outrider that wrote it"), std::string::npos) << error;
        EXPECT_NE(error.find("store test: "), std::string::npos) << error;
    }
}

TEST_F(LocalEngineTest, AClockThatWasSetFarBackKeepsAKeyForOneWindowMore) {
    start();
    answer(1, claim(1), "one");
    const Duration before = store_.time;
    store_.time -= 24h * 30;
    restart();
    EXPECT_NE(verdict_in<Replay>(store_.ask(1)), nullptr);
    store_.pass_time(61min);
    EXPECT_NE(verdict_in<Forward>(store_.ask(1)), nullptr);
    store_.time = before + 24h * 3650;
    restart();
    EXPECT_NE(verdict_in<Forward>(store_.ask(1)), nullptr);
}

}  // namespace
}  // namespace outrider::idempotency::test
