// The scripts against filters/policy/idempotency.cc: random sequences on few keys, in a time that the test sets, must give the same
// verdicts and leave the same state.
#include <hiredis/hiredis.h>

#include "base/random.h"
#include "tests/idempotency/redis_fixture.h"

namespace outrider::idempotency::test {
namespace {

using namespace policy;

constexpr std::uint64_t kEpoch = 1'700'000'000'000'000;  // microseconds

class Scripts {
  public:
    explicit Scripts(const RedisServer& server)
        : context_(redisConnect("127.0.0.1", server.port()), redisFree), scripts("m:") {}

    std::unique_ptr<redisReply, void (*)(redisReply*)> ask(const std::string& command) {
        redisAppendFormattedCommand(context_.get(), command.data(), command.size());
        void* reply = nullptr;
        EXPECT_EQ(redisGetReply(context_.get(), &reply), REDIS_OK) << context_->errstr;
        return {static_cast<redisReply*>(reply), [](redisReply* each) { freeReplyObject(each); }};
    }

  private:
    std::unique_ptr<redisContext, void (*)(redisContext*)> context_;

  public:
    RedisScripts scripts;
};

class Twin {
  public:
    Twin(const RedisServer& server, std::uint64_t seed) : random_(seed), redis_(server) {}

    void step() {
        now_ += std::chrono::milliseconds(random_.below(3) == 0 ? random_.below(30'000) : random_.below(200));
        redis_.scripts.now_micros =
            kEpoch +
            static_cast<std::uint64_t>(
                std::chrono::duration_cast<std::chrono::microseconds>(now_.time_since_epoch()).count());
        const std::size_t key = random_.below(keys_.size());
        const std::uint64_t choice = random_.below(20);
        if (choice < 10) {
            arrives(key);
        } else if (choice < 18) {
            settles(key);
        } else {
            forgets(key);
        }
        looks(key);
    }

    std::array<std::uint64_t, 12> seen{};

  private:
    struct Key {
        KeyState state;
        std::vector<Owner> owners;
    };

    static Digest digest_of(std::size_t key) { return digest(std::to_string(key)); }

    void arrives(std::size_t number) {
        Key& key = keys_[number];
        const Digest fingerprint = digest(random_.below(8) == 0 ? "other" : "same");
        const IdempotencyPolicy policy{
            .window = std::chrono::seconds(40),
            .lease = std::chrono::seconds(random_.below(4) == 0 ? 60 : 10),
            .in_flight = InFlightPolicy::kWait,
            .wait_timeout = std::chrono::hours(1),
            .on_unknown = random_.below(2) == 0 ? OnUnknown::kReject : OnUnknown::kReexecute};
        const OwnerToken token{random_.next()};
        const Arrival arrival{fingerprint, token, now_, now_};
        const Instant lease_end = key.state.lease_end;
        const ArrivalStep expected = arrive(key.state, arrival, policy, {next_});
        redis_.scripts.arrive(command_,
                              {digest_of(number), fingerprint, token, policy.lease, policy.window,
                               policy.on_unknown == OnUnknown::kReexecute},
                              ScriptBy::kText);
        const ArriveReply got = read_arrive(*redis_.ask(command_));
        ++seen[got.index()];
        if (const auto* forward = std::get_if<Forward>(&expected.verdict)) {
            const auto* claim = std::get_if<Claimed>(&got);
            ASSERT_NE(claim, nullptr) << got.index();
            ASSERT_EQ(claim->generation.value, next_++);
            ASSERT_EQ(claim->reexecution, forward->reexecution);
            key.owners.push_back(forward->owner);
        } else if (std::holds_alternative<Wait>(expected.verdict)) {
            const auto* found = std::get_if<InFlight>(&got);
            ASSERT_NE(found, nullptr) << got.index();
            ASSERT_EQ(found->lease_left, lease_end - now_);
        } else if (std::holds_alternative<Mismatch>(expected.verdict)) {
            ASSERT_TRUE(std::holds_alternative<Mismatch>(got)) << got.index();
        } else {
            const auto verdict = common_verdict(got, now_);
            ASSERT_TRUE(verdict.has_value()) << got.index();
            ASSERT_EQ(verdict->index(), expected.verdict.index());
            if (const auto* replay = std::get_if<Replay>(&expected.verdict)) {
                ASSERT_EQ(*std::get_if<Replay>(&*verdict)->response, *replay->response);
                ASSERT_EQ(std::get_if<Replay>(&*verdict)->status, replay->status);
            } else if (const auto* unknown = std::get_if<OutcomeUnknown>(&expected.verdict)) {
                ASSERT_EQ(std::get_if<OutcomeUnknown>(&*verdict)->why, unknown->why);
                ASSERT_EQ(std::get_if<OutcomeUnknown>(&*verdict)->until, unknown->until);
            } else {
                ASSERT_EQ(std::get_if<Conflict>(&*verdict)->status,
                          std::get_if<Conflict>(&expected.verdict)->status);
            }
        }
    }

    void settles(std::size_t number) {
        Key& key = keys_[number];
        if (key.owners.empty()) return;
        // Mostly the last one, which may have reported already; at times a former one.
        Owner owner =
            random_.below(4) == 0 ? key.owners[random_.below(key.owners.size())] : key.owners.back();
        Report report;
        OwnerStep expected;
        const std::uint64_t choice = random_.below(6);
        if (choice < 3) {
            Answered said = answer(
                std::string(random_.below(3) == 0 ? 100 : 0, '\xfe') + "\0" + std::to_string(random_.next()),
                random_.below(3) == 0 ? 503 : 200);
            if (random_.below(3) == 0) said.answer.response = nullptr;
            if (random_.below(2) == 0) said.record = RecordAnswers::kBelow500;
            expected = answered(key.state, owner, said.answer, said.record, now_);
            report = std::move(said);
        } else if (choice < 4) {
            expected = released(key.state, owner, now_);
            report = Released{};
        } else {
            expected = cut(key.state, owner, now_);
            report = Cut{};
        }
        if (std::holds_alternative<Released>(report) && random_.below(2) == 0) owner.generation = {};
        redis_.scripts.settle(command_, {digest_of(number), owner, report, false}, ScriptBy::kText);
        const auto got = read_settle(*redis_.ask(command_));
        ASSERT_TRUE(std::holds_alternative<Settled>(got)) << std::get_if<RedisFailure>(&got)->error;
        ASSERT_EQ(*std::get_if<Settled>(&got), expected.settled);
        ++seen[7 + static_cast<std::size_t>(expected.settled)];
        // Asked again without having heard the reply, it says the same and changes nothing.
        if (expected.settled == Settled::kTooLate) return;
        redis_.scripts.settle(command_, {digest_of(number), owner, report, true}, ScriptBy::kText);
        const auto again = read_settle(*redis_.ask(command_));
        ASSERT_EQ(*std::get_if<Settled>(&again), expected.settled);
    }

    void forgets(std::size_t number) {
        const Forgotten expected = forget(keys_[number].state, now_);
        redis_.scripts.forget(command_, digest_of(number), ScriptBy::kText);
        const auto got = read_forget(*redis_.ask(command_));
        ASSERT_TRUE(std::holds_alternative<Forgotten>(got)) << std::get_if<RedisFailure>(&got)->error;
        ASSERT_EQ(*std::get_if<Forgotten>(&got), expected);
    }

    void looks(std::size_t number) {
        KeyState state = keys_[number].state;
        lapse(state, now_);
        if (state.phase != KeyPhase::kAbsent && state.expired(now_)) state = KeyState{};
        redis_.scripts.look(command_, digest_of(number), ScriptBy::kText);
        const auto got = read_look(*redis_.ask(command_));
        ASSERT_TRUE(std::holds_alternative<KeyView>(got)) << std::get_if<RedisFailure>(&got)->error;
        const KeyView& view = *std::get_if<KeyView>(&got);
        ASSERT_EQ(view.phase, state.phase);
        if (state.phase == KeyPhase::kAbsent) return;
        ASSERT_EQ(view.generation, state.owner.generation.value);
        ASSERT_EQ(
            view.expires.unix_micros - view.claimed.unix_micros,
            std::chrono::duration_cast<std::chrono::microseconds>(state.expires - state.claimed).count());
        if (state.phase == KeyPhase::kUnknown) {
            ASSERT_EQ(view.why, state.why);
        }
        if (state.phase == KeyPhase::kDone) {
            ASSERT_EQ(view.status, state.status);
            ASSERT_EQ(view.replayable, state.response != nullptr);
        }
    }

    Random random_;
    Scripts redis_;
    Instant now_{};
    std::uint64_t next_ = 1;
    std::string command_;
    std::array<Key, 4> keys_;
};

TEST(RedisModel, TheScriptsDoWhatThePolicyDoes) {
    const RedisServer server;
    std::array<std::uint64_t, 12> seen{};
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        server.ask({"FLUSHALL"});
        Twin twin(server, seed);
        for (int step = 0; step < 1000; ++step) {
            twin.step();
            ASSERT_FALSE(::testing::Test::HasFailure()) << "seed " << seed << ", step " << step;
        }
        for (std::size_t i = 0; i < seen.size(); ++i)
            seen[i] += twin.seen[i];
    }
    for (std::size_t i = 1; i < seen.size(); ++i)
        EXPECT_GT(seen[i], 20u) << "outcome " << i << " hardly occurred";
}

}  // namespace
}  // namespace outrider::idempotency::test
