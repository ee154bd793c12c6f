// The client against real etcd-servers: one, and three of which some are killed, stopped and started.
#include <set>

#include "tests/agent/client_fixture.h"

namespace outrider::agent {
namespace {

using namespace test;

// One server and one cluster for all tests of this file that leave them as they were.
ServerCluster& one() {
    static ServerCluster cluster(1);
    return cluster;
}

TEST(Client, EndpointsAreCheckedBeforeTheyAreUsed) {
    EXPECT_TRUE(check_endpoints({"127.0.0.1:2379", "core-0:1", "[::1]:65535"}).ok());
    for (const char* wrong : {"", ":1", "host", "host:", "host:0", "host:65536", "::1:2379", "[::1]", "a b:1",
                              "http://a:1", "[]:1", "host:+1"}) {
        EXPECT_FALSE(check_endpoints({wrong}).ok()) << wrong;
    }
    EXPECT_FALSE(check_endpoints({}).ok());
    EXPECT_FALSE(check_endpoints(std::vector<std::string>(kEndpointsMax + 1, "a:1")).ok());
}

TEST(Client, WritesReadsAndHearsRefusals) {
    Bench bench(one().endpoints());
    const auto written = bench.call(put("client/a", std::string("\0\xff", 2)));
    ASSERT_TRUE(written.ok()) << written.reason;
    EXPECT_EQ(written.endpoint, one().endpoints()[0]);
    const auto read = bench.call(get("client/a"));
    ASSERT_EQ(read.body.kvs_size(), 1);
    EXPECT_EQ(read.body.kvs(0).value(), std::string("\0\xff", 2));
    EXPECT_EQ(read.body.kvs(0).mod_revision(), written.body.header().revision());

    const auto refused = bench.call(put("", "x"));
    EXPECT_EQ(refused.outcome, Outcome::kRefused);
    EXPECT_EQ(refused.code, 3);
    EXPECT_EQ(refused.reason, "etcdserver: key is not provided");
    v3::LeaseRevokeRequest revoke;
    revoke.set_id(12345);
    EXPECT_EQ(bench.call(revoke).code, 5);
    v3::LeaseKeepAliveRequest keep_alive;
    keep_alive.set_id(12345);
    EXPECT_EQ(bench.call(keep_alive).body.ttl(), 0);
    EXPECT_GT(bench.call(v3::StatusRequest()).body.leader(), 0u);
    EXPECT_EQ(bench.call(v3::MemberListRequest()).body.members_size(), 1);
}

TEST(Client, ATransactionIsOneStep) {
    Bench bench(one().endpoints());
    bench.must(put("client/t", "1"));
    v3::TxnRequest txn;
    v3::Compare& compare = *txn.add_compare();
    compare.set_key("client/t");
    compare.set_target(v3::Compare::VALUE);
    compare.set_value("1");
    *txn.add_success()->mutable_request_put() = put("client/t", "2");
    *txn.add_failure()->mutable_request_range() = get("client/t");
    EXPECT_TRUE(bench.call(txn).body.succeeded());
    const auto failed = bench.call(txn);
    EXPECT_FALSE(failed.body.succeeded());
    ASSERT_EQ(failed.body.responses_size(), 1);
    EXPECT_EQ(failed.body.responses(0).response_range().kvs(0).value(), "2");
}

TEST(Client, ManyCallsAreUnderWayAtOnceAndLeaveInOrder) {
    Bench bench(one().endpoints());
    constexpr int kCalls = 300;
    int answered = 0;
    std::int64_t last = 0;
    bench.run.in_event([&] {
        for (int i = 0; i < kCalls; ++i) {
            bench.client->call(put("client/many", std::to_string(i)), {.timeout = 20s},
                               [&](const Reply<v3::PutResponse>& reply) {
                                   EXPECT_TRUE(reply.ok()) << reply.reason;
                                   EXPECT_GT(reply.body.header().revision(), last);
                                   last = reply.body.header().revision();
                                   ++answered;
                               });
        }
        EXPECT_EQ(bench.client->outstanding(), static_cast<std::size_t>(kCalls));
    });
    ASSERT_TRUE(bench.run.until([&] { return answered == kCalls; }));
    EXPECT_EQ(bench.client->outstanding(), 0u);
    EXPECT_EQ(bench.value("client/many"), std::to_string(kCalls - 1));
}

TEST(Client, WhatIsBeyondItsBoundsIsRefusedVisibly) {
    http::test::LoopRun run;
    ClientOptions options;
    options.endpoints = one().endpoints();
    options.calls_max = 2;
    options.answer_bytes_max = 10'000;
    {
        Client client(run.loop(), options);
        int unavailable = 0;
        int ok = 0;
        for (int i = 0; i < 3; ++i) {
            client.call(put("client/large", std::string(20'000, 'x')), {},
                        [&](const Reply<v3::PutResponse>& reply) {
                            ok += reply.ok() ? 1 : 0;
                            unavailable += reply.outcome == Outcome::kUnavailable ? 1 : 0;
                        });
        }
        ASSERT_TRUE(run.until([&] { return ok + unavailable == 3; }));
        EXPECT_EQ(ok, 2);
        std::optional<Reply<v3::RangeResponse>> said;
        client.call(get("client/large"), {}, [&](const Reply<v3::RangeResponse>& reply) { said = reply; });
        ASSERT_TRUE(run.until([&] { return said.has_value(); }));
        EXPECT_EQ(said->outcome, Outcome::kRefused);
        EXPECT_EQ(said->code, 8);
    }
    run.settle();
}

TEST(Client, CancelledCallsAndADestroyedClientSayNothing) {
    http::test::LoopRun run;
    ClientOptions options;
    options.endpoints = one().endpoints();
    auto client = std::make_unique<Client>(run.loop(), options);
    int told = 0;
    const CallId id = client->call(get("x"), {}, [&](const Reply<v3::RangeResponse>&) { ++told; });
    client->cancel(id);
    client->call(get("x"), {}, [&](const Reply<v3::RangeResponse>&) { ++told; });
    client->call(get("x"), {}, [&](const Reply<v3::RangeResponse>&) {
        ++told;
        client.reset();  // from within a callback, with another call behind it
    });
    client->call(get("x"), {}, [&](const Reply<v3::RangeResponse>&) { told += 100; });
    ASSERT_TRUE(run.until([&] { return told == 2; }));
    run.settle();
    EXPECT_EQ(told, 2);
}

TEST(Client, WithoutAnEndpointThatAnswersACallEndsAtItsDeadline) {
    const int listening = http::test::listen_on_loopback();  // accepts, and never answers
    const std::string silent = uv::local_address(listening).text();
    const int closed = http::test::listen_on_loopback();
    const std::string refusing = uv::local_address(closed).text();
    ::close(closed);
    {
        Bench bench({refusing});
        const auto write = bench.call(put("x", "y"), {.timeout = 300ms});
        EXPECT_EQ(write.outcome, Outcome::kUnavailable);
        EXPECT_NE(write.reason.find(refusing), std::string::npos) << write.reason;
    }
    {
        Bench bench({silent});
        EXPECT_EQ(bench.call(put("x", "y"), {.timeout = 300ms}).outcome, Outcome::kUnknown);
        EXPECT_EQ(bench.call(get("x"), {.timeout = 300ms}).outcome, Outcome::kUnavailable);
        EXPECT_EQ(bench.call(put("x", "y"), {.timeout = 300ms, .repeatable = true}).outcome,
                  Outcome::kUnknown);
    }
    {
        Bench bench({"no-such-host.invalid:1"});
        EXPECT_EQ(bench.call(get("x"), {.timeout = 300ms}).outcome, Outcome::kUnavailable);
    }
    {
        Bench bench({refusing, one().endpoints()[0], refusing});
        for (int i = 0; i < 20; ++i)
            EXPECT_TRUE(bench.call(put("client/among", "x")).ok());
    }
    ::close(listening);
}

// Members are killed with kill -9 and stopped with SIGSTOP while one writes. What was acknowledged is there, what was "not
// done" is not, and nothing is there twice.
TEST(Client, SaysTheTruthAboutEachWriteWhileMembersAreKilledAndStopped) {
    ServerCluster cluster(3);
    Bench bench(cluster.endpoints());
    std::set<int> done;
    std::set<int> not_done;
    int unknown = 0;
    const auto write = [&](int n) {
        const auto reply = bench.call(put("truth/" + std::to_string(n), "x"), {.timeout = 4s});
        if (reply.ok()) done.insert(n);
        if (reply.outcome == Outcome::kUnavailable) not_done.insert(n);
        unknown += reply.outcome == Outcome::kUnknown ? 1 : 0;
        EXPECT_NE(reply.outcome, Outcome::kRefused) << reply.reason;
    };
    int n = 0;
    for (const bool kill : {true, false}) {
        const std::size_t victim = bench.current(cluster);
        // Some are under way when it happens.
        int outstanding = 0;
        bench.run.in_event([&] {
            for (int i = 0; i < 50; ++i, ++n) {
                ++outstanding;
                bench.client->call(put("truth/" + std::to_string(n), "x"), {.timeout = 4s},
                                   [&, n](const Reply<v3::PutResponse>& reply) {
                                       if (reply.ok()) done.insert(n);
                                       if (reply.outcome == Outcome::kUnavailable) not_done.insert(n);
                                       unknown += reply.outcome == Outcome::kUnknown ? 1 : 0;
                                       --outstanding;
                                   });
            }
        });
        ASSERT_TRUE(bench.run.until([&] { return outstanding < 45; }));
        kill ? cluster.kill(victim) : cluster.pause(victim);
        ASSERT_TRUE(bench.run.until([&] { return outstanding == 0; }));
        for (int i = 0; i < 20; ++i)
            write(n++);
        kill ? cluster.start(victim) : cluster.resume(victim);
        write(n++);
    }
    const auto all = bench.must(get_prefix("truth/"));
    std::set<int> there;
    for (const v3::KeyValue& kv : all.body.kvs()) {
        there.insert(std::stoi(kv.key().substr(6)));
        EXPECT_EQ(kv.version(), 1) << kv.key() << " was written twice";
    }
    for (const int written : done)
        EXPECT_TRUE(there.contains(written)) << written << " was acknowledged";
    for (const int absent : not_done)
        EXPECT_FALSE(there.contains(absent)) << absent << " was reported as not done";
    EXPECT_EQ(done.size() + not_done.size() + static_cast<std::size_t>(unknown), static_cast<std::size_t>(n));
    EXPECT_GE(done.size(), 30u);
}

TEST(Client, ReadsGoOnWhenTheirEndpointStops) {
    ServerCluster cluster(3);
    Bench bench(cluster.endpoints());
    bench.must(put("k", "v"));
    const std::size_t victim = bench.current(cluster);
    cluster.pause(victim);
    EXPECT_EQ(bench.value("k"), "v");
    EXPECT_NE(bench.current(cluster), victim);
    cluster.resume(victim);
}

}  // namespace
}  // namespace outrider::agent
