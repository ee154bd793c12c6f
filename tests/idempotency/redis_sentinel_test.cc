// A master that is killed, with a replica and a Sentinel that makes it the master.
#include "tests/idempotency/redis_fixture.h"

namespace outrider::idempotency::test {
namespace {

bool server_has(const RedisServer& server, const std::string& key) {
    return server.ask({"HGET", key, "phase"}) == "done";
}

RedisServer sentinel_of(const RedisServer& master) {
    return RedisServer::sentinel(
        {"sentinel monitor payments 127.0.0.1 " + std::to_string(master.port()) + " 1",
         "sentinel down-after-milliseconds payments 300", "sentinel failover-timeout payments 3000"});
}

config::StoreSettings settings_of(std::vector<config::HostPort> sentinels, const std::string& service) {
    config::StoreSettings settings;
    settings.name = "orders";
    settings.kind = config::StoreKind::kRedis;
    settings.url.sentinel = true;
    settings.url.hosts = std::move(sentinels);
    settings.url.service = service;
    settings.operation_timeout = 2s;
    settings.connect_timeout = 500ms;
    return settings;
}

TEST(RedisSentinel, TheStoreFollowsTheMasterThroughAFailover) {
    const LogText log;
    RedisServer master;
    const RedisServer replica({"--replicaof", "127.0.0.1", std::to_string(master.port())});
    const RedisServer sentinel = sentinel_of(master);
    // The first one is down.
    Worker worker(settings_of({{"127.0.0.1", free_port()}, sentinel.address()}, "payments"));
    TestCall first, duplicate, fresh;
    worker.settle(worker.asked(first, "k"), "k", answer("before"));
    EXPECT_TRUE(first.durable);
    const std::string key = "outrider:" + digest("k").hex();
    ASSERT_TRUE(worker.eventually([&] { return server_has(replica, key); }));
    ASSERT_TRUE(worker.eventually([&] {
        return sentinel.ask({"SENTINEL", "replicas", "payments"}).find(std::to_string(replica.port())) !=
               std::string::npos;
    }));
    master.kill();
    ASSERT_TRUE(worker.run.until([&] { return !worker.client->ready(); }));
    ASSERT_TRUE(worker.run.until([&] { return worker.client->ready(); })) << log.text();
    const auto* replay = worker.asked(duplicate, "k").as<policy::Replay>();
    ASSERT_NE(replay, nullptr) << log.text();
    EXPECT_EQ(replay->response->body, "before");
    worker.asked(fresh, "new");
    EXPECT_GT(fresh.owner().generation, first.owner().generation);
    EXPECT_NE(log.count("answers again"), 0u) << log.text();
}

TEST(RedisSentinel, AMasterThatNobodyKnowsIsSaid) {
    const RedisServer master;
    const RedisServer sentinel = sentinel_of(master);
    const LogText log;
    Worker worker(settings_of({sentinel.address()}, "paymets"), false);
    ASSERT_TRUE(worker.run.until([&] { return !worker.shared->report.problem().empty(); }));
    EXPECT_EQ(log.count("no Sentinel names a master for \"paymets\""), 1u) << log.text();
    EXPECT_EQ(log.count("it knows no master of that name"), 1u) << log.text();
}

}  // namespace
}  // namespace outrider::idempotency::test
