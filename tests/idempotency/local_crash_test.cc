// The promise across crashes, failing disks and full ones: whatever a seed does to the disk and wherever the machine stops,
//   * a key that was forwarded is not forwarded again in its window, unless its release was reported
//   * an answer that was reported as recorded is replayed, and no other one
//   * a key whose release was confirmed, or that was never forwarded, is free
// (free: while the disk works; "never forwarded" may read as unknown when the machine stopped while its claim was written).
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "idempotency/local_engine.h"
#include "tests/idempotency/engine_fixture.h"
#include "tests/wal/virtual_disk.h"

namespace outrider::idempotency::test {
namespace {
using namespace std::chrono_literals;
using policy::Forward;
using policy::OutcomeUnknown;
using policy::Replay;
using policy::StoreFailed;

struct Seen {
    std::uint64_t forwarded = 0, replayed = 0, unknown = 0, refused = 0, waited = 0, crashes = 0,
                  undurable = 0;
};

class Model {
  public:
    Model(std::uint64_t seed, std::uint64_t keys, Seen& seen)
        : disk(seed), store(disk), random_(seed * 7 + 1), key_count_(keys), seen_(seen) {
        store.settings.segment_bytes = {8 << 10};
        store.settings.max_memory = {1 << 20};
        store.settings.sync = config::SyncMode::kGroup;
        store.policy = {.window = 1000h, .lease = 100h, .wait_timeout = 1h};
    }

    wal::VirtualDisk disk;
    EngineOnDisk store;

    // Some questions of several clients in one round, and what they are told.
    void round() {
        std::vector<Question> questions;
        const std::uint64_t count = 1 + random_.below(6);
        for (std::uint64_t i = 0; i < count; ++i) {
            if (random_.below(2) == 0 || owners_.empty()) {
                const std::uint64_t key = random_.below(key_count_);
                asked_.emplace(next_slot_, key);
                questions.push_back(
                    {{1, next_slot_++},
                     Ask{digest(key), digest(99), store.policy, {next_slot_}, Instant(store.time)}});
            } else {
                questions.push_back(report());
            }
        }
        store.time += 100ms;
        for (const Reply& reply : store.round(std::move(questions)))
            hear(reply);
    }

    void crash() {
        ++seen_.crashes;
        store.stop();
        disk.power_loss();
        disk.faults = {};
        disk.capacity = UINT64_MAX;
        owners_.clear();
        asked_.clear();
        told_.clear();
        ASSERT_EQ(store.start(), "");
    }

    void check_all() {
        for (auto& [key, known] : keys_) {
            SCOPED_TRACE("key " + std::to_string(key));
            const Reply reply = store.ask(key);
            if (known.done) {
                const auto* replay = verdict_in<Replay>(reply);
                ASSERT_NE(replay, nullptr) << "a recorded answer is lost";
                EXPECT_EQ(replay->response->body, *known.done);
            } else if (known.forwarded) {
                EXPECT_EQ(verdict_in<Forward>(reply), nullptr) << "executed twice";
            }
            if (const auto* forward = verdict_in<Forward>(reply)) {
                EXPECT_FALSE(known.forwarded);
                const Reply released = store.tell(key, forward->owner, Released{});
                EXPECT_TRUE(std::get<SettledReply>(released.what).durable);
                known = {};
            } else if (known.free) {
                ADD_FAILURE() << "a key that was released is not free";
            }
        }
    }

    std::size_t parked() const { return asked_.size(); }

    // Everything under way ends; a working disk is given.
    void finish() {
        store.pass_time(2min);
        while (!owners_.empty()) {
            std::vector<Question> questions;
            questions.push_back(report());
            for (const Reply& reply : store.round(std::move(questions)))
                hear(reply);
        }
        store.time += 2h;  // beyond wait_timeout
        for (const Reply& reply : store.round({}))
            hear(reply);
        EXPECT_TRUE(asked_.empty()) << "questions without a reply";
        EXPECT_TRUE(told_.empty()) << "reports without a reply";
    }

  private:
    struct Known {
        bool forwarded = false;           // and its release was not reported
        bool free = false;                // released, durably
        std::optional<std::string> done;  // confirmed
    };
    struct Report_ {
        std::uint64_t key = 0;
        std::optional<std::string> body;
        bool released = false;
    };

    Question report() {
        const std::size_t at = random_.below(owners_.size());
        const auto [key, owner] = owners_[at];
        owners_.erase(owners_.begin() + static_cast<std::ptrdiff_t>(at));
        Report_ told{key, {}, false};
        Report what = Cut{};
        const std::uint64_t choice = random_.below(4);
        if (choice < 2) {
            told.body = std::to_string(++answers_) + std::string(random_.below(700), 'x');
            what = Answered{{200, response(*told.body)}};
        } else if (choice == 2) {
            told.released = true;
            what = Released{};
            // From here on another may run, whether the store hears of it or not.
            keys_[key].forwarded = false;
        }
        told_.emplace(next_slot_, told);
        return {{1, next_slot_++}, Tell{digest(key), owner, std::move(what)}};
    }

    void hear(const Reply& reply) {
        const std::uint32_t slot = reply.ticket.slot;
        if (const auto* settled = std::get_if<SettledReply>(&reply.what)) {
            ASSERT_EQ(told_.count(slot), 1u);
            const Report_ told = told_.at(slot);
            told_.erase(slot);
            Known& known = keys_[told.key];
            if (!settled->durable) ++seen_.undurable;
            if (told.body && settled->durable && settled->settled == policy::Settled::kRecorded)
                known.done = told.body;
            if (told.released && settled->durable && !known.forwarded) known.free = true;
            return;
        }
        ASSERT_EQ(asked_.count(slot), 1u) << "answered twice";
        const std::uint64_t key = asked_.at(slot);
        asked_.erase(slot);
        Known& known = keys_[key];
        if (reply.parked > Duration(0)) ++seen_.waited;
        if (const auto* forward = verdict_in<Forward>(reply)) {
            EXPECT_FALSE(known.forwarded) << "key " << key << " is executed twice";
            EXPECT_FALSE(known.done.has_value());
            known = {.forwarded = true, .free = false, .done = {}};
            owners_.emplace_back(key, forward->owner);
            ++seen_.forwarded;
        } else if (const auto* replay = verdict_in<Replay>(reply)) {
            EXPECT_EQ(replay->response->body, known.done.value_or(replay->response->body));
            known.free = false;
            ++seen_.replayed;
        } else if (verdict_in<StoreFailed>(reply) != nullptr) {
            known.free = false;  // its claim may be in the log when the machine stops
            ++seen_.refused;
        } else {
            if (verdict_in<OutcomeUnknown>(reply) != nullptr) ++seen_.unknown;
        }
    }

    Random random_;
    const std::uint64_t key_count_;
    Seen& seen_;
    std::uint32_t next_slot_ = 0;
    std::uint64_t answers_ = 0;
    std::map<std::uint64_t, Known> keys_;
    std::map<std::uint32_t, std::uint64_t> asked_;
    std::map<std::uint32_t, Report_> told_;
    std::vector<std::pair<std::uint64_t, policy::Owner>> owners_;
};

// The same rounds, stopped at each change that they make on the disk.
TEST(LocalCrash, TheMachineMayStopAtEveryPoint) {
    Seen seen;
    bool died = true;
    std::uint64_t changes = 1;
    for (; died; ++changes) {
        SCOPED_TRACE("change " + std::to_string(changes));
        Model model(11, 80, seen);
        ASSERT_EQ(model.store.start(), "");
        model.disk.die_after(changes);
        for (int i = 0; i < 150 && !model.disk.dead(); ++i)
            model.round();
        died = model.disk.dead();
        model.crash();
        model.check_all();
        if (testing::Test::HasFailure()) return;
    }
    EXPECT_GT(changes, 100u);
    EXPECT_GT(seen.replayed, 0u);
    EXPECT_GT(seen.waited, 0u);
}

TEST(LocalCrash, AnyDiskKeepsThePromise) {
    Seen seen;
    for (std::uint64_t seed = 1; seed <= 300; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        Model model(seed, 12 + seed % 50, seen);
        Random random(seed);
        ASSERT_EQ(model.store.start(), "");
        for (int life = 0; life < 4; ++life) {
            model.disk.faults = {.short_write = random.below(3) * 20,
                                 .write_error = random.below(3) * 20,
                                 .sync_error = random.below(3) * 30,
                                 .directory_sync_error = random.below(2) * 10,
                                 .name_error = random.below(2) * 10};
            for (int i = 0; i < 80; ++i) {
                // The disk is full for a while.
                if (random.below(20) == 0)
                    model.disk.capacity = random.below(2) == 0 ? model.disk.used() : UINT64_MAX;
                if (random.below(10) == 0)
                    model.store.pass_time(std::chrono::milliseconds(random.below(3000)));
                model.round();
            }
            if (life == 3) break;
            model.crash();
            model.check_all();
            if (testing::Test::HasFailure()) return;
        }
        model.disk.faults = {};
        model.disk.capacity = UINT64_MAX;
        model.finish();
        model.crash();
        model.check_all();
        if (testing::Test::HasFailure()) return;
    }
    EXPECT_GT(seen.forwarded, 1000u);
    EXPECT_GT(seen.replayed, 1000u);
    EXPECT_GT(seen.unknown, 100u);
    EXPECT_GT(seen.refused, 100u);
    EXPECT_GT(seen.waited, 100u);
    EXPECT_GT(seen.undurable, 100u);
}

}  // namespace
}  // namespace outrider::idempotency::test
