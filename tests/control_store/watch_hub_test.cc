#include "control/store/watch_hub.h"

#include <chrono>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/control_store/commands.h"

namespace outrider::store::test {
namespace {

using ::testing::AnyOf;
using Kind = WatchBatch::Kind;

struct Watching : Driver {
    WatchHub hub;

    explicit Watching(WatchHub::Options options = {}) : hub(options) {}

    template <typename Request>
    void write(Request request) {
        hub.applied((*this)(std::move(request)).events);
    }
    WatchId watch(WatchRequest request) { return *hub.add(*store, std::move(request)); }
    // All that is ready, as "revision:key" with "-" before a deletion; "|" ends a batch, "+" a fragment.
    std::string drain() {
        std::string out;
        while (const auto id = hub.next_ready()) {
            const WatchBatch batch = hub.poll(*store, *id);
            if (batch.kind == Kind::kCancelled) out += "cancelled:" + std::to_string(batch.compacted.value);
            if (batch.kind == Kind::kProgress) out += "progress:" + std::to_string(batch.revision.value);
            if (batch.kind == Kind::kNothing) continue;
            for (const auto& event : batch.events) {
                out += event.record->tombstone() ? "-" : "";
                out +=
                    std::to_string(event.record->mod().value) + ":" + std::string(event.record->key()) + " ";
            }
            out += batch.fragment ? "+" : "|";
        }
        return out;
    }
};

WatchRequest on(std::string key, std::string end = {}, std::int64_t start = 0) {
    WatchRequest request;
    request.range = {std::move(key), std::move(end)};
    request.start = {start};
    return request;
}

TEST(WatchHub, TellsWhatComesFromNowOn) {
    Watching w;
    w.write(put("a", "1"));
    w.watch(on("a"));
    EXPECT_EQ(w.drain(), "");
    w.write(put("a", "2"));
    w.write(put("b", "1"));
    w.write(erase("a"));
    EXPECT_EQ(w.drain(), "3:a -5:a |");
    EXPECT_EQ(w.drain(), "");
}

TEST(WatchHub, ReadsHistoryFirstAndThenGoesOn) {
    Watching w;
    w.write(put("a", "1"));
    w.write(put("b", "1"));
    w.watch(on("a", kAll, 2));
    w.write(put("c", "1"));
    EXPECT_EQ(w.drain(), "2:a 3:b 4:c |");
}

TEST(WatchHub, WaitsForAFutureRevision) {
    Watching w;
    w.watch(on("a", {}, 4));
    for (int i = 0; i < 4; ++i)
        w.write(put("a", "x"));
    EXPECT_EQ(w.drain(), "4:a 5:a |");
}

// A follower that lacked too much gets the leader's snapshot: what lies between never went through applied().
TEST(WatchHub, ARestoredStoreIsReadFromWhereEachWatcherWas) {
    Watching w;
    w.write(put("a", "1"));   // 2
    w.watch(on("a"));         // synced at 2
    w.watch(on("a", {}, 5));  // in the future
    w.watch(on("a", {}, 9));
    Driver other;
    for (int i = 0; i < 5; ++i)
        other(put("a", std::to_string(i)));  // 2 to 6
    const Revision before = w.store->revision();
    w.store = std::move(other.store);
    w.hub.restored(before, *w.store);
    // In no order among watchers.
    EXPECT_THAT(w.drain(), AnyOf("3:a 4:a 5:a 6:a |5:a 6:a |", "5:a 6:a |3:a 4:a 5:a 6:a |"));
    w.index = 10;
    for (int i = 0; i < 3; ++i)
        w.write(put("a", "x"));  // 7 to 9
    EXPECT_EQ(w.drain(), "7:a 8:a 9:a |7:a 8:a 9:a |9:a |");
}

TEST(WatchHub, ARestoredStoreCancelsWhomItsCompactionHasOvertaken) {
    Watching w;
    w.write(put("a", "1"));  // 2
    w.watch(on("a"));
    Driver other;
    for (int i = 0; i < 5; ++i)
        other(put("a", std::to_string(i)));
    other(CompactRequest{{5}});
    const Revision before = w.store->revision();
    w.store = std::move(other.store);
    w.hub.restored(before, *w.store);
    EXPECT_EQ(w.drain(), "cancelled:5|");
}

TEST(WatchHub, RangesKeepToTheirBounds) {
    Watching w;
    w.watch(on("b", "d"));
    for (const char* key : {"a", "b", "c", "d", "e"})
        w.write(put(key, ""));
    EXPECT_EQ(w.drain(), "3:b 4:c |");
    EXPECT_TRUE(on("b", "b").empty());
    EXPECT_TRUE(on("b", "a").empty());
    EXPECT_FALSE(on("b", kAll).empty());
}

TEST(WatchHub, FiltersAndPreviousValues) {
    Watching w;
    WatchRequest request = on("a");
    request.no_put = true;
    request.prev_kv = true;
    const WatchId id = w.watch(request);
    w.write(put("a", "old"));
    EXPECT_FALSE(w.hub.next_ready().has_value()) << "what is filtered wakes nobody";
    w.write(erase("a"));
    ASSERT_EQ(w.hub.next_ready(), id);
    const WatchBatch batch = w.hub.poll(*w.store, id);
    ASSERT_EQ(batch.events.size(), 1U);
    EXPECT_EQ(batch.events[0].prev->key_value().value, "old");
}

TEST(WatchHub, ASlowWatcherIsOvertakenByCompactionAndToldSo) {
    Watching w;
    w.watch(on("a"));
    for (int i = 0; i < 3; ++i)
        w.write(put("a", "x"));
    w(CompactRequest{{3}});
    EXPECT_EQ(w.drain(), "cancelled:3|");
    EXPECT_EQ(w.hub.size(), 0U);
    w.watch(on("a", {}, 2));
    EXPECT_EQ(w.drain(), "cancelled:3|");
    w.watch(on("a", {}, 3));
    EXPECT_EQ(w.drain(), "3:a 4:a |") << "the compaction's own revision can still be watched from";
}

TEST(WatchHub, CompactionLeavesThoseAloneThatAreUpToDate) {
    Watching w;
    w.watch(on("a"));
    w.write(put("b", "x"));
    w(CompactRequest{{2}});
    w.write(put("a", "x"));
    EXPECT_EQ(w.drain(), "3:a |");
}

TEST(WatchHub, ARevisionIsNeverTornUnlessFragmentsAreWanted) {
    TxnRequest txn;
    for (const char* key : {"a", "b", "c"})
        txn.success.push_back({put(key, std::string(40, 'x'))});
    Watching whole({.watchers_max = 1, .batch_bytes = 50, .scan_max = 100});
    whole.watch(on("a", kAll));
    whole.write(txn);
    whole.write(put("z", ""));
    EXPECT_EQ(whole.drain(), "2:a 2:b 2:c |3:z |");
    Watching pieces({.watchers_max = 1, .batch_bytes = 50, .scan_max = 100});
    WatchRequest request = on("a", kAll);
    request.fragment = true;
    pieces.watch(request);
    pieces.write(txn);
    pieces.write(put("z", ""));
    EXPECT_EQ(pieces.drain(), "2:a 2:b +2:c 3:z |");
}

TEST(WatchHub, ProgressGoesToThoseThatAreUpToDateAndGotNothing) {
    Watching w;
    WatchRequest request = on("a");
    request.progress_notify = true;
    w.watch(request);
    w.watch(on("a"));
    w.write(put("b", ""));
    w.hub.progress_round();
    EXPECT_EQ(w.drain(), "progress:2|");
    w.write(put("a", ""));
    EXPECT_EQ(w.drain(), "3:a |3:a |");
    w.hub.progress_round();
    EXPECT_EQ(w.drain(), "") << "it got an event in this round";
    w.hub.progress_round();
    EXPECT_EQ(w.drain(), "progress:3|");
}

TEST(WatchHub, ProgressIsNeverAheadOfEvents) {
    Watching w;
    const WatchId id = w.watch(on("a"));
    w.hub.request_progress(id);
    w.write(put("a", ""));
    EXPECT_EQ(w.drain(), "2:a |progress:2|");
}

TEST(WatchHub, OneThatIsBehindTellsItsProgressWhenItHasCaughtUp) {
    Watching w({.watchers_max = 9, .batch_bytes = 1000, .scan_max = 2});
    for (int i = 0; i < 9; ++i)
        w.write(put("x", ""));
    const WatchId id = w.watch(on("a", {}, 2));
    w.hub.request_progress(id);
    w.write(put("a", ""));  // 11
    EXPECT_EQ(w.drain(), "11:a |progress:11|");
}

TEST(WatchHub, IsBoundedAndForgetsWhoLeft) {
    Watching w({.watchers_max = 1, .batch_bytes = 50, .scan_max = 100});
    const WatchId id = w.watch(on("a"));
    EXPECT_FALSE(w.hub.add(*w.store, on("b")).has_value());
    w.write(put("a", ""));
    w.hub.remove(id);
    EXPECT_EQ(w.drain(), "");
    EXPECT_TRUE(w.hub.add(*w.store, on("b")).has_value());
}

// If one took a look at all others it would be 80,000,000,000 of them, more than ten seconds.
TEST(WatchHubAtScale, ManyOfOneKeyLeaveAtNoCostToEachOther) {
    Watching w({.watchers_max = 400'000});
    for (const WatchRequest& request : {on("a"), on("a", "b")}) {
        std::vector<WatchId> ids;
        for (int i = 0; i < 400'000; ++i)
            ids.push_back(w.watch(request));
        const auto begun = std::chrono::steady_clock::now();
        for (auto id = ids.rbegin(); id != ids.rend(); ++id)
            w.hub.remove(*id);
        EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(5));
        EXPECT_EQ(w.hub.size(), 0U);
    }
}

TEST(WatchHub, OneThatIsFarBehindDoesNotHoldUpTheOthers) {
    Watching w({.watchers_max = 9, .batch_bytes = 1000, .scan_max = 2});
    for (int i = 0; i < 9; ++i)
        w.write(put("x", ""));
    w.write(put("a", ""));  // 11
    const WatchId behind = w.watch(on("a", {}, 2));
    w.watch(on("x", {}, 10));
    EXPECT_EQ(w.hub.poll(*w.store, *w.hub.next_ready()).kind, Kind::kNothing) << behind.value;
    EXPECT_EQ(w.drain(), "10:x |11:a |");
}

TEST(WatchHub, AChangeThatIsNotWhatItWasIsNotTold) {
    const auto memory = std::make_shared<Shown>();
    Watching w;
    w.store = std::make_unique<Store>(memory);
    for (const char* value : {"one", "two", "three"})
        w.write(put("key", value));
    w.watch(on("key", {}, 2));
    // The block of changes is the first that was taken. The search for revision 2 comes by the change of 3.
    char* revision = memory->blocks.front().data() + sizeof(Change);
    ASSERT_EQ(*revision, 3);
    *revision = 1;
    EXPECT_DEATH(w.drain(), "is the disk of the data directory broken");
    *revision = 3;
    EXPECT_EQ(w.drain(), "2:key 3:key 4:key |");
}

}  // namespace
}  // namespace outrider::store::test
