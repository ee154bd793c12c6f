// The promise as a whole: a table, a log and a waiting list in a small world that crashes, loses writes, forgets owners
// and lets time pass, with every choice drawn from a seed. Held at each step:
//   * a request is executed at most once in its key's window, unless the policy or an operator says otherwise
//   * each replay is the recorded answer of its generation, and never of one before an answer that a client has seen
//   * every request is answered, unless its process or its client is gone
// It also is the smallest shell there can be, and shows what one has to do.
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "filters/policy/idempotency_table.h"
#include "filters/policy/idempotency_waiting.h"

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

constexpr std::uint64_t kKeys = 8;

Digest digest_of(std::uint64_t number) {
    return key_digest({}, "model", std::to_string(number));
}

struct Seen {
    std::uint64_t executed = 0, reexecuted = 0, replayed = 0, waited = 0, conflicts = 0, mismatches = 0;
    std::uint64_t unknown = 0, full = 0, late = 0, crashes = 0, lost_writes = 0, forgotten = 0, trimmed = 0;
};

class World {
  public:
    World(std::uint64_t seed, Seen& seen) : random_(seed), seen_(seen), list_(6) {
        for (std::uint64_t key = 0; key < kKeys; ++key) {
            Key& added = keys_[digest_of(key)];
            added.number = key;
            added.policy = policy_of(key);
        }
        start();
    }

    void step() {
        time_ += std::chrono::milliseconds(random_.below(1500));
        const std::uint64_t choice = random_.below(100);
        if (choice < 40) {
            request();
        } else if (choice < 70) {
            end_exchange();
        } else if (choice < 88) {
            flush(1 + random_.below(6));
        } else if (choice < 93) {
            advance();
        } else if (choice < 95) {
            trim();
        } else if (choice < 96) {
            operator_forgets();
        } else if (choice < 98) {
            client_leaves();
        } else if (choice < 99) {
            crash();
        } else {
            time_ += std::chrono::seconds(random_.below(90));
        }
    }

    // Lets everything that is under way come to its end.
    void finish() {
        for (int round = 0; round < 100; ++round) {
            time_ += 1s;
            flush(1000);
            advance();
            while (!exchanges_.empty()) {
                end_exchange();
            }
        }
        EXPECT_TRUE(clients_.empty()) << clients_.size() << " requests without an answer";
        EXPECT_EQ(list_.waiting(), 0u);
    }

  private:
    struct Key {
        std::uint64_t number = 0;
        IdempotencyPolicy policy;
        Instant window_end{};                           // no other execution before
        std::map<std::uint64_t, std::string> recorded;  // by generation
        std::uint64_t told = 0;  // the highest generation whose answer a client has seen, durably
    };
    struct Client {
        Digest key;
        Digest fingerprint;
        Instant arrived{};  // in world time, as everything in this class
    };
    struct Exchange {
        Digest key;
        Owner owner;
        bool left = false;
        std::string body;
    };
    // What follows from one step; it waits until its record is durable.
    struct Pending {
        std::optional<Record> persist;
        std::optional<std::uint64_t> client;  // who is answered
        std::optional<Forward> forward;
        Digest key;
        std::uint64_t generation = 0;  // whose answer the client sees; 0: none
    };
    struct Logged {
        std::uint64_t position = 0;
        std::string bytes;
    };

    static IdempotencyPolicy policy_of(std::uint64_t key) {
        return {.window = 60s,
                .lease = 5s,
                .in_flight = (key & 1) != 0 ? InFlightPolicy::kConflict : InFlightPolicy::kWait,
                .wait_timeout = 8s,
                .on_unknown = (key & 2) != 0 ? OnUnknown::kReexecute : OnUnknown::kReject,
                .record = (key & 4) != 0 ? RecordAnswers::kBelow500 : RecordAnswers::kAll};
    }

    // A process has its own monotonic clock, the wall clock is common.
    Instant now() const { return Instant{time_ - booted_}; }
    Instant process_time(Instant world) const { return Instant{world.time_since_epoch() - booted_}; }

    void start() {
        booted_ = time_ - std::chrono::seconds(random_.below(1000));
        const ClockAnchor anchor{now(),
                                 {std::chrono::duration_cast<std::chrono::microseconds>(time_).count()}};
        const TableLimits limits{.bytes_max = {6 * (IdempotencyTable::key_bytes() + 200)}, .reserve = {200}};
        table_.emplace(limits, anchor, random_.next());
        for (const Logged& logged : log_) {
            const Result<Record> record = decode_record(logged.bytes);
            ASSERT_TRUE(record.ok()) << record.error();
            table_->recover(record.value(), logged.position, now());
        }
    }

    void crash() {
        ++seen_.crashes;
        // Some records reached the disk, but nobody came to act on it.
        for (std::uint64_t more = random_.below(4); more > 0 && !pending_.empty(); --more) {
            if (pending_.front().persist) append(*pending_.front().persist);
            pending_.pop_front();
        }
        pending_.clear();
        exchanges_.clear();
        clients_.clear();
        waiting_.clear();
        list_ = WaitingList(6);
        start();
    }

    // Requests
    // -----------------------------------------------------------------------------------------------------

    void request() {
        const Digest key = digest_of(random_.below(kKeys));
        const Digest fingerprint = digest_of(100 + (random_.below(20) == 0));
        const std::uint64_t client = ++last_client_;
        clients_.emplace(client, Client{key, fingerprint, Instant{time_}});
        ask(client);
    }

    void ask(std::uint64_t id) {
        const Client& client = clients_.at(id);
        Key& key = keys_.at(client.key);
        const Arrival arrival{client.fingerprint, {++last_token_}, process_time(client.arrived), now()};
        ArrivalEffects effects = table_->arrive(client.key, arrival, key.policy);
        Pending pending{std::move(effects.persist), id, std::nullopt, client.key, 0};
        if (const Forward* forward = std::get_if<Forward>(&effects.verdict)) {
            EXPECT_TRUE(pending.persist.has_value());
            EXPECT_TRUE(!forward->reexecution || key.policy.on_unknown == OnUnknown::kReexecute);
            pending.forward = *forward;
            claimed_[forward->owner.generation.value] = Instant{time_};
        } else if (const Wait* wait = std::get_if<Wait>(&effects.verdict)) {
            park(id, client.key, *wait);
            return;
        } else if (const Replay* replay = std::get_if<Replay>(&effects.verdict)) {
            const std::uint64_t generation = table_->find(client.key)->owner.generation.value;
            EXPECT_EQ(replay->response->body, key.recorded.at(generation));
            EXPECT_EQ(table_->find(client.key)->fingerprint, client.fingerprint);
            EXPECT_GE(generation, key.told);
            pending.generation = generation;
            ++seen_.replayed;
        }
        seen_.conflicts += std::holds_alternative<Conflict>(effects.verdict);
        seen_.mismatches += std::holds_alternative<Mismatch>(effects.verdict);
        seen_.unknown += std::holds_alternative<OutcomeUnknown>(effects.verdict);
        seen_.full += std::holds_alternative<StoreFull>(effects.verdict);
        pending_.push_back(std::move(pending));
    }

    void park(std::uint64_t client, const Digest& key, const Wait& wait) {
        EXPECT_GT(wait.until, now());
        const std::optional<WaiterId> waiter = list_.park(key, wait.until);
        if (!waiter) {
            pending_.push_back({std::nullopt, client, std::nullopt, key, 0});
            return;
        }
        waiting_[*waiter] = client;
        ++seen_.waited;
    }

    void ask_again(const std::vector<WaiterId>& woken) {
        for (const WaiterId id : woken) {
            const std::uint64_t client = waiting_.at(id);
            waiting_.erase(id);
            ask(client);
        }
    }

    void client_leaves() {
        if (waiting_.empty()) return;
        const auto [waiter, client] = *waiting_.begin();
        EXPECT_TRUE(list_.leave(waiter));
        waiting_.erase(waiter);
        clients_.erase(client);
    }

    // The log
    // -----------------------------------------------------------------------------------------------------

    std::uint64_t append(const Record& record) {
        log_.push_back({++last_position_, {}});
        append_record(log_.back().bytes, record);
        return last_position_;
    }

    void flush(std::uint64_t count) {
        for (; count > 0 && !pending_.empty(); --count) {
            Pending pending = std::move(pending_.front());
            pending_.pop_front();
            const bool durable = !pending.persist || random_.below(30) > 0;
            if (pending.persist) persist(*pending.persist, durable);
            carry_out(pending, durable);
        }
    }

    void persist(const Record& record, bool durable) {
        if (!durable) {
            ++seen_.lost_writes;
            if (random_.below(2) == 0) append(record);  // it is there, but nobody was told
            return;
        }
        const std::uint64_t position = append(record);
        const KeyState* const state = table_->find(key_of(record));
        const KeptKey* kept = nullptr;
        if (const auto* in_flight = std::get_if<InFlightRecord>(&record)) kept = &in_flight->kept;
        if (const auto* done = std::get_if<DoneRecord>(&record)) kept = &done->kept;
        if (const auto* unknown = std::get_if<UnknownRecord>(&record)) kept = &unknown->kept;
        if (state != nullptr && kept != nullptr) table_->located(kept->key, kept->generation, position);
    }

    void carry_out(const Pending& pending, bool durable) {
        if (!pending.forward) {
            if (pending.generation != 0 && durable) {
                Key& key = keys_.at(pending.key);
                key.told = std::max(key.told, pending.generation);
            }
            if (pending.client) clients_.erase(*pending.client);
            return;
        }
        if (!durable || now() >= pending.forward->lease_end) {  // nothing leaves; the client gets 503
            clients_.erase(*pending.client);
            const OwnerEffects effects = table_->released(pending.key, pending.forward->owner, now());
            if (effects.wake) ask_again(list_.wake(pending.key));
            return;
        }
        forward(pending);
    }

    void trim() {
        const std::uint64_t low = table_->oldest() ? table_->oldest()->position : last_position_ + 1;
        while (!log_.empty() && log_.front().position < low) {
            log_.pop_front();
            ++seen_.trimmed;
        }
    }

    // The application
    // -----------------------------------------------------------------------------------------------------

    void forward(const Pending& pending) {
        Exchange exchange{pending.key, pending.forward->owner, random_.below(8) > 0, ""};
        if (exchange.left) execute(exchange, *pending.forward);
        // Its client is answered when the exchange ends, whether or not it still is there.
        exchange_clients_[exchange.owner.generation.value] = *pending.client;
        exchanges_.push_back(std::move(exchange));
    }

    void execute(Exchange& exchange, const Forward& forward) {
        Key& key = keys_.at(exchange.key);
        if (forward.reexecution) {
            ++seen_.reexecuted;
        } else {
            EXPECT_GE(Instant{time_}, key.window_end) << "key " << key.number << " was executed twice";
        }
        ++seen_.executed;
        if (Instant{time_} >= key.window_end) key.told = 0;  // generations may start again
        key.window_end = claimed_.at(forward.owner.generation.value) + key.policy.window;
        exchange.body = std::to_string(key.number) + "#" + std::to_string(seen_.executed);
    }

    void end_exchange() {
        if (exchanges_.empty()) return;
        const std::size_t pick = random_.below(exchanges_.size());
        const Exchange exchange = exchanges_[pick];
        exchanges_.erase(exchanges_.begin() + static_cast<std::ptrdiff_t>(pick));
        Key& key = keys_.at(exchange.key);
        const std::uint64_t generation = exchange.owner.generation.value;
        OwnerEffects effects;
        if (!exchange.left) {
            effects = table_->released(exchange.key, exchange.owner, now());
        } else if (random_.below(6) == 0) {
            effects = table_->cut(exchange.key, exchange.owner, now());
        } else {
            effects = answer(exchange, key);
        }
        seen_.late += effects.settled == Settled::kTooLate;
        const bool recorded = effects.settled == Settled::kRecorded;
        if (recorded) key.recorded[generation] = exchange.body;
        pending_.push_back({std::move(effects.persist), exchange_clients_.at(generation), std::nullopt,
                            exchange.key, recorded ? generation : 0});
        if (effects.wake) ask_again(list_.wake(exchange.key));
    }

    OwnerEffects answer(const Exchange& exchange, Key& key) {
        const std::uint16_t status = random_.below(5) == 0 ? 500 : 200;
        std::shared_ptr<const StoredResponse> response;
        if (random_.below(10) > 0) {
            response = std::make_shared<const StoredResponse>(StoredResponse{"h", exchange.body});
        }
        OwnerEffects effects =
            table_->answered(exchange.key, exchange.owner, {status, response}, key.policy.record, now());
        if (effects.settled == Settled::kReleased) {
            EXPECT_EQ(status, 500);
            EXPECT_EQ(key.policy.record, RecordAnswers::kBelow500);
            key.window_end = {};  // by the policy, it took no effect
        }
        return effects;
    }

    // Time and operators
    // -----------------------------------------------------------------------------------------------------

    void advance() {
        const Advanced advanced = table_->advance(now(), 3);
        for (const Digest& key : advanced.lapsed) {
            ask_again(list_.wake(key));
        }
        ask_again(list_.time_out(now()));
    }

    void operator_forgets() {
        const Digest key = digest_of(random_.below(kKeys));
        ForgetEffects effects = table_->forget(key, now());
        if (effects.forgotten != Forgotten::kForgotten) return;
        ++seen_.forgotten;
        keys_.at(key).window_end = {};
        keys_.at(key).told = 0;  // a crash may bring back what was before
        pending_.push_back({std::move(effects.persist), std::nullopt, std::nullopt, key, 0});
    }

    Random random_;
    Seen& seen_;
    Duration time_ = 1'700'000'000s;  // of the world, since 1970
    Duration booted_{};
    std::optional<IdempotencyTable> table_;
    WaitingList list_;
    std::map<WaiterId, std::uint64_t> waiting_;
    std::map<Digest, Key> keys_;
    std::map<std::uint64_t, Client> clients_;  // who waits for an answer
    std::deque<Pending> pending_;
    std::vector<Exchange> exchanges_;
    std::map<std::uint64_t, std::uint64_t> exchange_clients_;  // by generation
    std::map<std::uint64_t, Instant> claimed_;                 // by generation
    std::deque<Logged> log_;
    std::uint64_t last_position_ = 0;
    std::uint64_t last_client_ = 0;
    std::uint64_t last_token_ = 0;
};

TEST(IdempotencyModel, AKeyTakesEffectAtMostOnceAndEachReplayIsTheRecordedAnswer) {
    Seen seen;
    for (std::uint64_t seed = 1; seed <= 200 && !testing::Test::HasFailure(); ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        World world(seed, seen);
        for (int step = 0; step < 3000 && !testing::Test::HasFailure(); ++step) {
            SCOPED_TRACE("step " + std::to_string(step));
            world.step();
        }
        if (!testing::Test::HasFailure()) world.finish();
    }
    // A world in which something never happens proves nothing about it.
    for (const std::uint64_t count :
         {seen.executed, seen.reexecuted, seen.replayed, seen.waited, seen.conflicts, seen.mismatches,
          seen.unknown, seen.full, seen.late, seen.crashes, seen.lost_writes, seen.forgotten, seen.trimmed}) {
        EXPECT_GT(count, 500u);
    }
}

}  // namespace
}  // namespace outrider::policy
