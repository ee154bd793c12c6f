// The store with its thread: loops of several threads ask it, and hear each answer once, on their own thread.
#include "idempotency/local_store.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <thread>

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/random.h"
#include "tests/base_uv/loop_fixture.h"
#include "tests/idempotency/engine_fixture.h"
#include "tests/wal/virtual_disk.h"

namespace outrider::idempotency::test {
namespace {
using namespace std::chrono_literals;
using http::test::LoopRun;
using policy::Conflict;
using policy::ConflictWhy;
using policy::Forward;
using policy::Replay;
using policy::StoreFailed;
using policy::Verdict;

// Remembers what it is told.
class Asker final : public Call {
  public:
    void on_verdict(const Verdict& v) override {
        ++answers;
        verdict = v;
        if (then) then();
    }
    void on_settled(policy::Settled s, bool d) override {
        ++answers;
        settled = s;
        durable = d;
        if (then) then();
    }
    template <typename V>
    const V* heard() const {
        return verdict ? std::get_if<V>(&*verdict) : nullptr;
    }
    int answers = 0;
    std::optional<Verdict> verdict;
    std::optional<policy::Settled> settled;
    bool durable = false;
    std::function<void()> then;
};

std::uint64_t observed(const Histogram& histogram) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i <= Histogram::kBounds.size(); ++i)
        sum += histogram.bucket(i);
    return sum;
}

class LocalStoreTest : public testing::Test {
  protected:
    LocalStoreTest() {
        settings_.name = "test";
        settings_.kind = config::StoreKind::kLog;
        settings_.path = testing::TempDir() + "local_store_" + std::to_string(::getpid());
        std::filesystem::remove_all(settings_.path);
    }
    ~LocalStoreTest() override {
        client_.reset();
        store_.reset();
        std::filesystem::permissions(settings_.path, std::filesystem::perms::owner_all, ignored_);
        std::filesystem::remove_all(settings_.path, ignored_);
    }

    std::string open() {
        auto opened = LocalStore::open(settings_, run_.loop(), options_);
        if (!opened) return opened.error();
        store_ = std::move(*opened);
        client_ = store_->connect(run_.loop(), cells_);
        return {};
    }
    void close() {
        client_.reset();
        store_.reset();
    }
    void ask(Asker& asker, std::uint64_t key, StoreClient* client = nullptr) {
        if (client == nullptr) client = client_.get();
        run_.in_event([&] {
            client->arrive(asker, digest(key), digest(99), policy_, run_.loop().now());
            EXPECT_FALSE(asker.verdict.has_value()) << "answered within the call";
        });
    }
    void tell(Asker& asker, std::uint64_t key, const policy::Owner& owner, Report report) {
        run_.in_event([&] { client_->settle(asker, digest(key), owner, std::move(report)); });
    }
    bool answered(const Asker& asker, int answers = 1) {
        return run_.until([&] { return asker.answers == answers; });
    }
    StoreStatus status() {
        std::optional<StoreStatus> status;
        store_->status([&](StoreStatus s) { status = std::move(s); });
        EXPECT_TRUE(run_.until([&] { return status.has_value(); }));
        return status.value_or(StoreStatus{});
    }

    LoopRun run_;
    config::StoreSettings settings_;
    LocalStore::Options options_;
    Histogram seconds_, sync_;
    Counter client_errors_, errors_;
    StoreCells cells_{.seconds = &seconds_, .wal_sync = nullptr, .errors = &client_errors_};
    std::unique_ptr<LocalStore> store_;
    std::unique_ptr<StoreClient> client_;
    policy::IdempotencyPolicy policy_{.window = 1h, .lease = 30s, .wait_timeout = 60s};
    std::error_code ignored_;
};

TEST_F(LocalStoreTest, AKeyIsForwardedRecordedAndReplayedAlsoAfterARestart) {
    options_.cells = {.seconds = nullptr, .wal_sync = &sync_, .errors = &errors_};
    ASSERT_EQ(open(), "");
    Asker first, second, third;
    ask(first, 1);
    ASSERT_TRUE(answered(first));
    ASSERT_NE(first.heard<Forward>(), nullptr);
    tell(first, 1, first.heard<Forward>()->owner, Answered{{201, response("made")}});
    ASSERT_TRUE(answered(first, 2));
    EXPECT_EQ(first.settled, policy::Settled::kRecorded);
    EXPECT_TRUE(first.durable);
    ask(second, 1);
    ASSERT_TRUE(answered(second));
    ASSERT_NE(second.heard<Replay>(), nullptr);
    EXPECT_EQ(observed(sync_), 2u);
    EXPECT_EQ(observed(seconds_), 3u);
    close();
    ASSERT_EQ(open(), "");
    ask(third, 1);
    ASSERT_TRUE(answered(third));
    ASSERT_NE(third.heard<Replay>(), nullptr);
    EXPECT_EQ(third.heard<Replay>()->response->body, "made");
    const StoreStatus now = status();
    EXPECT_TRUE(now.ok);
    EXPECT_EQ(now.kind, "log");
    EXPECT_EQ(now.done, 1u);
    EXPECT_GT(now.disk_bytes, 0u);
}

TEST_F(LocalStoreTest, ADuplicateOfAnotherClientWaitsAndParkedTimeIsNotTheStores) {
    settings_.kind = config::StoreKind::kMemory;
    ASSERT_EQ(open(), "");
    auto other = store_->connect(run_.loop(), cells_);
    Asker owner, waiter;
    ask(owner, 1);
    ASSERT_TRUE(answered(owner));
    ask(waiter, 1, other.get());
    std::uint64_t waiting = 0;
    for (int i = 0; i < 10'000 && waiting == 0; ++i)
        waiting = status().waiting;
    ASSERT_EQ(waiting, 1u);
    EXPECT_EQ(waiter.answers, 0);
    tell(owner, 1, owner.heard<Forward>()->owner, Answered{{200, response("x")}});
    ASSERT_TRUE(answered(waiter));
    EXPECT_NE(waiter.heard<Replay>(), nullptr);
    other->close();
}

TEST_F(LocalStoreTest, WhoLeavesIsAnsweredAndWhoWaitsTooLongIsTold) {
    settings_.kind = config::StoreKind::kMemory;
    policy_.wait_timeout = 30ms;
    ASSERT_EQ(open(), "");
    Asker owner, late, leaver;
    ask(owner, 1);
    ASSERT_TRUE(answered(owner));
    ask(late, 1);
    ASSERT_TRUE(answered(late));
    ASSERT_NE(late.heard<Conflict>(), nullptr);
    EXPECT_EQ(late.heard<Conflict>()->why, ConflictWhy::kWaitedTooLong);
    policy_.wait_timeout = 60s;
    ask(leaver, 1);
    run_.in_event([&] { client_->leave(leaver); });
    ASSERT_TRUE(answered(leaver));
    ASSERT_NE(leaver.heard<Conflict>(), nullptr);
    EXPECT_EQ(leaver.heard<Conflict>()->why, ConflictWhy::kInFlight);
    run_.in_event([&] { client_->leave(leaver); });  // nothing is outstanding
    run_.settle();
    EXPECT_EQ(leaver.answers, 1);
}

TEST_F(LocalStoreTest, ACallbackMaySettleAskAgainOrCloseTheClient) {
    settings_.kind = config::StoreKind::kMemory;
    ASSERT_EQ(open(), "");
    Asker first, second;
    first.then = [&] {
        if (first.answers == 1) client_->settle(first, digest(1), first.heard<Forward>()->owner, Released{});
        if (first.answers == 2) client_->arrive(first, digest(2), digest(99), policy_, run_.loop().now());
        if (first.answers == 3) client_->close();
    };
    run_.in_event([&] { client_->arrive(first, digest(1), digest(99), policy_, run_.loop().now()); });
    ASSERT_TRUE(answered(first, 3));
    run_.settle();
}

TEST_F(LocalStoreTest, AfterCloseNothingIsAnsweredAndWhatWasReportedIsKept) {
    ASSERT_EQ(open(), "");
    Asker owner, other;
    ask(owner, 1);
    ASSERT_TRUE(answered(owner));
    run_.in_event([&] {
        client_->settle(owner, digest(1), owner.heard<Forward>()->owner, Answered{{200, response("x")}});
        client_->arrive(other, digest(2), digest(99), policy_, run_.loop().now());
        client_->close();
    });
    close();
    run_.settle();
    EXPECT_EQ(owner.answers, 1);
    EXPECT_EQ(other.answers, 0);
    ASSERT_EQ(open(), "");
    Asker again;
    ask(again, 1);
    ASSERT_TRUE(answered(again));
    EXPECT_NE(again.heard<Replay>(), nullptr);
}

TEST_F(LocalStoreTest, TooManyQuestionsAreRefusedAndEachIsAnsweredOnce) {
    settings_.kind = config::StoreKind::kMemory;
    settings_.max_waiting = 0;
    ASSERT_EQ(open(), "");
    std::vector<Asker> askers(LocalStore::kQuestionsMax + 100);
    run_.in_event([&] {
        for (std::size_t i = 0; i < askers.size(); ++i)
            client_->arrive(askers[i], digest(i % 5000), digest(99), policy_, run_.loop().now());
    });
    ASSERT_TRUE(run_.until([&] {
        return std::all_of(askers.begin(), askers.end(),
                           [](const Asker& asker) { return asker.answers == 1; });
    }));
    const auto failed = std::count_if(askers.begin(), askers.end(), [](const Asker& asker) {
        return asker.heard<StoreFailed>() != nullptr;
    });
    EXPECT_EQ(failed, 100);
    EXPECT_EQ(client_errors_.value(), 100u);
}

TEST_F(LocalStoreTest, AnOperatorLooksAndForgets) {
    ASSERT_EQ(open(), "");
    Asker owner;
    ask(owner, 1);
    ASSERT_TRUE(answered(owner));
    std::optional<Result<policy::Forgotten>> refused, done;
    std::optional<Result<KeyView>> view;
    store_->forget(digest(1), [&](Result<policy::Forgotten> r) { refused = std::move(r); });
    store_->look(digest(1), [&](Result<KeyView> r) { view = std::move(r); });
    ASSERT_TRUE(run_.until([&] { return view.has_value(); }));
    EXPECT_EQ(refused->value(), policy::Forgotten::kInFlight);
    EXPECT_EQ(view->value().phase, policy::KeyPhase::kInFlight);
    EXPECT_TRUE(view->value().lease_end.has_value());
    tell(owner, 1, owner.heard<Forward>()->owner, Cut{});
    ASSERT_TRUE(answered(owner, 2));
    store_->forget(digest(1), [&](Result<policy::Forgotten> r) { done = std::move(r); });
    ASSERT_TRUE(run_.until([&] { return done.has_value(); }));
    EXPECT_EQ(done->value(), policy::Forgotten::kForgotten);
}

TEST_F(LocalStoreTest, ASecondStoreOnTheDirectoryIsRefusedUntilTheFirstIsGone) {
    ASSERT_EQ(open(), "");
    auto second = LocalStore::open(settings_, run_.loop(), {.lock_patience = 40ms});
    ASSERT_FALSE(second.ok());
    EXPECT_NE(second.error().find("is another outrider using it?"), std::string::npos) << second.error();
    close();
    EXPECT_TRUE(LocalStore::open(settings_, run_.loop(), {.lock_patience = 40ms}).ok());
}

TEST_F(LocalStoreTest, APlaceThatCannotHoldALogIsNamedWithWhatToDo) {
    const std::string path = settings_.path;
    settings_.path = path + "/missing/log";
    EXPECT_NE(open().find("the folder that holds it must exist"), std::string::npos);
    { std::ofstream(path) << "a file"; }
    settings_.path = path;
    EXPECT_NE(open().find("must name a directory"), std::string::npos);
}

TEST_F(LocalStoreTest, AReadOnlyPlaceIsNamedWithWhatToDo) {
    if (::geteuid() == 0) GTEST_SKIP() << "the superuser may write everywhere";
    std::filesystem::create_directory(settings_.path);
    std::filesystem::permissions(settings_.path,
                                 std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
    EXPECT_NE(open().find("must be allowed to write"), std::string::npos);
}

// One worker: its own loop, thread and client; keeps `parallel` exchanges with random keys going.
class Hammer {
  public:
    Hammer(LocalStore& store, std::uint64_t seed, std::vector<std::atomic<int>>& running,
           std::vector<std::atomic<int>>& executed, int exchanges)
        : store_(store), random_(seed), running_(running), executed_(executed), left_(exchanges) {}

    void run() {
        client_ = store_.connect(loop_, {});
        exchanges_.resize(32);
        loop_.post([this] {
            for (auto& exchange : exchanges_) {
                exchange = std::make_unique<Exchange>(*this);
                exchange->begin();
            }
        });
        loop_.run();
        client_->close();
    }
    int answers = 0;
    int replays = 0;

  private:
    class Exchange final : public Call {
      public:
        explicit Exchange(Hammer& hammer) : hammer_(hammer) {}
        void begin() {
            key_ = hammer_.random_.below(hammer_.executed_.size());
            hammer_.client_->arrive(*this, digest(key_), digest(99),
                                    {.window = 1h, .lease = 10min, .wait_timeout = 5min},
                                    hammer_.loop_.now());
            if (hammer_.random_.below(20) == 0) hammer_.client_->leave(*this);
        }
        void on_verdict(const Verdict& verdict) override {
            ++hammer_.answers;
            const auto* forward = std::get_if<Forward>(&verdict);
            if (forward == nullptr) {
                if (const auto* replay = std::get_if<Replay>(&verdict)) {
                    ++hammer_.replays;
                    EXPECT_EQ(replay->response->body, std::to_string(key_));
                }
                return hammer_.next(*this);
            }
            EXPECT_EQ(hammer_.running_[key_].fetch_add(1), 0) << "two owners at once";
            EXPECT_EQ(hammer_.executed_[key_].load(), 0) << "executed twice";
            Report report = Released{};
            if (hammer_.random_.below(3) != 0) {
                hammer_.executed_[key_].fetch_add(1);
                report = Answered{{200, response(std::to_string(key_))}};
            }
            hammer_.running_[key_].fetch_sub(1);
            hammer_.client_->settle(*this, digest(key_), forward->owner, std::move(report));
        }
        void on_settled(policy::Settled settled, bool durable) override {
            EXPECT_TRUE(durable);
            EXPECT_NE(settled, policy::Settled::kTooLate);
            hammer_.next(*this);
        }

      private:
        Hammer& hammer_;
        std::uint64_t key_ = 0;
    };

    void next(Exchange& exchange) {
        if (left_-- > 0) return exchange.begin();
        if (++finished_ == exchanges_.size()) loop_.stop();
    }

    LocalStore& store_;
    Random random_;
    std::vector<std::atomic<int>>& running_;
    std::vector<std::atomic<int>>& executed_;
    int left_;
    std::size_t finished_ = 0;
    uv::Loop loop_;
    std::unique_ptr<StoreClient> client_;
    std::vector<std::unique_ptr<Exchange>> exchanges_;
};

TEST_F(LocalStoreTest, ManyThreadsForwardEachKeyOnce) {
    for (const auto kind : {config::StoreKind::kMemory, config::StoreKind::kLog}) {
        settings_.kind = kind;
        settings_.segment_bytes = {1 << 20};
        ASSERT_EQ(open(), "");
        constexpr int kExchanges = 3000;
        std::vector<std::atomic<int>> running(1500), executed(1500);
        std::vector<std::unique_ptr<Hammer>> hammers;
        std::vector<std::thread> threads;
        for (std::uint64_t i = 0; i < 4; ++i)
            hammers.push_back(std::make_unique<Hammer>(*store_, i + 1, running, executed, kExchanges));
        for (auto& hammer : hammers)
            threads.emplace_back([&hammer] { hammer->run(); });
        for (auto& thread : threads)
            thread.join();
        int replays = 0;
        for (auto& hammer : hammers) {
            EXPECT_EQ(hammer->answers, kExchanges + 32);
            replays += hammer->replays;
        }
        EXPECT_GT(replays, 1000);
        EXPECT_EQ(status().waiting, 0u);
        close();
    }
}

}  // namespace
}  // namespace outrider::idempotency::test
