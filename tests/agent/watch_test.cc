// Watches and leases against real etcd-servers that are killed, stopped, started and compacted.
#include "tests/agent/client_fixture.h"

namespace outrider::agent {
namespace {

using namespace test;

std::vector<std::string> numbers(int from, int to) {
    std::vector<std::string> out;
    for (int i = from; i < to; ++i)
        out.push_back(std::to_string(i));
    return out;
}

void compact(Bench& bench) {
    v3::CompactionRequest request;
    request.set_revision(bench.must(get("x")).body.header().revision());
    request.set_physical(false);
    bench.call(request);  // once more is an error of its own
}

TEST(Watch, TellsTheStateThenEachChangeOnce) {
    ServerCluster cluster(1);
    Bench bench(cluster.endpoints());
    bench.must(put("w/a", "0"));
    Observed seen(bench, "w/");
    ASSERT_TRUE(bench.run.until([&] { return seen.watch->streaming(); }));
    EXPECT_EQ(seen.resyncs, 1);
    for (int i = 1; i < 50; ++i)
        bench.must(put(i % 2 == 0 ? "w/a" : "w/b", std::to_string(i)));
    v3::DeleteRangeRequest erase;
    erase.set_key("w/b");
    bench.must(erase);
    ASSERT_TRUE(bench.run.until([&] { return !seen.state.contains("w/b") && seen.values.size() == 50; }));
    EXPECT_EQ(seen.values, numbers(0, 50));
    EXPECT_EQ(seen.watch->streams(), 1u);
    EXPECT_TRUE(seen.troubles.empty());
}

// The endpoint of the stream is killed, another is stopped: what was written meanwhile comes, each value once.
TEST(Watch, LosesNothingWhenItsEndpointIsKilledOrStops) {
    ServerCluster cluster(3);
    Bench bench(cluster.endpoints());
    Observed seen(bench, "w/");
    int n = 0;
    for (const bool kill : {true, false}) {
        ASSERT_TRUE(bench.run.until([&] { return seen.watch->streaming(); }));
        const std::size_t victim = bench.current(cluster);
        const std::uint64_t streams = seen.watch->streams();
        kill ? cluster.kill(victim) : cluster.pause(victim);
        for (const int end = n + 20; n < end; ++n)
            bench.must(put("w/k", std::to_string(n)));
        ASSERT_TRUE(bench.run.until([&] { return seen.state["w/k"] == std::to_string(n - 1); })) << n;
        EXPECT_GT(seen.watch->streams(), streams);
        kill ? cluster.start(victim) : cluster.resume(victim);
    }
    // Repeated writes of one value are the test's (must() repeats them), not the watch's.
    seen.values.erase(std::unique(seen.values.begin(), seen.values.end()), seen.values.end());
    EXPECT_EQ(seen.values, numbers(0, n));
    EXPECT_EQ(seen.resyncs, 1);
}

TEST(Watch, BridgesACompactionWithWhatDiffers) {
    ServerCluster cluster(1);
    Bench bench(cluster.endpoints());
    bench.must(put("w/gone", "1"));
    bench.must(put("w/stays", "1"));
    bench.must(put("w/changes", "1"));
    Observed seen(bench, "w/");
    ASSERT_TRUE(bench.run.until([&] { return seen.watch->streaming(); }));
    const std::size_t told = seen.values.size();
    cluster.kill(0);
    ASSERT_TRUE(bench.run.until([&] { return !seen.watch->streaming(); }));
    cluster.start(0);
    // Behind the watch's back, by a client that is quicker: the watch's own is not turned meanwhile.
    {
        Bench other(cluster.endpoints());
        v3::DeleteRangeRequest erase;
        erase.set_key("w/gone");
        other.must(erase);
        other.must(put("w/changes", "2"));
        other.must(put("w/new", "1"));
        compact(other);
    }
    ASSERT_TRUE(bench.run.until([&] { return seen.state.contains("w/new"); }));
    const std::map<std::string, std::string> expected = {
        {"w/changes", "2"}, {"w/new", "1"}, {"w/stays", "1"}};
    EXPECT_EQ(seen.state, expected);
    EXPECT_EQ(seen.resyncs, 2);
    EXPECT_EQ(seen.values.size(), told + 2);  // what did not change is not told again
}

TEST(Watch, BeginsAtARevisionOrFromNow) {
    ServerCluster cluster(1);
    Bench bench(cluster.endpoints());
    const auto first = bench.must(put("w/k", "0"));
    bench.must(put("w/k", "1"));
    Observed from_first(bench, "w/", WatchCursor::First::kRevision, {first.body.header().revision()});
    Observed from_now(bench, "w/", WatchCursor::First::kNow);
    ASSERT_TRUE(
        bench.run.until([&] { return from_now.watch->streaming() && from_first.values.size() == 2; }));
    bench.must(put("w/k", "2"));
    ASSERT_TRUE(
        bench.run.until([&] { return from_now.values.size() == 1 && from_first.values.size() == 3; }));
    EXPECT_EQ(from_now.values, numbers(2, 3));
    EXPECT_EQ(from_first.values, numbers(0, 3));
}

TEST(Watch, AMessageBeyondTheBoundEndsTheStreamWithTrouble) {
    ServerCluster cluster(1);
    Bench bench(cluster.endpoints());
    WatchOptions options;
    options.cursor.range = {"w/", prefix_end("w/")};
    options.message_bytes_max = 10'000;
    int updates = 0;
    std::vector<std::string> troubles;
    Watch watch(
        *bench.client, options, [&](const WatchUpdate&) { ++updates; },
        [&](const std::string& reason) { troubles.push_back(reason); });
    ASSERT_TRUE(bench.run.until([&] { return watch.streaming(); }));
    bench.must(put("w/large", std::string(20'000, 'x')));
    ASSERT_TRUE(bench.run.until([&] { return troubles.size() >= 2; }));
    EXPECT_NE(troubles[0].find("longer than 10000 bytes"), std::string::npos) << troubles[0];
    EXPECT_EQ(updates, 1);
}

TEST(Watch, MayBeDestroyedFromItsOwnCallback) {
    ServerCluster cluster(1);
    Bench bench(cluster.endpoints());
    for (const int at : {1, 2}) {  // in the state, in an event
        WatchOptions options;
        options.cursor.range = {"w/", prefix_end("w/")};
        std::unique_ptr<Watch> watch;
        int updates = 0;
        watch = std::make_unique<Watch>(*bench.client, options, [&](const WatchUpdate&) {
            if (++updates == at) watch.reset();
        });
        if (at == 2) {
            ASSERT_TRUE(bench.run.until([&] { return watch->streaming(); }));
        }
        bench.must(put("w/k", "x"));
        ASSERT_TRUE(bench.run.until([&] { return updates == at; }));
        bench.run.settle();
        EXPECT_EQ(watch, nullptr);
    }
}

// ---- leases -------------------------------------------------------------------------------------------------------------

TEST(Lease, IsKeptWhileMembersDieAndGoesAtOnceWhenReleased) {
    ServerCluster cluster(3);
    Bench bench(cluster.endpoints());
    bool held = false;
    std::string lost;
    Lease lease(
        *bench.client, {.ttl_seconds = 6}, [&] { held = true; },
        [&](const std::string& reason) { lost = reason; });
    ASSERT_TRUE(bench.run.until([&] { return held; }));
    auto request = put("leased", "x");
    request.set_lease(lease.id().value);
    bench.must(request);
    const Instant before = lease.expires();
    cluster.kill(bench.current(cluster));
    ASSERT_TRUE(bench.run.until([&] { return lease.renewals() >= 2 || !lost.empty(); }));
    EXPECT_EQ(lost, "");
    EXPECT_GT(lease.expires(), before);
    EXPECT_EQ(bench.value("leased"), "x");
    std::optional<bool> released;
    lease.release([&](bool done) { released = done; });
    ASSERT_TRUE(bench.run.until([&] { return released.has_value(); }));
    EXPECT_TRUE(*released);
    EXPECT_EQ(bench.value("leased"), "(none)");
    EXPECT_EQ(lost, "");
}

TEST(Lease, IsLostWhenTheClusterDoesNotAnswerOrForgetsIt) {
    ServerCluster cluster(1);
    Bench bench(cluster.endpoints());
    bool held = false;
    std::string lost;
    const auto on_held = [&] { held = true; };
    const auto on_lost = [&](const std::string& reason) { lost = reason; };
    {
        Lease lease(*bench.client, {.ttl_seconds = 2}, on_held, on_lost);
        ASSERT_TRUE(bench.run.until([&] { return held; }));
        v3::LeaseRevokeRequest revoke;
        revoke.set_id(lease.id().value);
        bench.must(revoke);
        ASSERT_TRUE(bench.run.until([&] { return !lost.empty(); }));
        EXPECT_EQ(lost, "the cluster does not know the lease any more");
        EXPECT_FALSE(lease.held());
    }
    held = false;
    lost.clear();
    {
        Lease lease(*bench.client, {.ttl_seconds = 2}, on_held, on_lost);
        ASSERT_TRUE(bench.run.until([&] { return held; }));
        cluster.pause(0);
        const Instant expires = lease.expires();
        ASSERT_TRUE(bench.run.until([&] { return !lost.empty(); }));
        EXPECT_GE(bench.run.loop().now(), expires);
        cluster.resume(0);
    }
    lost.clear();
    Lease lease(*bench.client, {.ttl_seconds = 9'999'999'999}, on_held, on_lost);
    ASSERT_TRUE(bench.run.until([&] { return !lost.empty(); }));
    EXPECT_EQ(lost, "etcdserver: too large lease TTL");
}

}  // namespace
}  // namespace outrider::agent
