// Writes that take effect exactly once: what is sent again and with what, and real quorums whose members are killed.
#include <cstdlib>

#include "control/api/errors.h"
#include "control/api/requests.h"
#include "control/api/session.h"
#include "tests/agent/client_fixture.h"
#include "tests/agent/refusing_server.h"
#include "tests/agent/scripted_server.h"

namespace outrider::agent {
namespace {

using namespace test;

template <typename... Requests>
void expect_servers_word() {
    const auto same = [](const char* path, bool takes) {
        const auto call = api::find_call("POST", path);
        ASSERT_TRUE(std::holds_alternative<api::Call>(call)) << path;
        EXPECT_EQ(api::takes_session(std::get<api::Call>(call)), takes) << path;
    };
    (same(Rpc<Requests>::kPath, kTakesSession<Requests>), ...);
}

TEST(Sessions, TheClientAndTheServerAgreeOnWhatTheyCarry) {
    expect_servers_word<v3::RangeRequest, v3::PutRequest, v3::DeleteRangeRequest, v3::TxnRequest,
                        v3::CompactionRequest, v3::LeaseGrantRequest, v3::LeaseRevokeRequest,
                        v3::LeaseKeepAliveRequest, v3::LeaseTimeToLiveRequest, v3::StatusRequest,
                        v3::MemberAddRequest, v3::SessionOpenRequest, v3::SessionCloseRequest>();
}

// ---- against a script -------------------------------------------------------------------------------------------------

const std::string kDone = RefusingServer::http("200 OK", R"({"header":{"revision":"7"}})");

std::string opens(int session) {
    return RefusingServer::http("200 OK", R"({"session":")" + std::to_string(session) + "\"}");
}
std::string refuses(store::Status status) {
    const api::Answer answer =
        status == store::Status::kNoSpace ? api::refuse_without_space(Bytes{1 << 20}) : api::refuse(status);
    return RefusingServer::http(std::to_string(answer.status) + " Refused", answer.body);
}
std::string no_leader() {
    return RefusingServer::no_leader();
}

// Answers by turn; opening a session answers the number of its turn.
class OnceScript : public ::testing::Test {
  protected:
    // Of writes and, when `sessions` names any, of what opens them.
    void serve(std::vector<std::string> writes, std::vector<std::string> sessions = {}) {
        server_ = std::make_unique<ScriptedServer>(
            [this, writes = std::move(writes), sessions = std::move(sessions)](
                int n, const std::string& head) -> std::string {
                if (head.starts_with("POST /v3/session/open")) {
                    const std::size_t turn = opened_++;
                    return turn < sessions.size() ? sessions[turn] : opens(n + 1);
                }
                const std::size_t turn = written_++;
                return turn < writes.size() ? writes[turn] : kDone;
            });
        ClientOptions options;
        options.endpoints = {server_->endpoint()};
        options.backoff = {.first = 1ms, .max = 10ms};
        client_ = std::make_unique<Client>(run_.loop(), options);
    }
    void TearDown() override {
        client_.reset();
        run_.settle();
    }
    Reply<v3::PutResponse> once(Duration timeout = 10s) {
        std::optional<Reply<v3::PutResponse>> said;
        client_->call(put("x", "y"), {.timeout = timeout, .once = true},
                      [&](const auto& reply) { said = reply; });
        EXPECT_TRUE(run_.until([&] { return said.has_value(); }));
        return said.value_or(Reply<v3::PutResponse>{});
    }
    // "open", or "session/sequence" of a write, in the order they came.
    std::vector<std::string> sent() {
        std::vector<std::string> out;
        for (const std::string& head : server_->heads()) {
            const bool open = head.starts_with("POST /v3/session/open");
            out.push_back(open ? "open"
                               : ScriptedServer::field(head, "outrider-session") + "/" +
                                     ScriptedServer::field(head, "outrider-sequence"));
        }
        return out;
    }
    using Sent = std::vector<std::string>;

    http::test::LoopRun run_;
    std::size_t opened_ = 0;  // the server's
    std::size_t written_ = 0;
    std::unique_ptr<ScriptedServer> server_;
    std::unique_ptr<Client> client_;
};

TEST_F(OnceScript, AWriteOpensASessionAndTheNextOneGoesOnInIt) {
    serve({});
    EXPECT_TRUE(once().ok());
    EXPECT_TRUE(once().ok());
    EXPECT_EQ(sent(), (Sent{"open", "1/1", "1/2"}));
}

TEST_F(OnceScript, WithoutOnceNothingIsOpenedAndNoFieldIsSent) {
    serve({});
    bool said = false;
    client_->call(put("x", "y"), {}, [&](const auto&) { said = true; });
    ASSERT_TRUE(run_.until([&] { return said; }));
    EXPECT_EQ(sent(), Sent{"/"});
}

TEST_F(OnceScript, AnUnknownOutcomeIsRepeatedWithTheSameNumberUntilItIsKnown) {
    serve({"", no_leader(),
           RefusingServer::http("503 x", R"({"message":"etcdserver: leader changed","code":14})"), ""});
    const auto reply = once();
    EXPECT_TRUE(reply.ok()) << reply.reason;
    EXPECT_EQ(reply.body.header().revision(), 7);
    EXPECT_EQ(sent(), (Sent{"open", "1/1", "1/1", "1/1", "1/1", "1/1"}));
}

TEST_F(OnceScript, AnAnswerThatNeverComesIsUnknownAtTheDeadlineAndTheNextWriteHasAnotherNumber) {
    serve(std::vector<std::string>(10'000, ""));
    EXPECT_EQ(once(300ms).outcome, Outcome::kUnknown);
    const std::size_t before = sent().size();
    once(300ms);
    ASSERT_GT(sent().size(), before);
    EXPECT_EQ(sent()[1], "1/1");
    EXPECT_EQ(sent().back(), "1/2");
}

TEST_F(OnceScript, ASessionThatHasEndedIsReplaced) {
    serve({kDone, refuses(store::Status::kSessionUnknown)});
    EXPECT_TRUE(once().ok());
    EXPECT_TRUE(once().ok());
    EXPECT_EQ(sent(), (Sent{"open", "1/1", "1/2", "open", "4/1"}));
}

TEST_F(OnceScript, ASessionThatEndedWhileTheOutcomeWasOpenLeavesItOpen) {
    serve({"", refuses(store::Status::kSessionUnknown)});
    const auto reply = once();
    EXPECT_EQ(reply.outcome, Outcome::kUnknown);
    EXPECT_EQ(reply.code, 5);
    EXPECT_EQ(sent(), (Sent{"open", "1/1", "1/1"})) << "in another session it could take effect twice";
}

TEST_F(OnceScript, AClusterThatForgetsEverySessionIsNotAskedForEver) {
    serve(std::vector<std::string>(100, refuses(store::Status::kSessionUnknown)));
    const auto reply = once();
    EXPECT_EQ(reply.outcome, Outcome::kRefused);
    EXPECT_EQ(reply.code, 5);
    EXPECT_EQ(sent(), (Sent{"open", "1/1", "open", "3/1", "open", "5/1", "open", "7/1"}));
}

TEST_F(OnceScript, AFullStoreRefusesAFirstCopyAndSaysNothingOfTheOneBefore) {
    serve({refuses(store::Status::kNoSpace), "", refuses(store::Status::kNoSpace)});
    EXPECT_EQ(once().outcome, Outcome::kRefused);
    const auto reply = once();
    EXPECT_EQ(reply.outcome, Outcome::kUnknown);
    EXPECT_EQ(reply.code, 8);
    EXPECT_NE(reply.reason.find("control.max_store is 1MiB"), std::string::npos) << reply.reason;
}

TEST_F(OnceScript, WhatTookEffectAndCannotBeAnsweredIsUnknownAndSaysWhy) {
    serve({"", refuses(store::Status::kSessionAnswerGone)});
    const auto reply = once();
    EXPECT_EQ(reply.outcome, Outcome::kUnknown);
    EXPECT_EQ(reply.code, 9);
    EXPECT_EQ(reply.reason,
              "the command took effect when it was first sent; its answer was too large to be kept");
}

TEST_F(OnceScript, WhereThereAreNoSessionsItIsRefusedBeforeItIsSent) {
    for (const std::string& answer :
         {std::string("HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\nNot Found\n"),
          RefusingServer::http("404 Not Found", R"({"code":5,"message":"Not Found","details":[]})"),
          RefusingServer::http("200 OK", "welcome"), RefusingServer::http("200 OK", "{}")}) {
        opened_ = 0;
        client_.reset();
        serve({}, {answer});
        const auto reply = once();
        EXPECT_EQ(reply.outcome, Outcome::kRefused) << answer;
        EXPECT_EQ(reply.code, static_cast<int>(api::Code::kUnimplemented));
        EXPECT_EQ(reply.endpoint, server_->endpoint());
        EXPECT_NE(reply.reason.find("no client sessions"), std::string::npos) << reply.reason;
        EXPECT_EQ(sent(), Sent{"open"});
    }
}

TEST_F(OnceScript, WhenNoSessionIsToBeHadThoseInLineHearIt) {
    serve({}, {refuses(store::Status::kSessionsFull)});
    const auto reply = once();
    EXPECT_EQ(reply.outcome, Outcome::kRefused);
    EXPECT_EQ(reply.code, 8);
    EXPECT_EQ(reply.reason, "too many sessions are open: close some, or wait until idle ones end");
    EXPECT_TRUE(once().ok()) << "the next write asks anew";
}

TEST_F(OnceScript, WithoutASessionInTimeNothingTookEffect) {
    serve({}, std::vector<std::string>(10'000, no_leader()));
    const auto reply = once(300ms);
    EXPECT_EQ(reply.outcome, Outcome::kUnavailable);
    EXPECT_EQ(reply.reason, "no session was opened or free in time");
}

TEST_F(OnceScript, WhoIsInLineMayBeCancelledAndAClientDestroyedWithALine) {
    serve({});
    int told = 0;
    const auto write = [&](auto done) {
        return client_->call(put("x", "y"), {.once = true}, [&, done](const auto&) {
            ++told;
            done();
        });
    };
    std::vector<CallId> all;
    for (int i = 0; i < 5; ++i)
        all.push_back(write([] {}));
    client_->cancel(all[0]);
    client_->cancel(all[3]);
    ASSERT_TRUE(run_.until([&] { return told == 3; }));
    // Many, so that some are in line and some under way when the client goes, from within a callback.
    for (int i = 0; i < 100; ++i)
        write([&, i] {
            if (i == 20) client_.reset();
        });
    ASSERT_TRUE(run_.until([&] { return client_ == nullptr; }));
    const int before = told;
    run_.settle();
    EXPECT_EQ(told, before);
}

// ---- against real members ---------------------------------------------------------------------------------------------

bool on_outrider() {
    return std::getenv("OUTRIDER_CONTROL") != nullptr;
}

TEST(Once, AnEtcdHasNoSessionsAndIsToldApart) {
    if (on_outrider()) GTEST_SKIP() << "this is about etcd";
    ServerCluster cluster(1);
    Bench bench(cluster.endpoints());
    const auto reply = bench.call(put("once/etcd", "x"), {.once = true});
    EXPECT_EQ(reply.outcome, Outcome::kRefused);
    EXPECT_EQ(reply.code, static_cast<int>(api::Code::kUnimplemented)) << reply.reason;
    EXPECT_EQ(bench.value("once/etcd"), "(none)");
}

TEST(Once, EveryCallThatASessionCarriesIsServedAndSessionsAreGivenBack) {
    if (!on_outrider()) GTEST_SKIP() << "etcd has no sessions";
    ServerCluster cluster(1);
    Bench bench(cluster.endpoints());
    const CallOptions once{.once = true};
    EXPECT_TRUE(bench.call(put("once/a", "1"), once).ok());
    v3::TxnRequest txn;
    *txn.add_success()->mutable_request_put() = put("once/b", "2");
    const auto written = bench.call(txn, once);
    EXPECT_TRUE(written.ok());
    v3::LeaseGrantRequest grant;
    grant.set_ttl(60);
    const auto granted = bench.call(grant, once);
    EXPECT_TRUE(granted.ok());
    v3::LeaseRevokeRequest revoke;
    revoke.set_id(granted.body.id());
    EXPECT_TRUE(bench.call(revoke, once).ok());
    EXPECT_EQ(bench.call(revoke, once).code, 5) << "another write";
    v3::DeleteRangeRequest erase;
    erase.set_key("once/a");
    EXPECT_EQ(bench.call(erase, once).body.deleted(), 1);
    v3::CompactionRequest compaction;
    compaction.set_revision(written.body.header().revision());
    EXPECT_TRUE(bench.call(compaction, once).ok());
    EXPECT_TRUE(bench.call(get("once/b"), once).ok()) << "a read is a read";
    EXPECT_EQ(bench.client->sessions(), 1u);
    bool closed = false;
    bench.client->close_sessions([&] { closed = true; });
    EXPECT_TRUE(bench.run.until([&] { return closed; }));
    EXPECT_EQ(bench.client->sessions(), 0u);
    EXPECT_TRUE(bench.call(put("once/a", "3"), once).ok());
}

TEST(Once, AsManyAreUnderWayAsThereAreSessionsAndTheRestWaits) {
    if (!on_outrider()) GTEST_SKIP() << "etcd has no sessions";
    ServerCluster cluster(1);
    Bench bench(cluster.endpoints());
    int answered = 0;
    bench.run.in_event([&] {
        for (int i = 0; i < 200; ++i) {
            bench.client->call(put("once/many", std::to_string(i)), {.timeout = 20s, .once = true},
                               [&](const Reply<v3::PutResponse>& reply) {
                                   EXPECT_TRUE(reply.ok()) << reply.reason;
                                   ++answered;
                               });
        }
    });
    ASSERT_TRUE(bench.run.until([&] { return answered == 200; }));
    EXPECT_EQ(bench.client->sessions(), bench.client->options().sessions_max);
    EXPECT_EQ(bench.must(get("once/many")).body.kvs(0).version(), 200);
}

// Puts without a guard, which the key's version counts, while members are killed and stopped: each is told as done, and each was
// done once.
TEST(Once, EachWriteCountsOnceWhileMembersAreKilledAndStopped) {
    if (!on_outrider()) GTEST_SKIP() << "etcd has no sessions";
    ServerCluster cluster(3);
    Bench bench(cluster.endpoints());
    int written = 0;
    for (const bool kill : {true, false, true}) {
        const std::size_t victim = bench.current(cluster);
        int outstanding = 0;
        bench.run.in_event([&] {
            for (int i = 0; i < 200; ++i, ++written, ++outstanding) {
                bench.client->call(put("once/count", std::to_string(written)), {.timeout = 40s, .once = true},
                                   [&](const Reply<v3::PutResponse>& reply) {
                                       EXPECT_TRUE(reply.ok()) << reply.reason;
                                       --outstanding;
                                   });
            }
        });
        ASSERT_TRUE(bench.run.until([&] { return outstanding < 150; }));
        kill ? cluster.kill(victim) : cluster.pause(victim);
        ASSERT_TRUE(bench.run.until([&] { return outstanding == 0; }));
        kill ? cluster.start(victim) : cluster.resume(victim);
    }
    EXPECT_EQ(bench.must(get("once/count")).body.kvs(0).version(), written);
}

}  // namespace
}  // namespace outrider::agent
