// Bytes in, bytes out: what a pipelined connection makes of each thing that a server can do. Of everything at once:
// pipelined_channel_property_test.cc.
#include <random>

#include "tests/proxy/pipelined_channel_fixture.h"

namespace outrider::proxy::test {
namespace {

TEST_F(PipelinedChannelTest, OneTurnsRequestsLeaveInOneWriteInTheirOrder) {
    open();
    run_.in_event([&] {
        for (int i = 0; i < 10; ++i)
            ask("r" + std::to_string(i));
        EXPECT_EQ(channel_->bytes_written(), 0u) << "they wait for the end of the turn";
    });
    ASSERT_TRUE(run_.until([&] { return server_->got("/r9 "); }));
    std::size_t at = 0;
    for (int i = 0; i < 10; ++i) {
        const std::size_t found = server_->received().find("GET /r" + std::to_string(i) + " ");
        ASSERT_NE(found, std::string::npos);
        EXPECT_GE(found, at);
        at = found;
    }
    std::string all;
    for (int i = 0; i < 10; ++i)
        all += answer("r" + std::to_string(i));
    server_->send(all);
    ASSERT_TRUE(run_.until([&] { return all_over(); }));
    expect_nothing_astray();
    EXPECT_EQ(counted_, 10);
    EXPECT_EQ(channel_->line().answered_pipelined(), 9u);
}

// Every way to cut the bytes; chunks, HEAD and 1xx among them.
TEST_F(PipelinedChannelTest, FragmentsNeverMoveAnAnswerToAnotherRequest) {
    std::mt19937 random(20261124);
    for (int round = 0; round < 60; ++round) {
        open();
        const int count = 1 + static_cast<int>(random() % 12);
        std::string wire;
        run_.in_event([&] {
            for (int i = 0; i < count; ++i) {
                const std::string name = "r" + std::to_string(i) + std::string(random() % 40, 'x');
                const bool head = random() % 5 == 0;
                Rider& r = ask(name, head);
                if (random() % 4 == 0) wire += "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
                if (head) {
                    wire += "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n";
                    r.name.clear();  // no body
                } else if (random() % 2 == 0) {
                    wire += "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n" + name.substr(0, 1) +
                            "\r\n";
                    char size[8];
                    std::snprintf(size, sizeof size, "%zx", name.size() - 1);
                    wire += std::string(size) + "\r\n" + name.substr(1) + "\r\n0\r\nX-T: 1\r\n\r\n";
                } else {
                    wire += answer(name);
                }
            }
        });
        ASSERT_TRUE(run_.until([&] { return server_->got("/r" + std::to_string(count - 1)); }));
        for (std::size_t at = 0; at < wire.size();) {
            const std::size_t size =
                std::min<std::size_t>(1 + random() % (round % 2 == 0 ? 5 : 200), wire.size() - at);
            server_->send(std::string_view(wire).substr(at, size));
            run_.settle(1);
            at += size;
        }
        ASSERT_TRUE(run_.until([&] { return all_over(); }));
        for (const auto& r : riders_)
            EXPECT_TRUE(r->heard.ends_with("200;end;")) << r->heard;
        expect_nothing_astray();
        EXPECT_FALSE(gone_);
    }
}

TEST_F(PipelinedChannelTest, AResetAfterAnyNumberOfAnswersKeepsTheseAndHandsTheRestBack) {
    constexpr int kCount = 6;
    for (int k = 0; k <= kCount; ++k) {
        for (const bool partial : {false, true}) {
            if (partial && k == kCount) continue;
            open();
            ask_many(kCount);
            std::string all;
            for (int i = 0; i < k; ++i)
                all += answer("r" + std::to_string(i));
            if (partial) all += "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nr";
            server_->send(all);
            ASSERT_TRUE(run_.until([&] {
                const auto done = static_cast<int>(channel_->line().answered());
                return done == k && (!partial || rider(static_cast<std::size_t>(k)).body == "r");
            }));
            server_->reset();
            ASSERT_TRUE(run_.until([&] { return gone_ && all_over(); }));
            for (int i = 0; i < kCount; ++i) {
                const std::string expected = i < k               ? "200;end;"
                                             : i == k && partial ? "200;incomplete;"
                                                                 : "returned;";
                EXPECT_EQ(rider(static_cast<std::size_t>(i)).heard, expected) << "k=" << k << " i=" << i;
                if (expected == "returned;") {
                    EXPECT_TRUE(rider(static_cast<std::size_t>(i)).failure.request_sent);
                }
            }
            expect_nothing_astray();
            EXPECT_EQ(end_, k == kCount ? policy::ChannelEnd::kIdle : policy::ChannelEnd::kBroke);
            EXPECT_EQ(start_alone_, k + (partial ? 1 : 0) < kCount);
        }
    }
}

TEST_F(PipelinedChannelTest, AnAnswerThatClosesHandsBackThoseBehindAtOnce) {
    open();
    ask_many(3);
    server_->send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n");
    ASSERT_TRUE(run_.until([&] { return rider(1).over() && rider(2).over(); }));
    EXPECT_EQ(rider(0).heard, "200;");
    EXPECT_EQ(rider(1).heard, "returned;");
    EXPECT_EQ(channel_->refusal(run_.loop().now()), policy::Channel::Refusal::kEnded);
    server_->send("r0");
    ASSERT_TRUE(run_.until([&] { return gone_; }));
    EXPECT_EQ(rider(0).heard, "200;end;");
    expect_nothing_astray();
    EXPECT_EQ(end_, policy::ChannelEnd::kClosed);
}

TEST_F(PipelinedChannelTest, ABodyUntilTheEndOfTheConnectionIsWholeAndTheLast) {
    open();
    ask_many(2);
    server_->send("HTTP/1.1 200 OK\r\n\r\nr0");
    server_->half_close();
    ASSERT_TRUE(run_.until([&] { return gone_ && all_over(); }));
    EXPECT_EQ(rider(0).heard, "200;end;");
    EXPECT_EQ(rider(1).heard, "returned;");
    expect_nothing_astray();
}

TEST_F(PipelinedChannelTest, AnHttp10AnswerIsTheLast) {
    open();
    ask_many(2);
    server_->send("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nr0");
    ASSERT_TRUE(run_.until([&] { return gone_ && all_over(); }));
    EXPECT_EQ(rider(0).heard, "200;end;");
    EXPECT_EQ(end_, policy::ChannelEnd::kHttp10);
}

TEST_F(PipelinedChannelTest, BytesThatNobodyAskedForEndItAndGoToNobody) {
    open();
    server_->send(answer("stray"));
    ASSERT_TRUE(run_.until([&] { return gone_; }));
    EXPECT_EQ(end_, policy::ChannelEnd::kUnasked);
    EXPECT_EQ(unanswered_, 0u) << "no confusion: nobody waited";

    open();
    ask_many(1);
    server_->send(answer("r0") + answer("stray"));
    ASSERT_TRUE(run_.until([&] { return gone_; }));
    EXPECT_EQ(rider(0).heard, "200;end;");
    expect_nothing_astray();
}

// The request leaves at the turn's end: what was read before is no answer to it.
TEST_F(PipelinedChannelTest, WhatIsReadInTheTurnOfTheRequestIsNoAnswerToIt) {
    open();
    ask_many(1);
    rider(0).at_end = [&] { ask("r1"); };
    server_->send(answer("r0") + answer("stray"));
    ASSERT_TRUE(run_.until([&] { return gone_ && all_over(); }));
    EXPECT_EQ(rider(0).heard, "200;end;");
    EXPECT_EQ(rider(1).heard, "returned;");
    EXPECT_FALSE(rider(1).failure.request_sent);
    EXPECT_EQ(end_, policy::ChannelEnd::kUnasked);
}

TEST_F(PipelinedChannelTest, MalformedBytesFailTheFrontAlone) {
    open();
    ask_many(3);
    server_->send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n");
    ASSERT_TRUE(run_.until([&] { return gone_ && all_over(); }));
    EXPECT_EQ(rider(0).heard, "protocol;");
    EXPECT_EQ(rider(1).heard, "returned;");
    EXPECT_EQ(rider(2).heard, "returned;");
}

TEST_F(PipelinedChannelTest, ASwitchOfProtocolsFailsTheFront) {
    open();
    ask_many(2);
    server_->send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
    ASSERT_TRUE(run_.until([&] { return gone_ && all_over(); }));
    EXPECT_EQ(rider(0).heard, "protocol;");
    EXPECT_EQ(rider(1).heard, "returned;");
}

TEST_F(PipelinedChannelTest, WhoLeavesIsAnsweredToNobody) {
    open();
    ask_many(3);
    run_.in_event([&] { channel_->leave(rider(1).id); });
    server_->send(answer("r0") + answer("r1") + answer("r2"));
    ASSERT_TRUE(run_.until([&] { return rider(2).over(); }));
    EXPECT_EQ(rider(1).heard, "");
    EXPECT_EQ(rider(2).heard, "200;end;");
    expect_nothing_astray();
    EXPECT_FALSE(gone_);
}

TEST_F(PipelinedChannelTest, WhoLeavesBeforeItWasWrittenKeepsItsPlaceInTheLine) {
    open();
    run_.in_event([&] {
        ask("r0");
        channel_->leave(ask("r1").id);
        ask("r2");
    });
    ASSERT_TRUE(run_.until([&] { return server_->got("/r2 "); }));
    EXPECT_TRUE(server_->got("/r1 "));
    server_->send(answer("r0") + answer("r1") + answer("r2"));
    ASSERT_TRUE(run_.until([&] { return rider(2).over(); }));
    EXPECT_EQ(rider(1).heard, "");
    expect_nothing_astray();
}

TEST_F(PipelinedChannelTest, ASilentUpstreamTimesTheFrontOutAndFreesTheOthers) {
    open({.read = 50ms});
    ask_many(3);
    ASSERT_TRUE(run_.until([&] { return gone_ && all_over(); }));
    EXPECT_EQ(rider(0).heard, "timeout;");
    EXPECT_EQ(rider(1).heard, "returned;");
    EXPECT_EQ(rider(2).heard, "returned;");
}

TEST_F(PipelinedChannelTest, AnIdleOneIsClosedInTime) {
    open({.read = 10s, .idle = 50ms});
    ask_many(1);
    server_->send(answer("r0"));
    ASSERT_TRUE(run_.until([&] { return gone_; }));
    EXPECT_EQ(rider(0).heard, "200;end;");
    EXPECT_EQ(end_, policy::ChannelEnd::kGivenUp);
}

TEST_F(PipelinedChannelTest, ASlowClientIsBoundedAndThoseBehindGoElsewhere) {
    open({.read = 10s, .stall = 50ms});
    ask_many(3);
    rider(0).at_head = [&] { channel_->pause(rider(0).id); };
    constexpr std::size_t kSize = 4 * 1024 * 1024;
    server_->send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(kSize) + "\r\n\r\n" +
                  std::string(kSize, 'b') + answer("r1"));
    ASSERT_TRUE(run_.until([&] { return rider(1).over() && rider(2).over(); }));
    EXPECT_EQ(rider(1).heard, "returned;");
    EXPECT_EQ(rider(0).heard, "200;");
    EXPECT_LE(rider(0).body.size(), http::PipelinedConnection::kHeldMax + 2 * uv::TcpStream::kLargeRead);
    run_.in_event([&] { channel_->resume(rider(0).id); });
    ASSERT_TRUE(run_.until([&] { return gone_; }));
    EXPECT_EQ(rider(0).heard, "200;end;") << "the slow one gets all of it";
    EXPECT_EQ(rider(0).body.size(), kSize);
    EXPECT_EQ(end_, policy::ChannelEnd::kGivenUp);
    EXPECT_EQ(counted_, 0) << "its time says nothing about the upstream";
}

TEST_F(PipelinedChannelTest, AnEndlessAnswerForNobodyEndsIt) {
    open({.read = 10s});
    ask_many(2);
    run_.in_event([&] { channel_->leave(rider(0).id); });
    server_->send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" +
                  std::string(2 * http::PipelinedConnection::kDroppedMax, 'b'));
    ASSERT_TRUE(run_.until([&] { return gone_ && rider(1).over(); }));
    EXPECT_EQ(rider(1).heard, "returned;");
}

TEST_F(PipelinedChannelTest, ARetiredOneEndsWithItsLastAnswer) {
    open();
    ask_many(2);
    run_.in_event([&] { channel_->retire(); });
    EXPECT_EQ(channel_->refusal(run_.loop().now()), policy::Channel::Refusal::kEnded);
    server_->send(answer("r0") + answer("r1"));
    ASSERT_TRUE(run_.until([&] { return gone_; }));
    EXPECT_EQ(rider(1).heard, "200;end;");

    open();
    ask_many(1);
    run_.in_event([&] {
        channel_->retire();
        channel_->leave(rider(0).id);
    });
    EXPECT_TRUE(gone_) << "nobody waits any more";
}

TEST_F(PipelinedChannelTest, WhoAsksAgainFromItsEndGoesBehindTheOthers) {
    open();
    ask_many(2);
    rider(0).at_end = [&] { ask("r9"); };
    server_->send(answer("r0") + answer("r1"));
    ASSERT_TRUE(run_.until([&] { return server_->got("/r9 "); }));
    server_->send(answer("r9"));
    ASSERT_TRUE(run_.until([&] { return all_over(); }));
    expect_nothing_astray();
    EXPECT_EQ(rider(2).heard, "200;end;");
}

TEST_F(PipelinedChannelTest, OneThatCannotBeOpenedIsGone) {
    ::close(listening_);
    const int dead = http::test::listen_on_loopback();
    const uv::SocketAddress nowhere = uv::local_address(dead);
    ::close(dead);
    listening_ = http::test::listen_on_loopback();
    channel_ =
        new PipelinedChannel(run_.loop(), *this, limits_, scratch_, {}, policy::Channel::Start::kAlone, 0);
    run_.in_event([&] { channel_->open(nowhere, {}); });
    ASSERT_TRUE(run_.until([&] { return channel_ == nullptr; }));
    EXPECT_TRUE(gone_);
    EXPECT_FALSE(opened_);
    EXPECT_EQ(end_, policy::ChannelEnd::kIdle);
}

}  // namespace
}  // namespace outrider::proxy::test
