// Bytes in, bytes out: ClientConnection over real sockets, against a server that the test plays itself.
#include "base/http/client_connection.h"

#include <memory>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "tests/base_uv/loop_fixture.h"

namespace outrider::http::test {
namespace {
using namespace std::chrono_literals;

// Notes what it hears, as text: "head 200", "body hi", "end", "failed reset"...
class Caller final : public ClientHandler {
  public:
    std::string heard;
    std::string body;
    std::vector<std::string> trailers;
    ClientFailure failure;
    int blocked = 0;
    int drained = 0;
    // Called in place of doing nothing; the connection is the caller's until its end.
    std::function<void()> connected, at_head, at_body, at_end, at_failed;

    void on_connected() override {
        heard += "connected;";
        if (connected) connected();
    }
    void on_response_head(ResponseHead& head) override {
        heard += "head " + std::to_string(head.status) + ";";
        if (at_head) at_head();
    }
    void on_response_body(std::span<const std::string_view> slices) override {
        for (const std::string_view s : slices)
            body += s;
        if (at_body) at_body();
    }
    void on_response_end(std::span<const Field> fields) override {
        for (const Field& f : fields)
            trailers.push_back(std::string(f.name) + "=" + std::string(f.value));
        heard += "end;";
        if (at_end) at_end();
    }
    void on_failed(const ClientFailure& f) override {
        failure = f;
        switch (f.error) {
            case ClientError::kConnectRefused:
                heard += "refused;";
                break;
            case ClientError::kConnectTimeout:
                heard += "connect timeout;";
                break;
            case ClientError::kReset:
                heard += "reset;";
                break;
            case ClientError::kIncomplete:
                heard += "incomplete;";
                break;
            case ClientError::kProtocol:
                heard += "protocol;";
                break;
            case ClientError::kReadTimeout:
                heard += "read timeout;";
                break;
            case ClientError::kWriteTimeout:
                heard += "write timeout;";
                break;
        }
        if (at_failed) at_failed();
    }
    void on_request_blocked() override { ++blocked; }
    void on_request_drained() override { ++drained; }
    bool over() const {
        return heard.find("end;") != std::string::npos || !std::string_view(failure.reason).empty();
    }
};

class ClientConnectionTest : public testing::Test, protected ClientOwner {
  protected:
    ClientConnectionTest() : listening_(listen_on_loopback()) {}
    ~ClientConnectionTest() override {
        ::close(listening_);
        if (connection_ != nullptr && gone_ < opened_) run_.in_event([&] { connection_->abandon(); });
        EXPECT_TRUE(run_.until([&] { return connection_ == nullptr; }));
        EXPECT_EQ(gone_, opened_) << "the owner is told once";
    }

    // A connection that is open, with the caller bound; the server's end is server().
    void open(ClientConnection::RequestOptions options = {}, int buffer_bytes = 0) {
        start(uv::local_address(listening_), options);
        if (buffer_bytes != 0) {
            ::setsockopt(listening_, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
        }
        ASSERT_TRUE(until([&] { return connection_->connected(); }));
        const int fd = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
        ASSERT_GE(fd, 0);
        server_ = std::make_unique<Peer>(run_.loop(), fd);
    }
    void start(const uv::SocketAddress& to, ClientConnection::RequestOptions options = {},
               Duration connect_timeout = 10s) {
        ++opened_;
        connection_ = new ClientConnection(run_.loop(), *this, limits_, scratch_);
        connection_->set_idle_timeout(idle_timeout_);
        run_.in_event([&] {
            connection_->bind(caller_, options);
            connection_->open(to, connect_timeout);
        });
    }
    void send(std::string_view request, bool whole = true) {
        run_.in_event([&] {
            connection_->write_copy(request);
            connection_->request_begun();
            if (whole) connection_->request_finished();
        });
        ASSERT_TRUE(until([&] { return server().got(request.substr(0, 1000)); }));
    }
    void rebind(Caller& caller, ClientConnection::RequestOptions options = {}) {
        run_.in_event([&] { connection_->bind(caller, options); });
    }
    // The request is sent, the answer too, and the story is over.
    std::string answer(std::string_view response) {
        send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        server().send(response);
        EXPECT_TRUE(until([&] { return caller_.over(); }));
        run_.settle();
        return std::exchange(caller_.heard, {});
    }

    Peer& server() { return *server_; }
    bool until(const std::function<bool()>& holds) { return run_.until(holds); }
    bool closed() const { return connection_ == nullptr; }

    void on_connection_idle(ClientConnection& connection) override {
        EXPECT_EQ(&connection, connection_);
        EXPECT_FALSE(connection.bound());
        ++idle_;
    }
    void on_connection_gone(ClientConnection& connection) override {
        EXPECT_EQ(&connection, connection_);
        ++gone_;
    }
    void on_connection_closed(ClientConnection& connection) override {
        EXPECT_EQ(&connection, connection_);
        EXPECT_EQ(gone_, opened_);
        delete connection_;
        connection_ = nullptr;
    }

    LoopRun run_;
    ParserLimits limits_;
    ParserScratch scratch_;
    Caller caller_;
    Duration idle_timeout_{};
    int listening_;
    std::unique_ptr<Peer> server_;
    ClientConnection* connection_ = nullptr;
    int opened_ = 0;
    int idle_ = 0;
    int gone_ = 0;
};

const std::string kHi = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

// ---- reuse --------------------------------------------------------------------------------------------------------

TEST_F(ClientConnectionTest, IsUsedAgainAfterAWholeAnswer) {
    open();
    for (int i = 1; i <= 10; ++i) {
        if (i > 1) rebind(caller_);
        EXPECT_EQ(answer(kHi), i == 1 ? "connected;head 200;end;" : "head 200;end;");
        EXPECT_EQ(std::exchange(caller_.body, {}), "hi");
        EXPECT_EQ(idle_, i);
        EXPECT_EQ(connection_->reused(), i > 1);
        server().take();
    }
    server().half_close();
    EXPECT_TRUE(until([&] { return closed(); })) << "an idle connection hears of its end";
}

TEST_F(ClientConnectionTest, ReadsChunksAndTrailers) {
    open();
    EXPECT_EQ(answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n"),
              "connected;head 200;end;");
    EXPECT_EQ(caller_.body, "hi");
    EXPECT_EQ(caller_.trailers, std::vector<std::string>{"X-T=1"});
    EXPECT_EQ(idle_, 1);
}

TEST_F(ClientConnectionTest, AHeadAnswerHasNoBodyAndStaysInStep) {
    open({.head = true});
    EXPECT_EQ(answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), "connected;head 200;end;");
    EXPECT_EQ(idle_, 1);
    rebind(caller_);
    server().take();
    EXPECT_EQ(answer(kHi), "head 200;end;");
    EXPECT_EQ(caller_.body, "hi");
}

TEST_F(ClientConnectionTest, IsClosedWhenTheUpstreamDoesNotKeepIt) {
    for (const std::string response : {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
                                       "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"}) {
        caller_ = {};
        open();
        EXPECT_EQ(answer(response), "connected;head 200;end;");
        EXPECT_TRUE(until([&] { return closed(); }));
        EXPECT_EQ(idle_, 0);
    }
}

TEST_F(ClientConnectionTest, BytesLeftOverCloseTheConnection) {
    open();
    EXPECT_EQ(answer(kHi + "HTTP/1.1 200 OK\r\n"), "connected;head 200;end;");
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(idle_, 0);
}

TEST_F(ClientConnectionTest, BytesThatNobodyAskedForCloseTheConnection) {
    open();
    EXPECT_EQ(answer(kHi), "connected;head 200;end;");
    EXPECT_EQ(idle_, 1);
    server().send(kHi);
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "");
}

TEST_F(ClientConnectionTest, AnAnswerBeforeTheRequestsEndIsDeliveredButNotReused) {
    open();
    send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", false);
    server().send(kHi);
    ASSERT_TRUE(until([&] { return caller_.over(); }));
    EXPECT_EQ(caller_.heard, "connected;head 200;end;");
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(idle_, 0);
}

TEST_F(ClientConnectionTest, AnIdleConnectionClosesAfterItsTimeout) {
    idle_timeout_ = 30ms;
    open();
    EXPECT_EQ(answer(kHi), "connected;head 200;end;");
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(idle_, 1);
}

// ---- ends ---------------------------------------------------------------------------------------------------------

TEST_F(ClientConnectionTest, AnEndInsteadOfAnAnswerIsAReset) {
    open();
    send("GET / HTTP/1.1\r\n\r\n");
    server().half_close();
    ASSERT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "connected;reset;");
    EXPECT_TRUE(caller_.failure.request_sent);
    EXPECT_FALSE(caller_.failure.reused);
}

TEST_F(ClientConnectionTest, AnEndBeforeTheRequestSaysThatNothingWasSent) {
    open();
    server().half_close();
    ASSERT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "connected;reset;");
    EXPECT_FALSE(caller_.failure.request_sent);
}

TEST_F(ClientConnectionTest, AnEndOfAReusedConnectionSaysSo) {
    open();
    EXPECT_EQ(answer(kHi), "connected;head 200;end;");
    rebind(caller_);
    server().half_close();
    ASSERT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "reset;");
    EXPECT_TRUE(caller_.failure.reused);
}

TEST_F(ClientConnectionTest, AnEndOrAResetWithinAnAnswerIsIncomplete) {
    for (const bool reset : {false, true}) {
        for (const std::string part : {"HTTP/1.1 200 O", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                                       "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
                                       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"}) {
            caller_ = {};
            open();
            send("GET / HTTP/1.1\r\n\r\n");
            server().send(part);
            run_.settle();
            reset ? server().reset() : server().half_close();
            ASSERT_TRUE(until([&] { return closed(); }));
            EXPECT_TRUE(caller_.heard == "connected;incomplete;" ||
                        caller_.heard == "connected;head 200;incomplete;")
                << part << caller_.heard << reset;
        }
    }
}

TEST_F(ClientConnectionTest, ABodyOfUnknownLengthEndsWithTheConnection) {
    open();
    send("GET / HTTP/1.1\r\n\r\n");
    server().send("HTTP/1.1 200 OK\r\n\r\nuntil close");
    run_.settle();
    EXPECT_EQ(caller_.heard, "connected;head 200;");
    server().half_close();
    ASSERT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "connected;head 200;end;");
    EXPECT_EQ(caller_.body, "until close");
}

TEST_F(ClientConnectionTest, ABodyOfUnknownLengthThatIsResetIsIncomplete) {
    open();
    send("GET / HTTP/1.1\r\n\r\n");
    server().send("HTTP/1.1 200 OK\r\n\r\nuntil close");
    run_.settle();
    server().reset();
    ASSERT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "connected;head 200;incomplete;");
}

TEST_F(ClientConnectionTest, WhatIsNoResponseIsAProtocolError) {
    for (const std::string response :
         {"garbage\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nX",
          "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"}) {
        caller_ = {};
        open();
        const std::string heard = answer(response);
        EXPECT_TRUE(heard == "connected;protocol;" || heard == "connected;head 200;protocol;") << heard;
        EXPECT_TRUE(until([&] { return closed(); }));
    }
}

// ---- 1xx and tunnels ----------------------------------------------------------------------------------------------

TEST_F(ClientConnectionTest, InformationalResponsesAreNeverTheLast) {
    open();
    EXPECT_EQ(answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + kHi),
              "connected;head 100;head 103;head 200;end;");
    EXPECT_EQ(idle_, 1);
    rebind(caller_);
    server().take();
    EXPECT_EQ(answer(kHi), "head 200;end;");
}

TEST_F(ClientConnectionTest, AFloodOfInformationalResponsesIsCut) {
    open();
    std::string flood;
    for (int i = 0; i < 1000; ++i)
        flood += "HTTP/1.1 102 Processing\r\n\r\n";
    const std::string heard = answer(flood);
    EXPECT_TRUE(heard.ends_with("protocol;"));
    EXPECT_LT(heard.size(), 300u);
    EXPECT_TRUE(until([&] { return closed(); }));
}

TEST_F(ClientConnectionTest, A101ThatNobodyAskedForIsAProtocolError) {
    open();
    EXPECT_EQ(answer("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
              "connected;protocol;");
}

TEST_F(ClientConnectionTest, A101WithoutAnUpgradeIsAProtocolError) {
    open({.upgrade_asked = true});
    EXPECT_EQ(answer("HTTP/1.1 101 Switching Protocols\r\n\r\n"), "connected;protocol;");
}

const std::string kSwitch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";

TEST_F(ClientConnectionTest, ATunnelCarriesBytesBothWays) {
    open({.upgrade_asked = true, .read_timeout = 100ms});
    send("GET / HTTP/1.1\r\n\r\n");
    server().take();
    server().send(kSwitch + "first");
    ASSERT_TRUE(until([&] { return caller_.body == "first"; }));
    send("ping", true);
    server().send("HTTP/1.1 400 whatever\r\n\r\n");
    ASSERT_TRUE(until([&] { return caller_.body == "firstHTTP/1.1 400 whatever\r\n\r\n"; }));
    bool later = false;
    run_.loop().after(250ms, [&] { later = true; });
    ASSERT_TRUE(until([&] { return later; }));
    EXPECT_EQ(caller_.heard, "connected;head 101;") << "no read timeout within a tunnel";
    run_.in_event([&] { connection_->end_tunnel_write(); });
    ASSERT_TRUE(until([&] { return server().eof(); }));
    server().send("bye");
    server().half_close();
    ASSERT_TRUE(until([&] { return caller_.over(); }));
    EXPECT_EQ(caller_.heard, "connected;head 101;end;");
    run_.in_event([&] { connection_->abandon(); });
    EXPECT_TRUE(until([&] { return closed(); }));
}

TEST_F(ClientConnectionTest, TheEndOfATunnelIsHeardOnce) {
    open({.upgrade_asked = true});
    send("GET / HTTP/1.1\r\n\r\n");
    server().send(kSwitch);
    server().half_close();
    ASSERT_TRUE(until([&] { return caller_.over(); }));
    run_.in_event([&] { connection_->pause_response(); });
    run_.in_event([&] { connection_->resume_response(); });
    run_.settle();
    EXPECT_EQ(caller_.heard, "connected;head 101;end;");
}

TEST_F(ClientConnectionTest, AResetTunnelIsIncomplete) {
    open({.upgrade_asked = true});
    send("GET / HTTP/1.1\r\n\r\n");
    server().send(kSwitch);
    run_.settle();
    server().reset();
    ASSERT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "connected;head 101;incomplete;");
}

TEST_F(ClientConnectionTest, AnUpgradeThatIsRefusedIsAnOrdinaryAnswer) {
    open({.upgrade_asked = true});
    EXPECT_EQ(answer(kHi), "connected;head 200;end;");
    EXPECT_EQ(idle_, 1);
}

// ---- connecting ---------------------------------------------------------------------------------------------------

TEST_F(ClientConnectionTest, ARefusedConnectionSaysSo) {
    const int other = listen_on_loopback();
    const uv::SocketAddress nobody = uv::local_address(other);
    ::close(other);
    start(nobody);
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "refused;");
    EXPECT_FALSE(caller_.failure.request_sent);
}

TEST_F(ClientConnectionTest, AnAddressThatCannotBeConnectedToIsRefusedFromTheLoop) {
    // The kernel refuses a broadcast address at once.
    ++opened_;
    connection_ = new ClientConnection(run_.loop(), *this, limits_, scratch_);
    run_.in_event([&] {
        connection_->bind(caller_, {});
        connection_->open(*uv::SocketAddress::parse("255.255.255.255", 9), 10s);
        EXPECT_EQ(caller_.heard, "") << "nobody is called back from within open()";
    });
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "refused;");
}

TEST_F(ClientConnectionTest, AConnectionThatIsNotAcceptedTimesOut) {
    // A listener whose queue is full lets further connections wait.
    const int full = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const uv::SocketAddress any = *uv::SocketAddress::parse("127.0.0.1", 0);
    ASSERT_EQ(::bind(full, any.raw(), any.size()), 0);
    ASSERT_EQ(::listen(full, 0), 0);
    const uv::SocketAddress address = uv::local_address(full);
    std::vector<int> waiting;
    for (int i = 0; i < 8; ++i) {
        waiting.push_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        ::connect(waiting.back(), address.raw(), address.size());
    }
    start(address, {}, 50ms);
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "connect timeout;");
    for (const int fd : waiting)
        ::close(fd);
    ::close(full);
}

TEST_F(ClientConnectionTest, AnAbandonedConnectIsQuiet) {
    start(uv::local_address(listening_));
    run_.in_event([&] {
        if (gone_ == 0) connection_->abandon();
    });
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_TRUE(caller_.heard.empty() || caller_.heard == "connected;");
}

// ---- time and back-pressure ---------------------------------------------------------------------------------------

TEST_F(ClientConnectionTest, ASilentUpstreamTimesOut) {
    open({.read_timeout = 50ms});
    send("GET / HTTP/1.1\r\n\r\n");
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "connected;read timeout;");
}

TEST_F(ClientConnectionTest, AnUpstreamThatFallsSilentWithinItsBodyTimesOut) {
    open({.read_timeout = 50ms});
    send("GET / HTTP/1.1\r\n\r\n");
    server().send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi");
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "connected;head 200;read timeout;");
}

TEST_F(ClientConnectionTest, TheReadTimeoutDoesNotCountWhileTheRequestIsBeingSent) {
    open({.read_timeout = 30ms});
    send("PUT / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", false);
    server().send("HTTP/1.1 100 Continue\r\n\r\n");
    bool later = false;
    run_.loop().after(150ms, [&] { later = true; });
    ASSERT_TRUE(until([&] { return later || closed(); }));
    ASSERT_EQ(caller_.heard, "connected;head 100;");
    send("body");
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "connected;head 100;read timeout;");
}

TEST_F(ClientConnectionTest, AnUpstreamThatTakesNoMoreOfARequestTimesOut) {
    open({.read_timeout = 50ms}, 16 * 1024);
    server().stop_reading();
    run_.in_event([&] {
        connection_->request_begun();
        connection_->write_copy(std::string(8 * 1024 * 1024, 'x'));
    });
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "connected;write timeout;");
    EXPECT_EQ(caller_.blocked, 1);
}

TEST_F(ClientConnectionTest, TheReadTimeoutDoesNotCountWhilePaused) {
    open({.read_timeout = 30ms});
    send("PUT / HTTP/1.1\r\n\r\n", false);
    caller_.at_head = [&] { connection_->pause_response(); };
    server().send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi");
    ASSERT_TRUE(until([&] { return caller_.heard == "connected;head 200;"; }));
    run_.in_event([&] { connection_->request_finished(); });
    bool later = false;
    run_.loop().after(150ms, [&] { later = true; });
    ASSERT_TRUE(until([&] { return later || closed(); }));
    ASSERT_EQ(caller_.heard, "connected;head 200;");
    run_.in_event([&] { connection_->resume_response(); });
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(caller_.heard, "connected;head 200;read timeout;");
}

TEST_F(ClientConnectionTest, APausedAnswerHoldsTheUpstreamBack) {
    constexpr std::size_t kBig = 8 * 1024 * 1024;
    open({}, 64 * 1024);
    send("GET / HTTP/1.1\r\n\r\n");
    caller_.at_head = [&] { connection_->pause_response(); };
    server().send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(kBig) + "\r\n\r\n" +
                  std::string(kBig, 'x'));
    ASSERT_TRUE(until([&] { return caller_.heard == "connected;head 200;"; }));
    run_.settle();
    EXPECT_LE(caller_.body.size(), 128u * 1024);
    EXPECT_FALSE(server().all_sent());
    run_.in_event([&] { connection_->resume_response(); });
    ASSERT_TRUE(until([&] { return caller_.over(); }));
    EXPECT_EQ(caller_.body.size(), kBig);
    EXPECT_EQ(idle_, 1);
}

TEST_F(ClientConnectionTest, AConnectionPausedAtItsEndStillHearsOfTheUpstreamsClose) {
    open();
    caller_.at_body = [&] { connection_->pause_response(); };
    EXPECT_EQ(answer(kHi), "connected;head 200;end;");
    EXPECT_EQ(idle_, 1);
    server().half_close();
    EXPECT_TRUE(until([&] { return closed(); }));
}

TEST_F(ClientConnectionTest, ABlockedRequestIsToldAndDrains) {
    open({}, 16 * 1024);
    server().stop_reading();
    const std::string big(8 * 1024 * 1024, 'x');
    run_.in_event([&] { connection_->write_copy(big); });
    run_.settle();
    EXPECT_EQ(caller_.blocked, 1);
    EXPECT_EQ(caller_.drained, 0);
    server().start_reading();
    ASSERT_TRUE(until([&] { return caller_.drained == 1; }));
    ASSERT_TRUE(until([&] { return server().received().size() == big.size(); }));
    EXPECT_EQ(connection_->queued(), 0u);
}

TEST_F(ClientConnectionTest, AnAnswerWhileTheRequestIsStillQueuedIsNotReused) {
    open({}, 16 * 1024);
    server().stop_reading();
    run_.in_event([&] {
        connection_->write_copy(std::string(8 * 1024 * 1024, 'x'));
        connection_->request_finished();
    });
    server().send(kHi);
    ASSERT_TRUE(until([&] { return caller_.over(); }));
    EXPECT_TRUE(until([&] { return closed(); }));
    EXPECT_EQ(idle_, 0);
}

// ---- a caller that goes away --------------------------------------------------------------------------------------

TEST_F(ClientConnectionTest, AbandonIsSafeFromEveryCallback) {
    const auto abandon = [&] { connection_->abandon(); };
    const std::string chunked =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: "
        "chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    for (int where = 0; where < 5; ++where) {
        SCOPED_TRACE(where);
        caller_ = {};
        (where == 0   ? caller_.connected
         : where == 1 ? caller_.at_head
         : where == 2 ? caller_.at_body
         : where == 3 ? caller_.at_end
                      : caller_.at_failed) = abandon;
        start(uv::local_address(listening_));
        ASSERT_TRUE(until([&] { return caller_.heard == "connected;"; }));
        const int fd = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
        ASSERT_GE(fd, 0);
        server_ = std::make_unique<Peer>(run_.loop(), fd);
        if (where != 0) {
            run_.in_event([&] { connection_->request_finished(); });
            server().send(where == 4 ? "garbage" : chunked);
        }
        EXPECT_TRUE(until([&] { return closed(); }));
        EXPECT_EQ(gone_, opened_);
        EXPECT_EQ(idle_, 0);
        EXPECT_EQ(caller_.heard, where == 0   ? "connected;"
                                 : where == 1 ? "connected;head 100;"
                                 : where == 2 ? "connected;head 100;head 200;"
                                 : where == 3 ? "connected;head 100;head 200;end;"
                                              : "connected;protocol;");
    }
}

TEST_F(ClientConnectionTest, AbandonIsSafeFromTheCallbacksOfATunnel) {
    for (const bool at_end : {false, true}) {
        caller_ = {};
        (at_end ? caller_.at_end : caller_.at_body) = [&] { connection_->abandon(); };
        open({.upgrade_asked = true});
        run_.in_event([&] { connection_->request_finished(); });
        server().send(kSwitch + "bytes");
        server().half_close();
        EXPECT_TRUE(until([&] { return closed(); }));
        EXPECT_EQ(caller_.heard, at_end ? "connected;head 101;end;" : "connected;head 101;");
    }
}

// ---- fragmentation ------------------------------------------------------------------------------------------------

TEST_F(ClientConnectionTest, FragmentsNeverChangeTheAnswer) {
    const std::string response =
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;e=1\r\n!\r\n0\r\nX-T: "
        "1\r\n\r\n";
    open();
    for (unsigned seed = 0; seed < 60; ++seed) {
        std::mt19937 random(seed);
        caller_ = {};
        if (seed != 0) rebind(caller_);
        send("GET / HTTP/1.1\r\n\r\n");
        server().take();
        const std::size_t piece_max = 1 + random() % 30;
        for (std::size_t at = 0; at < response.size();) {
            const std::size_t size = 1 + random() % piece_max;
            server().send(std::string_view(response).substr(at, size));
            at += size;
            if (random() % 2 == 0) run_.settle(2);
        }
        ASSERT_TRUE(until([&] { return caller_.over(); })) << "seed " << seed;
        EXPECT_EQ(caller_.heard, "head 103;head 200;end;") << "seed " << seed;
        EXPECT_EQ(caller_.body, "hello!");
        EXPECT_EQ(caller_.trailers, std::vector<std::string>{"X-T=1"});
        EXPECT_EQ(idle_, static_cast<int>(seed) + 1);
    }
}

}  // namespace
}  // namespace outrider::http::test
