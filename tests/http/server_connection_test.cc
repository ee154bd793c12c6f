// Bytes in, bytes out: ServerConnection over real sockets.
#include "base/http/server_connection.h"

#include <random>
#include <string>

#include "tests/http/server_fixture.h"

namespace outrider::http::test {
namespace {

using Body = ServerExchange::Body;
using AbortReason = ServerExchange::AbortReason;

// A script that leaves the answer to the test.
const Hook kWait = [](ScriptedExchange&) {};

// A message whose last bytes never come.
std::string cut(const std::string& message) {
    return message.substr(0, message.size() - 2);
}

class ServerConnectionTest : public ServerFixture {};

// ---- sequences ----------------------------------------------------------------------------------------------------

TEST_F(ServerConnectionTest, KeepsAliveOverManyRequests) {
    connect();
    for (int i = 0; i < 20; ++i) {
        const std::string target = "/" + std::to_string(i);
        const std::string expected = ok("GET " + target);
        EXPECT_EQ(exchange(get(target), expected.size()), expected);
        EXPECT_TRUE(connection().idle());
    }
    const std::string expected = ok("POST /p hello");
    EXPECT_EQ(exchange(post("/p", "hello"), expected.size()), expected);
    client().half_close();
    EXPECT_TRUE(until([&] { return closed() && client().eof(); }));
    EXPECT_EQ(client().received(), "");
}

TEST_F(ServerConnectionTest, ReadsAChunkedBodyWithItsTrailers) {
    connect();
    const std::string request =
        "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n";
    const std::string expected = ok("POST /c abcdefg");
    EXPECT_EQ(exchange(request + get("/next"), expected.size() + ok("GET /next").size()),
              expected + ok("GET /next"));
    EXPECT_THAT(story("/c").trailers, testing::ElementsAre("X-Sum=7"));
}

TEST_F(ServerConnectionTest, WritesChunksAndTrailersWhenTheLengthIsUnknown) {
    scripts_["/c"].request = [](ScriptedExchange& e) {
        e.begin(200, Body::kUnknown);
        e.piece("hello");
        e.piece("");
        const std::vector<std::string_view> two = {", ", "world"};
        e.write_body(two, false);
        const Field trailer{"X-Sum", "9"};
        e.finish({&trailer, 1});
    };
    connect();
    const std::string expected =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\nX-Sum: "
        "9\r\n\r\n";
    EXPECT_EQ(exchange(get("/c"), expected.size()), expected);
}

TEST_F(ServerConnectionTest, InformationalResponsesComeBeforeTheFinalOne) {
    scripts_["/i"].request = [](ScriptedExchange& e) {
        e.send_informational(100, "Continue", 0, [](HeadWriter&) {});
    };
    scripts_["/i"].end = [](ScriptedExchange& e) { e.answer(200, e.story.body); };
    connect();
    client().send("PUT /i HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    ASSERT_TRUE(until([&] { return client().got("\r\n\r\n"); }));
    EXPECT_EQ(client().take(), "HTTP/1.1 100 Continue\r\n\r\n");
    EXPECT_EQ(exchange("hi", ok("hi").size()), ok("hi"));
}

TEST_F(ServerConnectionTest, ResponsesToHeadAndBodilessStatusesHaveNoBody) {
    scripts_["/204"].request = [](ScriptedExchange& e) { e.answer(204, "no"); };
    scripts_["/304"].request = [](ScriptedExchange& e) { e.answer(304, "no"); };
    scripts_["/unknown"].request = [](ScriptedExchange& e) {
        e.begin(200, Body::kUnknown);
        e.piece("no");
        e.finish();
    };
    connect();
    const std::string head = "HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n";
    const std::string expected =
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
        "HTTP/1.1 204 No Content\r\n\r\n"
        "HTTP/1.1 304 Not Modified\r\n\r\n"
        "HTTP/1.1 200 OK\r\n\r\n" +
        ok("GET /after");
    EXPECT_EQ(exchange(head + get("/204") + get("/304") + "HEAD /unknown HTTP/1.1\r\nHost: a\r\n\r\n" +
                           get("/after"),
                       expected.size()),
              expected);
}

TEST_F(ServerConnectionTest, ConnectionCloseIsAnsweredAndEndsTheConnection) {
    connect();
    EXPECT_EQ(all_until_close(get("/a", "Connection: close\r\n") + get("/never")), closing("GET /a"));
    expect_closes();
    EXPECT_FALSE(has_story("/never") && story("/never").requests != 0);
}

// ---- HTTP/1.0 -----------------------------------------------------------------------------------------------------

TEST_F(ServerConnectionTest, ClosesForA10ClientThatDoesNotAsk) {
    connect();
    EXPECT_EQ(all_until_close("GET /a HTTP/1.0\r\n\r\n"), closing("GET /a"));
    expect_closes();
}

TEST_F(ServerConnectionTest, KeepsAliveFor10ClientsThatAsk) {
    connect();
    const std::string request = "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    const std::string expected = ok("GET /a", "Connection: keep-alive\r\n");
    EXPECT_EQ(exchange(request, expected.size()), expected);
    EXPECT_EQ(exchange(request, expected.size()), expected);
}

TEST_F(ServerConnectionTest, BodiesOfUnknownLengthFor10ClientsEndWithTheConnection) {
    scripts_["/u"].request = [](ScriptedExchange& e) {
        e.begin(200, Body::kUnknown);
        e.piece("until ");
        e.piece("close");
        e.finish();
    };
    connect();
    EXPECT_EQ(all_until_close("GET /u HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
              "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil close");
    EXPECT_FALSE(client().was_reset());
    expect_closes();
}

TEST_F(ServerConnectionTest, ACutBodyOfUnknownLengthIsResetSoThatItDoesNotLookWhole) {
    scripts_["/u"].request = [](ScriptedExchange& e) {
        e.begin(200, Body::kUnknown);
        e.piece("until");
    };
    connect();
    client().send("GET /u HTTP/1.0\r\n\r\n");
    ASSERT_TRUE(until([&] { return client().got("until"); }));
    run_.in_event([&] { live("/u")->abort_response(); });
    EXPECT_TRUE(until([&] { return client().over() && closed(); }));
    EXPECT_TRUE(client().was_reset());
}

TEST_F(ServerConnectionTest, NothingIsSentOfAnAnswerThatIsCutBehindAnother) {
    scripts_["/slow"].request = kWait;
    scripts_["/u"].request = [](ScriptedExchange& e) {
        e.begin(200, Body::kUnknown);
        e.piece("until");
        e.abort_response();
    };
    connect();
    client().send(get("/slow") + "GET /u HTTP/1.0\r\n\r\n");
    ASSERT_TRUE(wait_for("/u"));
    answer("/slow", "a");
    EXPECT_EQ(all_until_close(""), ok("a"));
    expect_closes();
}

TEST_F(ServerConnectionTest, AKilledBodyOfUnknownLengthIsResetAsWell) {
    scripts_["/u"].request = [](ScriptedExchange& e) {
        e.begin(200, Body::kUnknown);
        e.piece("until");
    };
    connect();
    client().send("GET /u HTTP/1.0\r\n\r\n");
    ASSERT_TRUE(until([&] { return client().got("until"); }));
    run_.in_event([&] { connection().kill(AbortReason::kShutdown); });
    EXPECT_TRUE(until([&] { return client().over() && closed(); }));
    EXPECT_TRUE(client().was_reset());
    EXPECT_EQ(story("/u").aborts, 1);
}

TEST_F(ServerConnectionTest, ACutChunkedBodyHasNoLastChunk) {
    scripts_["/c"].request = [](ScriptedExchange& e) {
        e.begin(200, Body::kUnknown);
        e.piece("cut");
        e.abort_response();
    };
    connect();
    EXPECT_EQ(all_until_close(get("/c") + get("/never")),
              "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ncut\r\n");
    expect_closes();
    EXPECT_FALSE(has_story("/never"));
}

// ---- pipelining ---------------------------------------------------------------------------------------------------

TEST_F(ServerConnectionTest, SafeRequestsRunTogetherAndAreAnsweredInOrder) {
    scripts_["/slow"].request = kWait;
    scripts_["/b"].request = kWait;
    connect();
    client().send(get("/slow") + get("/b") + get("/c"));
    ASSERT_TRUE(wait_for("/c"));
    answer("/b", "b");
    settle();
    EXPECT_EQ(client().received(), "") << "held until the first is answered";
    EXPECT_EQ(connection().in_flight(), 3u);
    const std::string expected = ok("a") + ok("b") + ok("GET /c");
    answer("/slow", "a");
    ASSERT_TRUE(until([&] { return client().received().size() >= expected.size(); }));
    EXPECT_EQ(client().take(), expected);
    EXPECT_TRUE(connection().idle());
}

TEST_F(ServerConnectionTest, UnsafeRequestsWaitForWhatIsBeforeThem) {
    scripts_["/slow"].request = kWait;
    scripts_["/p"].end = kWait;
    connect();
    client().send(get("/slow") + post("/p", "hello") + get("/last"));
    ASSERT_TRUE(wait_for("/slow"));
    settle();
    EXPECT_EQ(connection().in_flight(), 2u);
    EXPECT_FALSE(has_story("/p")) << "not begun";
    answer("/slow", "a");
    ASSERT_TRUE(until([&] { return has_story("/p") && story("/p").ends == 1; }));
    EXPECT_EQ(story("/p").body, "hello");
    settle();
    EXPECT_FALSE(has_story("/last")) << "nothing runs beside a request that is not safe";
    answer("/p", "p");
    const std::string expected = ok("a") + ok("p") + ok("GET /last");
    ASSERT_TRUE(until([&] { return client().received().size() >= expected.size(); }));
    EXPECT_EQ(client().take(), expected);
}

TEST_F(ServerConnectionTest, NoMoreThanPipelinedMaxAreTakenAtOnce) {
    limits_.pipelined_max = 3;
    connect();
    std::string requests;
    std::string expected;
    for (int i = 0; i < 10; ++i) {
        const std::string target = "/" + std::to_string(i);
        scripts_[target].request = kWait;
        requests += get(target);
        expected += ok(target);
    }
    client().send(requests);
    for (int i = 0; i < 10; ++i) {
        const std::string target = "/" + std::to_string(i);
        ASSERT_TRUE(wait_for(target));
        settle();
        EXPECT_LE(connection().in_flight(), 3u);
        EXPECT_EQ(has_story("/" + std::to_string(i + 3)), false);
        answer(target, target);
    }
    ASSERT_TRUE(until([&] { return client().received().size() >= expected.size(); }));
    EXPECT_EQ(client().take(), expected);
}

TEST_F(ServerConnectionTest, ALaterAnswerIsHeldWithinBounds) {
    constexpr std::size_t kBig = 4 * 1024 * 1024;
    scripts_["/slow"].request = kWait;
    scripts_["/big"].request = [](ScriptedExchange& e) { e.stream(Body::kLength, kBig); };
    connect();
    client().send(get("/slow") + get("/big"));
    ASSERT_TRUE(wait_for("/big"));
    settle();
    EXPECT_LE(produced_, 64u * 1024) << "the producer is told to wait";
    answer("/slow", "a");
    const std::string head = "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(kBig) + "\r\n\r\n";
    const std::size_t size = ok("a").size() + head.size() + kBig;
    ASSERT_TRUE(until([&] { return client().received().size() >= size; }));
    EXPECT_TRUE(client().received() == ok("a") + head + std::string(kBig, 'z'));
    EXPECT_LE(queued_max_, 256u * 1024);
}

TEST_F(ServerConnectionTest, AFinishedHeldAnswerLeavesWhenItsTurnComes) {
    scripts_["/slow"].request = kWait;
    const std::string big(3'000'000, 'b');
    scripts_["/big"].request = [&](ScriptedExchange& e) { e.answer(200, big); };
    connect();
    client().send(get("/slow") + get("/big") + get("/c"));
    ASSERT_TRUE(wait_for("/slow"));
    settle();
    answer("/slow", "a");
    const std::string expected = ok("a") + ok(big) + ok("GET /c");
    ASSERT_TRUE(until([&] { return client().received().size() >= expected.size(); }));
    EXPECT_TRUE(client().take() == expected);
}

TEST_F(ServerConnectionTest, ARequestBehindABlockedAnswerWaits) {
    const std::string big(2'000'000, 'b');
    scripts_["/big"].request = [&](ScriptedExchange& e) { e.answer(200, big); };
    scripts_["/stream"].request = [](ScriptedExchange& e) { e.stream(Body::kUnknown, 1'000'000); };
    connect(16 * 1024);
    client().stop_reading();
    client().send(get("/big"));
    ASSERT_TRUE(until([&] { return connection().idle() && has_story("/big") && connection().blocked(); }));
    client().send(get("/stream"));
    settle();
    EXPECT_FALSE(has_story("/stream"));  // not begun while what is owed already is not taken
    client().start_reading();
    ASSERT_TRUE(until([&] { return client().got("\r\n0\r\n\r\n"); }));
    EXPECT_EQ(produced_, 1'000'000u);
}

TEST_F(ServerConnectionTest, ARequestBehindAnUnansweredOneThatClosesIsNeverStarted) {
    scripts_["/slow"].request = kWait;
    connect();
    client().send(get("/slow", "Connection: close\r\n") + get("/b"));
    ASSERT_TRUE(wait_for("/slow"));
    settle();
    answer("/slow", "a");
    EXPECT_EQ(all_until_close(""), closing("a"));
    expect_closes();
    EXPECT_EQ(story("/b").requests, 0);
    EXPECT_EQ(story("/b").aborts, 0);
}

// ---- what is no request -------------------------------------------------------------------------------------------

TEST_F(ServerConnectionTest, GoodRequestsAreAnsweredBeforeTheBadOne) {
    scripts_["/slow"].request = kWait;
    connect();
    client().send(get("/slow") + get("/b") + "G(T / HTTP/1.1\r\n\r\n" + get("/never"));
    ASSERT_TRUE(until([&] { return has_story("!400"); }));
    settle();
    client().send(get("/never"));
    settle();
    EXPECT_EQ(client().received(), "");
    answer("/slow", "a");
    EXPECT_EQ(all_until_close(""),
              ok("a") + ok("GET /b") +
                  "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    expect_closes();
    EXPECT_FALSE(has_story("/never"));
}

TEST_F(ServerConnectionTest, ABadChunkIsAnsweredWith400AndClosed) {
    scripts_["/c"].request = kWait;
    connect();
    EXPECT_EQ(all_until_close("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX" +
                              get("/never")),
              "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    expect_closes();
    EXPECT_EQ(story("/c").bad, 1);
    EXPECT_EQ(story("/c").aborts, 0);
    EXPECT_FALSE(has_story("/never"));
}

TEST_F(ServerConnectionTest, ABadChunkAfterTheAnswerBeganCutsTheAnswer) {
    scripts_["/c"].request = [](ScriptedExchange& e) { e.begin(200, Body::kLength, 10); };
    connect();
    EXPECT_EQ(all_until_close("POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX"),
              "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n");
    expect_closes();
}

TEST_F(ServerConnectionTest, AHeadBeyondTheLimitIsAnsweredWith431) {
    limits_.parser.head_bytes_max = 1024;
    connect();
    const std::string answer = all_until_close(get("/a", "X: " + std::string(5000, 'x') + "\r\n"));
    EXPECT_EQ(answer.substr(0, 13), "HTTP/1.1 431 ");
    expect_closes();
}

TEST_F(ServerConnectionTest, RefuseAnswersWithItsStatusWhateverComes) {
    connect();
    run_.in_event([&] { connection().refuse(503, "too many connections"); });
    client().send(get("/never"));
    EXPECT_EQ(all_until_close(""),
              "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    expect_closes();
    EXPECT_FALSE(has_story("/never"));
    EXPECT_FALSE(client().was_reset());
}

// ---- half-close ---------------------------------------------------------------------------------------------------

TEST_F(ServerConnectionTest, AHalfClosedClientGetsItsAnswer) {
    scripts_["/slow"].request = kWait;
    connect();
    client().send(get("/slow"));
    client().half_close();
    ASSERT_TRUE(wait_for("/slow"));
    settle();
    EXPECT_EQ(client().received(), "");
    answer("/slow", "a");
    EXPECT_TRUE(until([&] { return client().eof() && closed(); }));
    EXPECT_EQ(client().received(), ok("a"));
}

TEST_F(ServerConnectionTest, AHalfClosedClientGetsTheWholeOfABigAnswer) {
    const std::string big(5'000'000, 'b');
    scripts_["/big"].request = [&](ScriptedExchange& e) { e.answer(200, big); };
    connect(16 * 1024);
    client().stop_reading();
    client().send(get("/big"));
    ASSERT_TRUE(until([&] { return has_story("/big") && connection().idle() && connection().blocked(); }));
    client().half_close();
    settle();
    client().start_reading();
    EXPECT_TRUE(until([&] { return client().over() && closed(); }));
    EXPECT_FALSE(client().was_reset());
    EXPECT_TRUE(client().received() == ok(big)) << client().received().size();
}

TEST_F(ServerConnectionTest, AHalfClosedClientGetsAnswersToRequestsThatHadToWait) {
    limits_.pipelined_max = 1;
    scripts_["/slow"].request = kWait;
    connect();
    client().send(get("/slow") + get("/b") + post("/p", "hello") + get("/c"));
    client().half_close();
    ASSERT_TRUE(wait_for("/slow"));
    settle();
    answer("/slow", "a");
    EXPECT_TRUE(until([&] { return client().eof() && closed(); }));
    EXPECT_EQ(client().received(), ok("a") + ok("GET /b") + ok("POST /p hello") + ok("GET /c"));
}

TEST_F(ServerConnectionTest, AWholeBodyThatHadToWaitIsNoBrokenRequest) {
    scripts_["/slow"].request = kWait;
    connect();
    client().send(get("/slow") + post("/p", "hello"));
    client().half_close();
    ASSERT_TRUE(wait_for("/slow"));
    settle();
    ASSERT_FALSE(closed());
    answer("/slow", "a");
    EXPECT_TRUE(until([&] { return client().eof() && closed(); }));
    EXPECT_EQ(client().received(), ok("a") + ok("POST /p hello"));
}

TEST_F(ServerConnectionTest, ABodyThatBreaksOffWhileItWaitsIsAbortedAfterTheAnswersBeforeIt) {
    scripts_["/slow"].request = kWait;
    connect();
    client().send(get("/slow") + cut(post("/p", "hello")));
    client().half_close();
    ASSERT_TRUE(wait_for("/slow"));
    settle();
    answer("/slow", "a");
    EXPECT_TRUE(until([&] { return client().over() && closed(); }));
    EXPECT_EQ(client().received(), ok("a"));
    EXPECT_EQ(story("/p").aborts, 1);
    EXPECT_EQ(story("/p").ends, 0);
}

TEST_F(ServerConnectionTest, AHalfCloseWithinAHeadEndsTheConnectionInSilence) {
    connect();
    client().send("GET /a HTT");
    client().half_close();
    EXPECT_TRUE(until([&] { return client().over() && closed(); }));
    EXPECT_EQ(client().received(), "");
    EXPECT_TRUE(stories_.empty());
}

TEST_F(ServerConnectionTest, ARequestThatBreaksOffIsAborted) {
    scripts_["/p"].end = kWait;
    connect();
    client().send(cut(post("/p", "hello")));
    ASSERT_TRUE(wait_for("/p"));
    client().half_close();
    EXPECT_TRUE(until([&] { return client().over() && closed(); }));
    EXPECT_EQ(story("/p").aborts, 1);
    EXPECT_EQ(story("/p").abort_reason, AbortReason::kClientGone);
    EXPECT_EQ(story("/p").ends, 0);
}

// ---- a client that goes away --------------------------------------------------------------------------------------

TEST_F(ServerConnectionTest, AResetBeforeAndBetweenRequestsIsQuiet) {
    connect();
    client().reset();
    EXPECT_TRUE(until([&] { return closed(); }));
    connect();
    exchange(get("/a"), ok("GET /a").size());
    client().reset();
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(story("/a").aborts, 0);
}

TEST_F(ServerConnectionTest, AResetWithinAHeadIsQuiet) {
    connect();
    client().send("GET /a HTTP/1.1\r\nHo");
    settle();
    client().reset();
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_TRUE(stories_.empty());
}

TEST_F(ServerConnectionTest, AResetWithinABodyAbortsOnce) {
    scripts_["/p"].end = kWait;
    connect();
    client().send(cut(post("/p", "hello")));
    ASSERT_TRUE(wait_for("/p"));
    client().reset();
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(story("/p").aborts, 1);
}

TEST_F(ServerConnectionTest, AResetWhileTheAnswerIsAwaitedAbortsAllThatBegan) {
    scripts_["/slow"].request = kWait;
    scripts_["/b"].request = [](ScriptedExchange& e) { e.begin(200, Body::kUnknown); };
    connect();
    client().send(get("/slow") + get("/b") + get("/done") + post("/p", "x"));
    ASSERT_TRUE(wait_for("/done"));
    settle();
    client().reset();
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(story("/slow").aborts, 1);
    EXPECT_EQ(story("/b").aborts, 1);
    EXPECT_EQ(story("/done").aborts, 0) << "nothing after finish()";
    EXPECT_EQ(story("/p").requests + story("/p").aborts, 0) << "never begun";
}

TEST_F(ServerConnectionTest, AResetWithinABlockedAnswerAbortsOnce) {
    scripts_["/big"].request = [](ScriptedExchange& e) { e.stream(Body::kUnknown, 50'000'000); };
    connect(16 * 1024);
    client().stop_reading();
    client().send(get("/big"));
    ASSERT_TRUE(until([&] { return has_story("/big") && story("/big").blocked != 0; }));
    client().reset();
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(story("/big").aborts, 1);
    EXPECT_LT(produced_, 10'000'000u);
}

TEST_F(ServerConnectionTest, AResetOfATunnelAbortsOnce) {
    scripts_["/t"].request = [](ScriptedExchange& e) {
        e.begin(101, Body::kNone);
        e.start_tunnel();
    };
    connect();
    client().send(get("/t", "Connection: upgrade\r\nUpgrade: x\r\n"));
    ASSERT_TRUE(until([&] { return client().got("\r\n\r\n"); }));
    client().reset();
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(story("/t").aborts, 1);
}

TEST_F(ServerConnectionTest, AResetWhileLingeringIsQuiet) {
    connect();
    EXPECT_EQ(all_until_close(get("/a", "Connection: close\r\n")), closing("GET /a"));
    client().reset();
    EXPECT_TRUE(until([&] { return closed(); }));
}

// ---- answers that overtake their request --------------------------------------------------------------------------

TEST_F(ServerConnectionTest, AnEarlyAnswerIsDeliveredAndTheRestIsNeverReadAsARequest) {
    scripts_["/p"].request = [](ScriptedExchange& e) { e.answer(413, "no"); };
    connect();
    client().send("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + get("/smuggled"));
    EXPECT_EQ(all_until_close(std::string(500'000, 'x')),
              "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
    client().send(get("/smuggled"));
    expect_closes();
    EXPECT_FALSE(client().was_reset()) << "our last bytes are not reset away";
    EXPECT_FALSE(has_story("/smuggled"));
    EXPECT_EQ(story("/p").body, "");
}

TEST_F(ServerConnectionTest, AnAnswerThatBeginsEarlyClosesEvenIfTheRequestCompletes) {
    scripts_["/p"].request = [](ScriptedExchange& e) { e.begin(200, Body::kUnknown); };
    scripts_["/p"].body = [](ScriptedExchange& e) { e.piece(e.story.body); };
    scripts_["/p"].end = [](ScriptedExchange& e) { e.finish(); };
    connect();
    EXPECT_EQ(
        all_until_close(post("/p", "hello") + get("/never")),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    expect_closes();
    EXPECT_FALSE(has_story("/never"));
}

TEST_F(ServerConnectionTest, AClientThatNeverClosesIsLetGo) {
    connect();
    EXPECT_EQ(all_until_close(get("/a", "Connection: close\r\n")), closing("GET /a"));
    EXPECT_TRUE(until([&] { return closed(); }));  // after the lingering's 2 s
}

TEST_F(ServerConnectionTest, AnAnswerFromWithinEveryCallbackIsSafe) {
    scripts_["/body"].body = [](ScriptedExchange& e) { e.answer(200, "early"); };
    scripts_["/abort-request"].request = [](ScriptedExchange& e) { e.abort_response(); };
    scripts_["/abort-body"].body = [](ScriptedExchange& e) { e.abort_response(); };
    scripts_["/abort-end"].end = [](ScriptedExchange& e) { e.abort_response(); };
    for (const std::string target : {"/body", "/abort-request", "/abort-body", "/abort-end"}) {
        connect();
        EXPECT_EQ(all_until_close(post(target, "hello") + get("/never")),
                  target == "/body" ? closing("early") : "")
            << target;
        expect_closes();
        EXPECT_EQ(story(target).aborts, 0) << target;
        EXPECT_FALSE(has_story("/never")) << target;
    }
}

TEST_F(ServerConnectionTest, AKillFromWithinEveryCallbackIsSafe) {
    const Hook kill = [&](ScriptedExchange& e) { e.connection().kill(AbortReason::kShutdown); };
    scripts_["/request"].request = kill;
    scripts_["/body"].body = kill;
    scripts_["/end"].end = kill;
    scripts_["!400"].bad = kill;
    for (const std::string target : {"/request", "/body", "/end"}) {
        connect();
        client().send(post(target, "hello") + get("/never"));
        EXPECT_TRUE(until([&] { return closed(); }));
        EXPECT_EQ(story(target).aborts, 1) << target;
        EXPECT_FALSE(has_story("/never")) << target;
    }
}

// ---- back-pressure ------------------------------------------------------------------------------------------------

TEST_F(ServerConnectionTest, ABigAnswerToASlowReaderIsBounded) {
    constexpr std::size_t kBig = 8 * 1024 * 1024;
    scripts_["/big"].request = [](ScriptedExchange& e) { e.stream(Body::kLength, kBig); };
    connect(16 * 1024);
    client().stop_reading();
    client().send(get("/big"));
    ASSERT_TRUE(until([&] { return has_story("/big") && story("/big").blocked != 0; }));
    settle();
    EXPECT_LT(produced_, 1024u * 1024);
    EXPECT_LE(connection().queued(), 64u * 1024);
    client().start_reading();
    ASSERT_TRUE(until([&] { return client().received().size() >= kBig; }));
    settle();
    EXPECT_GT(story("/big").drained, 0);
    EXPECT_LE(queued_max_, 64u * 1024);
    EXPECT_EQ(produced_, kBig);
    const std::string expected = ok("GET /next");
    client().take();
    EXPECT_EQ(exchange(get("/next"), expected.size()), expected);
}

TEST_F(ServerConnectionTest, APausedBodyHoldsTheClientBack) {
    constexpr std::size_t kBig = 8 * 1024 * 1024;
    scripts_["/p"].request = [](ScriptedExchange& e) { e.pause_request(); };
    scripts_["/p"].end = [](ScriptedExchange& e) { e.answer(200, "done"); };
    connect(64 * 1024);
    client().send(post("/p", std::string(kBig, 'x')));
    ASSERT_TRUE(wait_for("/p"));
    settle();
    EXPECT_LE(story("/p").body.size(), 128u * 1024);
    EXPECT_FALSE(client().all_sent());
    run_.in_event([&] { live("/p")->resume_request(); });
    ASSERT_TRUE(until([&] { return client().received() == ok("done"); }));
    EXPECT_EQ(story("/p").body.size(), kBig);
}

TEST_F(ServerConnectionTest, RequestsThatMustWaitAreKeptWithinBounds) {
    scripts_["/slow"].request = kWait;
    connect();
    std::string requests = get("/slow");
    std::string expected = ok("a");
    for (int i = 0; i < 20'000; ++i) {
        requests += post("/p", "x");
        expected += ok("POST /p x");
    }
    client().send(requests);
    ASSERT_TRUE(wait_for("/slow"));
    settle();
    EXPECT_FALSE(connection().reading()) << "the rest waits in the kernel";
    answer("/slow", "a");
    ASSERT_TRUE(until([&] { return client().received().size() >= expected.size(); }));
    EXPECT_TRUE(client().take() == expected);
}

// ---- tunnels ------------------------------------------------------------------------------------------------------

const std::string kUpgrade = "Connection: upgrade\r\nUpgrade: x\r\n";
const std::string kSwitched = "HTTP/1.1 101 Switching Protocols\r\n\r\n";

TEST_F(ServerConnectionTest, ATunnelCarriesBytesBothWays) {
    scripts_["/t"].request = [](ScriptedExchange& e) {
        e.begin(101, Body::kNone);
        e.start_tunnel();
    };
    scripts_["/t"].body = [](ScriptedExchange& e) { e.piece("echo:" + std::exchange(e.story.body, {})); };
    scripts_["/t"].end = [](ScriptedExchange& e) {
        e.piece("bye");
        e.finish();
    };
    connect();
    EXPECT_EQ(exchange(get("/t", kUpgrade), kSwitched.size()), kSwitched);
    EXPECT_EQ(exchange("GET / \n", 12), "echo:GET / \n");
    client().half_close();
    EXPECT_TRUE(until([&] { return client().eof() && closed(); }));
    EXPECT_EQ(client().received(), "bye");
}

TEST_F(ServerConnectionTest, BytesBehindAnUpgradeBelongToTheTunnel) {
    scripts_["/t"].request = kWait;
    scripts_["/t"].body = [](ScriptedExchange& e) { e.piece("echo:" + std::exchange(e.story.body, {})); };
    connect();
    client().send(get("/t", kUpgrade) + get("/inside"));
    ASSERT_TRUE(wait_for("/t"));
    settle();
    run_.in_event([&] {
        live("/t")->begin(101, Body::kNone);
        live("/t")->start_tunnel();
    });
    const std::string expected = kSwitched + "echo:" + get("/inside");
    ASSERT_TRUE(until([&] { return client().received().size() >= expected.size(); }));
    EXPECT_EQ(client().take(), expected);
    // Back-pressure holds in the tunnel as well.
    run_.in_event([&] { live("/t")->pause_request(); });
    EXPECT_FALSE(connection().reading());
    run_.in_event([&] { live("/t")->resume_request(); });
    EXPECT_TRUE(connection().reading());
}

TEST_F(ServerConnectionTest, BytesBehindARefusedUpgradeAreTheNextRequest) {
    scripts_["/t"].request = kWait;
    connect();
    client().send(get("/t", kUpgrade) + get("/next"));
    ASSERT_TRUE(wait_for("/t"));
    settle();
    answer("/t", "no");
    const std::string expected = ok("no") + ok("GET /next");
    ASSERT_TRUE(until([&] { return client().received().size() >= expected.size(); }));
    EXPECT_EQ(client().take(), expected);
}

TEST_F(ServerConnectionTest, ATunnelOfAHalfClosedClientHearsItsEnd) {
    scripts_["/t"].request = kWait;
    scripts_["/t"].end = [](ScriptedExchange& e) {
        e.piece("bye");
        e.finish();
    };
    connect();
    client().send(get("/t", kUpgrade) + "early");
    client().half_close();
    ASSERT_TRUE(wait_for("/t"));
    settle();
    run_.in_event([&] {
        live("/t")->begin(101, Body::kNone);
        live("/t")->start_tunnel();
    });
    EXPECT_TRUE(until([&] { return client().eof() && closed(); }));
    EXPECT_EQ(client().received(), kSwitched + "bye");
    EXPECT_EQ(story("/t").body, "early");
    EXPECT_EQ(story("/t").ends, 1);
}

TEST_F(ServerConnectionTest, OurEndOfATunnelLeavesTheirsOpen) {
    scripts_["/t"].request = [](ScriptedExchange& e) {
        e.begin(101, Body::kNone);
        e.start_tunnel();
        e.piece("all");
        e.finish();
    };
    scripts_["/t"].end = kWait;
    connect();
    EXPECT_EQ(all_until_close(get("/t", kUpgrade)), kSwitched + "all");
    client().send("more");
    ASSERT_TRUE(until([&] { return story("/t").body == "more"; }));
    client().half_close();
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(story("/t").ends, 1);
}

TEST_F(ServerConnectionTest, ATunnelWhoseClientNeverEndsItIsLetGo) {
    limits_.idle_timeout = 100ms;
    scripts_["/t"].request = [](ScriptedExchange& e) {
        e.begin(101, Body::kNone);
        e.start_tunnel();
        e.finish();
    };
    connect();
    EXPECT_EQ(all_until_close(get("/t", kUpgrade)), kSwitched);
    EXPECT_TRUE(until([&] { return closed(); }));
}

// ---- draining -----------------------------------------------------------------------------------------------------

TEST_F(ServerConnectionTest, ADrainingIdleConnectionClosesAfterItsSecond) {
    connect();
    EXPECT_EQ(exchange(get("/a"), ok("GET /a").size()), ok("GET /a"));
    const Instant began = uv::read_clock();
    run_.in_event([&] { connection().drain(); });
    EXPECT_TRUE(until([&] { return client().eof() && closed(); }));
    EXPECT_LT(uv::read_clock() - began, 3s);
}

TEST_F(ServerConnectionTest, ADrainingBusyConnectionClosesWithItsAnswer) {
    scripts_["/slow"].request = kWait;
    connect();
    client().send(get("/slow"));
    ASSERT_TRUE(wait_for("/slow"));
    run_.in_event([&] { connection().drain(); });
    settle();
    answer("/slow", "a");
    EXPECT_EQ(all_until_close(""), closing("a"));
    expect_closes();
}

TEST_F(ServerConnectionTest, ARequestWithinTheDrainsSecondIsStillAnswered) {
    connect();
    EXPECT_EQ(exchange(get("/a"), ok("GET /a").size()), ok("GET /a"));
    run_.in_event([&] { connection().drain(); });
    EXPECT_EQ(all_until_close(get("/b")), closing("GET /b"));
    expect_closes();
}

// ---- deadlines ----------------------------------------------------------------------------------------------------

TEST_F(ServerConnectionTest, ASilentNewConnectionIsClosedAfterTheHeaderTimeout) {
    limits_.header_timeout = 50ms;
    connect();
    EXPECT_TRUE(until([&] { return client().eof() && closed(); }));
    EXPECT_EQ(client().received(), "");
}

TEST_F(ServerConnectionTest, ASlowHeadIsAnsweredWith408) {
    limits_.header_timeout = 50ms;
    connect();
    EXPECT_EQ(all_until_close("GET /a HTTP/1.1\r\nHost"),
              "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    expect_closes();
}

TEST_F(ServerConnectionTest, ASlowSecondHeadIsAnsweredWith408BehindTheFirstAnswer) {
    limits_.header_timeout = 50ms;
    scripts_["/slow"].request = kWait;
    connect();
    client().send(get("/slow") + "GET /b HTTP");
    ASSERT_TRUE(until([&] { return has_story("!408"); }));
    EXPECT_EQ(client().received(), "");
    answer("/slow", "a");
    EXPECT_EQ(all_until_close(""),
              ok("a") + "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    expect_closes();
}

TEST_F(ServerConnectionTest, AnIdleConnectionIsClosedAfterTheIdleTimeout) {
    limits_.idle_timeout = 50ms;
    connect();
    EXPECT_EQ(exchange(get("/a"), ok("GET /a").size()), ok("GET /a"));
    EXPECT_TRUE(until([&] { return client().eof() && closed(); }));
    EXPECT_EQ(client().received(), "");
}

TEST_F(ServerConnectionTest, TheIdleTimeoutDoesNotCountWhileAnAnswerIsAwaited) {
    limits_.idle_timeout = 30ms;
    limits_.header_timeout = 30ms;
    scripts_["/slow"].request = kWait;
    connect();
    client().send(get("/slow"));
    ASSERT_TRUE(wait_for("/slow"));
    bool later = false;
    run_.loop().after(200ms, [&] { later = true; });
    ASSERT_TRUE(until([&] { return later; }));
    ASSERT_FALSE(closed());
    answer("/slow", "a");
    ASSERT_TRUE(until([&] { return client().received() == ok("a"); }));
}

TEST_F(ServerConnectionTest, ASlowBodyIsAnsweredWith408) {
    limits_.rate_window = 50ms;
    limits_.body_rate_min = 1000;
    scripts_["/p"].request = kWait;
    scripts_["/p"].end = kWait;
    connect();
    EXPECT_EQ(all_until_close(post("/p", std::string(1000, 'x')).substr(0, 60)),
              "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    expect_closes();
    EXPECT_EQ(story("/p").bad, 1);
    EXPECT_EQ(story("/p").aborts, 0);
}

TEST_F(ServerConnectionTest, ASlowBodyWhoseAnswerBeganIsAborted) {
    limits_.rate_window = 50ms;
    scripts_["/p"].request = [](ScriptedExchange& e) { e.begin(200, Body::kUnknown); };
    scripts_["/p"].end = kWait;
    connect();
    client().send(post("/p", std::string(1000, 'x')).substr(0, 60));
    EXPECT_TRUE(until([&] { return closed() && client().over(); }));
    EXPECT_EQ(story("/p").aborts, 1);
    EXPECT_EQ(story("/p").abort_reason, AbortReason::kBodyTimeout);
}

TEST_F(ServerConnectionTest, ABodyThatStopsIsTimedOutEvenWithoutALeastRate) {
    limits_.rate_window = 20ms;
    limits_.body_rate_min = 0;
    limits_.body_idle_timeout = 100ms;
    scripts_["/p"].request = kWait;
    connect();
    const std::string answer = all_until_close(post("/p", std::string(1000, 'x')).substr(0, 60));
    EXPECT_EQ(answer.substr(0, 13), "HTTP/1.1 408 ");
    expect_closes();
}

TEST_F(ServerConnectionTest, ABodyThatWePausedIsNotSlow) {
    limits_.rate_window = 20ms;
    limits_.body_idle_timeout = 50ms;
    scripts_["/p"].request = [](ScriptedExchange& e) { e.pause_request(); };
    connect();
    const std::string request = post("/p", "hello");
    client().send(request.substr(0, request.size() - 5));
    ASSERT_TRUE(wait_for("/p"));
    bool later = false;
    run_.loop().after(200ms, [&] { later = true; });
    ASSERT_TRUE(until([&] { return later; }));
    ASSERT_EQ(story("/p").bad + story("/p").aborts, 0);
    client().send("hello");
    run_.in_event([&] { live("/p")->resume_request(); });
    ASSERT_TRUE(until([&] { return story("/p").ends == 1; }));
}

TEST_F(ServerConnectionTest, ABodyThatWaitsBehindAnAnswerIsNotSlow) {
    limits_.rate_window = 20ms;
    limits_.body_idle_timeout = 50ms;
    scripts_["/slow"].request = kWait;
    connect();
    client().send(get("/slow") + post("/p", "hello") + get("/c"));
    ASSERT_TRUE(wait_for("/slow"));
    bool later = false;
    run_.loop().after(200ms, [&] { later = true; });
    ASSERT_TRUE(until([&] { return later; }));
    ASSERT_FALSE(closed());
    answer("/slow", "a");
    const std::string expected = ok("a") + ok("POST /p hello") + ok("GET /c");
    until([&] { return client().received().size() >= expected.size() || closed(); });
    EXPECT_EQ(client().take(), expected);
}

TEST_F(ServerConnectionTest, ASlowReaderIsCutOff) {
    limits_.rate_window = 50ms;
    scripts_["/big"].request = [](ScriptedExchange& e) { e.stream(Body::kUnknown, 50'000'000); };
    connect(16 * 1024);
    client().stop_reading();
    client().send(get("/big"));
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(story("/big").aborts, 1);
    EXPECT_EQ(story("/big").abort_reason, AbortReason::kReadTimeout);
}

TEST_F(ServerConnectionTest, AReaderThatIgnoresAFinishedAnswerIsCutOff) {
    limits_.rate_window = 50ms;
    const std::string big(60'000, 'b');
    scripts_["/big"].request = [&](ScriptedExchange& e) { e.answer(200, big); };
    connect(16 * 1024);
    client().stop_reading();
    client().send(get("/big"));
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(story("/big").aborts, 0) << "finished long ago";
}

TEST_F(ServerConnectionTest, ASteadyReaderIsNotCutOff) {
    limits_.rate_window = 20ms;
    scripts_["/big"].request = [](ScriptedExchange& e) { e.stream(Body::kLength, 3'000'000); };
    connect(16 * 1024);
    client().send(get("/big"));
    EXPECT_TRUE(until([&] { return client().received().size() > 3'000'000; }));
    bool later = false;
    run_.loop().after(100ms, [&] { later = true; });
    ASSERT_TRUE(until([&] { return later; }));
    EXPECT_FALSE(closed());
}

// ---- fragmentation ------------------------------------------------------------------------------------------------

TEST_F(ServerConnectionTest, FragmentsNeverChangeTheBytesOut) {
    scripts_["/c"].end = [](ScriptedExchange& e) {
        e.begin(200, Body::kUnknown);
        e.piece(e.story.body);
        e.finish();
    };
    const std::string in = get("/1") + post("/2", "hello") +
                           "\r\nPOST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "5\r\nhello\r\n1;e\r\n!\r\n0\r\nX-T: 1\r\n\r\n" +
                           "HEAD /3 HTTP/1.1\r\nHost: a\r\n\r\n" + get("/4") + "G(T / HTTP/1.1\r\n\r\n" +
                           get("/never");
    const std::string whole_chunk = "6\r\nhello!\r\n";
    const std::string out = ok("GET /1") + ok("POST /2 hello") +
                            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + whole_chunk +
                            "0\r\n\r\n" + "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n" + ok("GET /4") +
                            "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (unsigned seed = 0; seed < 60; ++seed) {
        std::mt19937 random(seed);
        connect();
        const std::size_t piece_max = 1 + random() % 40;
        for (std::size_t at = 0; at < in.size();) {
            const std::size_t size = 1 + random() % piece_max;
            client().send(std::string_view(in).substr(at, size));
            at += size;
            if (random() % 2 == 0) run_.settle(2);
        }
        ASSERT_TRUE(until([&] { return client().over(); }));
        EXPECT_EQ(client().take(), out) << "seed " << seed;
        expect_closes();
        EXPECT_FALSE(has_story("/never")) << "seed " << seed;
    }
}

// Any order of answers, any sizes, any cuts: the client sees its answers in order and whole.
TEST_F(ServerConnectionTest, AnyOrderOfAnswersComesOutInOrder) {
    for (unsigned seed = 0; seed < 40; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        std::mt19937 random(seed);
        limits_.pipelined_max = 1 + random() % 8;
        connect(random() % 2 == 0 ? 16 * 1024 : 0);
        std::string in;
        std::string expected;
        const std::size_t before = stories_.size();
        std::map<std::string, std::string> answers;
        for (int i = 0; i < 12; ++i) {
            const std::string target = "/" + std::to_string(seed) + "/" + std::to_string(i);
            const std::string body(random() % 3 == 0 ? random() % 200'000 : random() % 20,
                                   static_cast<char>('a' + i));
            const bool unsafe = random() % 4 == 0;
            in += unsafe ? post(target, body.substr(0, 3000)) : get(target);
            scripts_[target].request = kWait;
            scripts_[target].end = kWait;
            answers[target] = body;
            expected += ok(body);
        }
        client().send(in);
        if (random() % 2 == 0) client().half_close();
        while (stories_.size() - before < 12 || !exchanges_.empty()) {
            const auto ready = [&] {
                std::vector<ScriptedExchange*> out;
                for (const auto& e : exchanges_) {
                    if (e->story.requests == 1 && !e->response_started() && e->request_complete())
                        out.push_back(e.get());
                }
                return out;
            };
            if (!until([&] {
                    return !ready().empty() || closed() ||
                           (exchanges_.empty() && stories_.size() - before == 12);
                })) {
                break;
            }
            const auto choice = ready();
            if (choice.empty()) break;
            const std::string target = choice[random() % choice.size()]->story.target;
            answer(target, answers[target]);
        }
        until([&] { return client().received().size() >= expected.size() || client().over(); });
        ASSERT_TRUE(client().received() == expected)
            << client().received().size() << " of " << expected.size();
        client().half_close();
        ASSERT_TRUE(until([&] { return closed(); }));
    }
}

}  // namespace
}  // namespace outrider::http::test
