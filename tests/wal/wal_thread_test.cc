#include "base/wal/wal_thread.h"

#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/wal/virtual_disk.h"

namespace outrider::wal {
namespace {

constexpr WalOptions kOptions{.preallocate_bytes = 0};

std::unique_ptr<Wal> open(
    FileSystem& disk, const OnEntry& on_entry = [](const Entry&) {}) {
    auto log = Wal::open(disk, "d", kOptions, on_entry);
    EXPECT_TRUE(log) << log.error();
    return std::move(*log);
}

Batch batch_of(std::string_view payload) {
    Batch batch;
    batch.add(1, payload);
    return batch;
}

// Keeps the log's thread busy until it is let go.
class Gate {
  public:
    // What the task touches outlives the gate: the thread may still be on its way into the wait when it is opened.
    explicit Gate(WalThread& thread) {
        const auto entered = std::make_shared<std::promise<void>>();
        std::future<void> here = entered->get_future();
        EXPECT_TRUE(thread.submit([entered, opened = open_.get_future().share()](Wal&) {
            entered->set_value();
            opened.wait();
        }));
        here.wait();
    }
    void open() { open_.set_value(); }

  private:
    std::promise<void> open_;
};

TEST(WalThread, BatchesThatWaitShareOneSyncAndAreAnsweredInOrder) {
    VirtualDisk disk(1);
    std::vector<std::uint64_t> answers;
    std::uint64_t syncs = 0;
    {
        WalThread thread(open(disk), {});
        Gate gate(thread);
        const std::uint64_t before = disk.sync_calls();
        for (int i = 0; i < 100; ++i) {
            Batch batch = batch_of("a");
            batch.add(2, "b");
            ASSERT_TRUE(thread.append(std::move(batch), [&, before](const Result<Index>& first) {
                answers.push_back(first ? first->value : 0);
                EXPECT_EQ(disk.sync_calls() - before, 1u) << "not before the sync";
            }));
        }
        ASSERT_TRUE(thread.submit([&, before](Wal& log) {
            syncs = disk.sync_calls() - before;
            EXPECT_EQ(log.durable_index(), Index{201});
        }));
        gate.open();
    }
    EXPECT_EQ(syncs, 1u);
    ASSERT_EQ(answers.size(), 100u);
    for (std::size_t i = 0; i < answers.size(); ++i)
        EXPECT_EQ(answers[i], 1 + 2 * i);
    std::uint64_t delivered = 0;
    open(disk, [&](const Entry& entry) {
        EXPECT_EQ(entry.payload, delivered % 2 == 0 ? "a" : "b");
        ++delivered;
    });
    EXPECT_EQ(delivered, 200u);
}

TEST(WalThread, AGroupHasABound) {
    VirtualDisk disk(1);
    std::uint64_t syncs = 0;
    {
        WalThread thread(open(disk), {.group_bytes_max = 1000});
        Gate gate(thread);
        const std::uint64_t before = disk.sync_calls();
        for (int i = 0; i < 10; ++i)
            ASSERT_TRUE(thread.append(batch_of(std::string(376, 'x')), {}));
        ASSERT_TRUE(thread.append(batch_of(std::string(5000, 'x')), {}));
        ASSERT_TRUE(thread.submit([&, before](Wal&) { syncs = disk.sync_calls() - before; }));
        gate.open();
    }
    EXPECT_EQ(syncs, 6u) << "ten by twos, and the large one alone";
}

TEST(WalThread, AFullQueueSaysSoAndHasRoomAgain) {
    VirtualDisk disk(1);
    WalThread thread(open(disk), {.queue_bytes_max = 1000});
    Gate gate(thread);
    int answered = 0;
    ASSERT_TRUE(thread.append(batch_of(std::string(600, 'x')), [&](const Result<Index>&) { ++answered; }));
    EXPECT_FALSE(thread.append(batch_of(std::string(600, 'x')), [&](const Result<Index>&) { ++answered; }));
    EXPECT_FALSE(thread.submit([](Wal&) {}));
    gate.open();
    while (thread.queued_bytes() != 0)
        std::this_thread::yield();
    std::promise<void> done;
    ASSERT_TRUE(thread.append(batch_of(std::string(600, 'x')), [&](const Result<Index>& first) {
        EXPECT_EQ(first->value, 2u);
        done.set_value();
    }));
    done.get_future().wait();
    EXPECT_EQ(answered, 1);
}

TEST(WalThread, AfterAFailedSyncEveryBatchIsAnsweredWithIt) {
    VirtualDisk disk(1);
    std::vector<std::string> errors;
    {
        WalThread thread(open(disk), {});
        ASSERT_TRUE(thread.submit([&](Wal&) { disk.faults.sync_error = 1; }));
        for (int i = 0; i < 3; ++i)
            ASSERT_TRUE(thread.append(batch_of("x"), [&](const Result<Index>& first) {
                errors.push_back(first ? "confirmed" : first.error());
            }));
        ASSERT_TRUE(thread.submit([&](Wal&) { disk.faults.sync_error = 0; }));
        ASSERT_TRUE(thread.append(batch_of("x"), [&](const Result<Index>& first) {
            errors.push_back(first ? "confirmed" : first.error());
        }));
    }
    EXPECT_EQ(errors, std::vector<std::string>(
                          4,
                          "write-ahead log: cannot sync d/00000000000000000001.wal: Input/output "
                          "error; nothing more is accepted until the log is opened anew"));
}

TEST(WalThread, ManyThreadsKeepTheirOrder) {
    VirtualDisk disk(1);
    constexpr int kEach = 500;
    std::map<std::string, std::uint64_t> answers;  // written by the log's thread
    {
        WalThread thread(open(disk), {});
        std::vector<std::thread> writers;
        for (int w = 0; w < 4; ++w) {
            writers.emplace_back([&thread, &answers, w] {
                for (int i = 0; i < kEach; ++i) {
                    const std::string payload = fmt::format("{}:{:04}", w, i);
                    ASSERT_TRUE(
                        thread.append(batch_of(payload), [&answers, payload](const Result<Index>& first) {
                            answers[payload] = first->value;
                        }));
                }
            });
        }
        for (std::thread& writer : writers)
            writer.join();
    }
    std::map<char, std::string> newest;
    std::uint64_t delivered = 0;
    open(disk, [&](const Entry& entry) {
        const std::string payload(entry.payload);
        EXPECT_EQ(answers[payload], entry.index.value);
        EXPECT_LT(newest[payload[0]], payload);
        newest[payload[0]] = payload;
        ++delivered;
    });
    EXPECT_EQ(delivered, 4u * kEach);
}

}  // namespace
}  // namespace outrider::wal
