// What the Redis store does when Redis is slow, gone, full, misconfigured, or something else altogether.
#include <array>

#include <poll.h>

#include "tests/idempotency/redis_fixture.h"

namespace outrider::idempotency::test {
namespace {

using policy::Settled;

TEST(RedisErrors, AreKnownByTheirFirstWordAlsoFromWithinAScript) {
    EXPECT_EQ(classify_redis_error("WRONGPASS invalid username-password pair or user is disabled."),
              RedisTrouble::kCredentials);
    EXPECT_EQ(classify_redis_error("NOAUTH Authentication required."), RedisTrouble::kCredentials);
    EXPECT_EQ(classify_redis_error("LOADING Redis is loading the dataset in memory"), RedisTrouble::kLoading);
    EXPECT_EQ(classify_redis_error(
                  "READONLY You can't write against a read only replica. script: 1f, on @user_script:9."),
              RedisTrouble::kReadOnly);
    EXPECT_EQ(classify_redis_error(
                  "ERR Error running script (call to f_12): @user_script:7: -OOM command not allowed when "
                  "used memory > 'maxmemory'."),
              RedisTrouble::kMemoryFull);
    EXPECT_EQ(classify_redis_error(
                  "ERR Error running script (call to f_12): @user_script: 7: -READONLY You can't write"),
              RedisTrouble::kReadOnly);
    EXPECT_EQ(classify_redis_error("MISCONF Redis is configured to save RDB snapshots"),
              RedisTrouble::kCannotPersist);
    EXPECT_EQ(classify_redis_error("MOVED 3999 127.0.0.1:6381"), RedisTrouble::kCluster);
    EXPECT_EQ(classify_redis_error("CLUSTERDOWN The cluster is down"), RedisTrouble::kCluster);
    EXPECT_EQ(classify_redis_error("ERR unknown command"), RedisTrouble::kOther);
    EXPECT_EQ(classify_redis_error(""), RedisTrouble::kOther);
}

TEST(RedisErrors, AreReportedOnceAChangeWithoutControlCharacters) {
    const LogText log;
    const Instant now{};
    RedisReport report("orders");
    report.well("here:1");
    EXPECT_EQ(log.text(), "");
    report.trouble(RedisTrouble::kOther, "here:1", "ERR a\nb", now);
    report.trouble(RedisTrouble::kOther, "here:1", "ERR a\nb", now);
    EXPECT_EQ(log.count("store orders: Redis at here:1 answers with an error: ERR a?b"), 1u) << log.text();
    report.well("here:1");
    report.well("here:1");
    EXPECT_EQ(log.count("answers again"), 1u);
    EXPECT_EQ(report.problem(), "");
}

TEST(RedisErrors, ThatComeAndGoDoNotFillTheLog) {
    const LogText log;
    RedisReport report("orders");
    for (int millis = 0; millis < 9999; ++millis) {
        report.trouble(RedisTrouble::kSlow, "here:1", {}, Instant(std::chrono::milliseconds(millis)));
        EXPECT_NE(report.problem(), "");
        report.well("here:1");
    }
    EXPECT_EQ(log.count("does not answer"), 1u);
    EXPECT_EQ(log.count("answers again"), 1u);
    report.trouble(RedisTrouble::kReadOnly, "here:1", {}, Instant(9999ms));
    EXPECT_EQ(log.count("read-only"), 1u) << "another trouble is said at once";
    report.trouble(RedisTrouble::kSlow, "here:1", {}, Instant(20s));
    EXPECT_EQ(log.count("does not answer"), 2u);
}

TEST(RedisErrors, ThatComeSoonAgainAndStayAreSaid) {
    const LogText log;
    RedisReport report("orders");
    report.trouble(RedisTrouble::kUnreachable, "here:1", "refused", Instant(1s));
    report.well("here:1");
    for (int second = 2; second < 60; ++second)
        report.trouble(RedisTrouble::kUnreachable, "here:1", "refused",
                       Instant(std::chrono::seconds(second)));
    EXPECT_EQ(log.count("cannot be reached"), 2u) << log.text();
    report.well("here:1");
    EXPECT_EQ(log.count("answers again"), 2u) << log.text();
}

TEST(RedisFailures, AStoreThatIsDownSaysSoAtOnceAndComesBack) {
    const LogText log;
    RedisServer server;
    Worker worker(settings_for(server));
    TestCall before, down, after;
    worker.asked(before, "k");
    server.kill();
    ASSERT_TRUE(worker.run.until([&] { return !worker.client->ready(); }));
    EXPECT_NE(worker.asked(down, "k").as<policy::StoreFailed>(), nullptr);
    EXPECT_EQ(worker.errors.value(), 1u);
    EXPECT_EQ(worker.shared->connected, 0u);
    server.start();
    ASSERT_TRUE(worker.run.until([&] { return worker.client->ready(); }));
    EXPECT_EQ(worker.shared->connected, 1u);
    EXPECT_EQ(worker.shared->clients, 1u);
    EXPECT_NE(worker.asked(after, "k").as<policy::Forward>(), nullptr);  // it kept nothing: no persistence
    EXPECT_EQ(log.count("cannot be reached"), 1u) << log.text();
    EXPECT_EQ(log.count("answers again"), 1u) << log.text();
}

TEST(RedisFailures, AClaimWhoseAnswerCameTooLateIsReleased) {
    RedisServer server;
    config::StoreSettings settings = settings_for(server);
    settings.operation_timeout = 400ms;
    Worker worker(settings);
    TestCall call, duplicate;
    server.pause();
    EXPECT_NE(worker.asked(call, "k").as<policy::StoreFailed>(), nullptr);
    EXPECT_TRUE(worker.client->ready()) << "one late reply does not break a connection";
    server.resume();
    // Made by the late question, released by us: otherwise this one would wait for the lease of 30 s.
    EXPECT_NE(worker.asked(duplicate, "k").as<policy::Forward>(), nullptr);
    EXPECT_EQ(call.verdicts, 1);
}

TEST(RedisFailures, AClaimWhoseConnectionBrokeIsReleased) {
    RedisServer server;
    config::StoreSettings settings = settings_for(server);
    settings.operation_timeout = 500ms;
    Worker worker(settings);
    TestCall call, duplicate;
    server.pause();
    EXPECT_NE(worker.asked(call, "k").as<policy::StoreFailed>(), nullptr);
    ASSERT_TRUE(worker.run.until([&] { return !worker.client->ready(); }));
    server.resume();
    ASSERT_TRUE(worker.run.until([&] { return worker.client->ready(); }));
    EXPECT_NE(worker.asked(duplicate, "k", {.wait_timeout = 5s}).as<policy::Forward>(), nullptr);
}

TEST(RedisFailures, AReportThatCouldNotBeMadeIsMadeLater) {
    RedisServer server;
    config::StoreSettings settings = settings_for(server);
    settings.operation_timeout = 500ms;
    Worker worker(settings);
    TestCall first, duplicate;
    worker.asked(first, "k");
    server.pause();
    worker.settle(first, "k", answer("kept"));
    EXPECT_EQ(first.settled, Settled::kRecorded);
    EXPECT_FALSE(first.durable);
    ASSERT_TRUE(worker.run.until([&] { return !worker.client->ready(); }));
    server.resume();
    ASSERT_TRUE(worker.run.until([&] { return worker.client->ready(); }));
    const auto* replay = worker.asked(duplicate, "k", {.wait_timeout = 5s}).as<policy::Replay>();
    ASSERT_NE(replay, nullptr);
    EXPECT_EQ(replay->response->body, "kept");
    EXPECT_EQ(first.settles, 1);
}

TEST(RedisFailures, AWrongPasswordIsSaidWithoutIt) {
    const LogText log;
    const RedisServer server({"--requirepass", "right-horse"});
    config::StoreSettings settings = settings_for(server);
    settings.url.password = "wrong-donkey";
    Worker worker(settings, false);
    TestCall call;
    ASSERT_TRUE(worker.run.until([&] { return !worker.shared->report.problem().empty(); }));
    EXPECT_NE(worker.asked(call, "k").as<policy::StoreFailed>(), nullptr);
    EXPECT_EQ(log.count("refuses the user or password"), 1u) << log.text();
    EXPECT_EQ(log.count("donkey"), 0u);
    EXPECT_EQ(log.count("horse"), 0u);
}

// Redis quotes the arguments of a command that it does not know.
TEST(RedisFailures, APasswordIsNotShownByARedisThatKnowsNoAuth) {
    const LogText log;
    const RedisServer server({"--rename-command", "AUTH", ""});
    config::StoreSettings settings = settings_for(server);
    settings.url.password = "wrong-donkey";
    Worker worker(settings, false);
    ASSERT_TRUE(worker.run.until([&] { return !worker.shared->report.problem().empty(); }));
    EXPECT_EQ(log.count("refuses the user or password"), 1u) << log.text();
    EXPECT_EQ(log.count("donkey"), 0u) << log.text();
    EXPECT_EQ(worker.shared->report.problem().find("donkey"), std::string::npos);
}

TEST(RedisFailures, TheRightPasswordUserAndDatabaseAreUsed) {
    const RedisServer server(
        {"--requirepass", "right-horse", "--user", "ada", "on", ">pw", "~*", "&*", "+@all"});
    config::StoreSettings settings = settings_for(server);
    settings.url.user = "ada";
    settings.url.password = "pw";
    settings.url.db = 3;
    Worker worker(settings);
    TestCall call;
    worker.asked(call, "k");
    EXPECT_NE(server.ask({"INFO", "keyspace"}, "right-horse").find("db3:keys=2"), std::string::npos);
}

TEST(RedisFailures, AReplicaIsNoStoreAndAMasterThatBecomesOneIsLeft) {
    const LogText log;
    const RedisServer server;
    Worker worker(settings_for(server));
    TestCall down, after;
    EXPECT_EQ(server.ask({"REPLICAOF", "127.0.0.1", "1"}), "OK");
    EXPECT_NE(worker.asked(down, "k").as<policy::StoreFailed>(), nullptr);
    ASSERT_TRUE(worker.run.until([&] { return !worker.client->ready(); }));
    EXPECT_EQ(log.count("is a read-only replica"), 1u) << log.text();
    EXPECT_EQ(server.ask({"REPLICAOF", "NO", "ONE"}), "OK");
    ASSERT_TRUE(worker.run.until([&] { return worker.client->ready(); }));
    EXPECT_NE(worker.asked(after, "k").as<policy::Forward>(), nullptr);
}

TEST(RedisFailures, AFullRedisIsAFullStoreUntilThereIsRoom) {
    const LogText log;
    const RedisServer server;
    Worker worker(settings_for(server));
    TestCall full, after;
    EXPECT_EQ(server.ask({"CONFIG", "SET", "maxmemory", "1"}), "OK");
    EXPECT_NE(worker.asked(full, "k").as<policy::StoreFull>(), nullptr);
    EXPECT_EQ(log.count("has reached its maxmemory"), 1u) << log.text();
    EXPECT_EQ(server.ask({"CONFIG", "SET", "maxmemory", "0"}), "OK");
    EXPECT_NE(worker.asked(after, "k").as<policy::Forward>(), nullptr);
    EXPECT_EQ(worker.shared->report.problem(), "");
}

TEST(RedisFailures, EvictionIsWarnedOfOnce) {
    const LogText log;
    const RedisServer server({"--maxmemory-policy", "allkeys-lru"});
    const auto shared = std::make_shared<RedisShared>(settings_for(server));
    const Worker one(shared);
    const Worker two(shared);
    EXPECT_EQ(log.count("may evict keys (maxmemory-policy is allkeys-lru)"), 1u) << log.text();
}

TEST(RedisFailures, WithoutThePermissionToPublishThoseWhoWaitStillGetTheAnswer) {
    const RedisServer server({"--user", "ada", "on", ">pw", "~*", "resetchannels", "+@all"});
    config::StoreSettings settings = settings_for(server);
    settings.url.user = "ada";
    settings.url.password = "pw";
    Worker worker(settings);
    Worker other(worker.shared);
    TestCall first, second;
    worker.asked(first, "k");
    other.arrive(second, "k");
    ASSERT_TRUE(other.run.until([&] { return other.shared->waiting == 1; }));
    worker.settle(first, "k", answer("polled"));
    EXPECT_TRUE(first.durable);
    ASSERT_TRUE(other.run.until([&] { return second.verdicts == 1; }));
    EXPECT_NE(second.as<policy::Replay>(), nullptr);
}

TEST(RedisFailures, OperatorsAreToldWhyThereIsNoAnswer) {
    config::StoreSettings settings;
    settings.name = "orders";
    settings.kind = config::StoreKind::kRedis;
    settings.url.hosts = {{"127.0.0.1", free_port()}};
    settings.connect_timeout = 100ms;
    LoopRun run;
    const auto store = make_redis_store(settings, run.loop(), {});
    std::optional<StoreStatus> status;
    std::optional<Result<KeyView>> view;
    run.in_event([&] {
        store->status([&](StoreStatus said) { status = std::move(said); });
        store->look(digest("k"), [&](auto said) { view.emplace(std::move(said)); });
    });
    ASSERT_TRUE(run.until([&] { return status && view; }));
    EXPECT_FALSE(status->ok);
    EXPECT_NE(status->problem.find("Connection refused"), std::string::npos) << status->problem;
    EXPECT_FALSE(view->ok());
}

// Something else listens there. Whatever it says, the process goes on.
TEST(RedisFailures, AServerThatIsNoRedisIsLeft) {
    for (const std::string greeting :
         {"+OK POP3 ready\r\n", ":1\r\n:2\r\n:3\r\n:4\r\n:5\r\n:6\r\n:7\r\n:8\r\n:9\r\n:10\r\n",
          "220 mail\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "$-5\r\n",
          "-LOADING Redis is loading the dataset in memory\r\n"}) {
        LoopRun run;
        const int listening = http::test::listen_on_loopback();
        config::StoreSettings settings;
        settings.name = "orders";
        settings.kind = config::StoreKind::kRedis;
        settings.url.hosts = {{"127.0.0.1", uv::local_address(listening).port()}};
        settings.connect_timeout = 200ms;
        std::vector<std::unique_ptr<http::test::Peer>> peers;
        auto* acceptor = new uv::Acceptor(run.loop(), listening, [&](int fd) {
            peers.push_back(std::make_unique<http::test::Peer>(run.loop(), fd));
            peers.back()->send(greeting);
        });
        RedisShared shared(settings);
        const auto client = std::make_unique<RedisClient>(
            run.loop(), std::shared_ptr<RedisShared>(std::shared_ptr<void>(), &shared), StoreCells{});
        ASSERT_TRUE(run.until([&] { return peers.size() > 1 && !shared.report.problem().empty(); }))
            << greeting;
        EXPECT_FALSE(client->ready());
        client->close();
        run.in_event([&] { uv::Acceptor::close(acceptor); });
        peers.clear();
        run.settle(3);
    }
}

}  // namespace
}  // namespace outrider::idempotency::test
