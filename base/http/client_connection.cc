#include "base/http/client_connection.h"

#include "base/check.h"

namespace outrider::http {

namespace {
constexpr std::uint8_t kInformationalMax = 16;            // 1xx responses before the final one
constexpr Duration kLastWords = std::chrono::seconds(1);  // for the answer of an upstream that takes no more
}  // namespace

ClientConnection::ClientConnection(uv::Loop& loop, ClientOwner& owner, const ParserLimits& limits,
                                   ParserScratch& scratch)
    : TcpStream(loop), owner_(owner), parser_(Http1Parser::Side::kResponse, limits, scratch) {}

void ClientConnection::open(const uv::SocketAddress& to, Duration connect_timeout) {
    if (auto begun = connect(to); !begun) {
        // Reported from the loop, so that nobody is called back from within open().
        refused_ = true;
        loop().schedule(*this, Duration(0));
        return;
    }
    loop().schedule(*this, connect_timeout);
}

void ClientConnection::bind(ClientHandler& handler, const RequestOptions& options) {
    require(handler_ == nullptr && !gone_, "a connection serves one exchange at a time");
    handler_ = &handler;
    bound_turn_ = loop().turn();
    ++uses_;
    head_ = options.head;
    upgrade_asked_ = options.upgrade_asked;
    read_timeout_ = options.read_timeout;
    request_begun_ = request_finished_ = response_begun_ = tunnel_ = false;
    informational_ = 0;
    parser_.reset(head_);
    if (connected_ && paused_) resume_response();
    if (connected_) loop().cancel(*this);
}

void ClientConnection::request_finished() {
    request_begun_ = request_finished_ = true;
    await_bytes();
}

// The upstream has its time from here on: once it has the whole request or has begun to answer, and while we read.
void ClientConnection::await_bytes() {
    if (!connected_ || gone_ || handler_ == nullptr || paused_ || tunnel_ || read_timeout_ == Duration(0))
        return;
    if (request_finished_ || response_begun_) loop().schedule(*this, read_timeout_);
}

void ClientConnection::abandon() {
    handler_ = nullptr;
    drop();
}

void ClientConnection::drop() {
    if (gone_) return;
    gone_ = true;
    loop().cancel(*this);
    owner_.on_connection_gone(*this);
    close();
}

void ClientConnection::fail(ClientError error, const char* reason) {
    if (gone_) return;
    ClientHandler* handler = handler_;
    handler_ = nullptr;
    const ClientFailure failure{error, request_begun_, reused(), reason};
    drop();
    if (handler != nullptr) handler->on_failed(failure);
}

void ClientConnection::pause_response() {
    if (paused_) return;
    paused_ = true;
    stop_reading();
    loop().cancel(*this);  // it is we who do not read
}

void ClientConnection::resume_response() {
    if (!paused_) return;
    paused_ = false;
    if (!eof_) start_reading();
    await_bytes();
}

void ClientConnection::on_connected() {
    connected_ = true;
    loop().cancel(*this);
    if (unread() != 0) {  // asked once a connection
        fail(ClientError::kProtocol, "the upstream spoke before it was asked");
        return;
    }
    start_reading();
    if (handler_ != nullptr) {
        handler_->on_connected();
        await_bytes();
    } else {
        drop();
    }
}

void ClientConnection::on_read(std::string_view data) {
    if (handler_ == nullptr) {
        drop();  // bytes without a request are nobody's answer
        return;
    }
    if (tunnel_) {
        handler_->on_response_body({&data, 1});
        return;
    }
    if (bound_turn_ == loop().turn() && reused()) {
        // These bytes were there before the request was written: they answer nothing.
        fail(ClientError::kReset, "the upstream spoke before it was asked");
        return;
    }
    await_bytes();
    while (!gone_) {
        const Step step = parser_.step(data);
        data.remove_prefix(step.consumed);
        switch (step.kind) {
            case Step::Kind::kNeedMore:
                return;
            case Step::Kind::kError:
                fail(ClientError::kProtocol, parser_.error_reason());
                return;
            case Step::Kind::kHead:
                if (!on_head()) return;
                break;
            case Step::Kind::kBody:
                handler_->on_response_body(parser_.body());
                break;
            case Step::Kind::kEnd:
                if (informational_ != 0 && !response_begun_) {
                    parser_.reset(head_);
                    break;
                }
                if (tunnel_) {
                    if (!data.empty()) handler_->on_response_body({&data, 1});
                    return;
                }
                finish_response(data.empty());
                return;
        }
    }
}

// False when the connection is no longer to be read.
bool ClientConnection::on_head() {
    ResponseHead& head = parser_.response();
    if (head.status == 101) {
        if (!upgrade_asked_ || !head.upgrade) {
            fail(ClientError::kProtocol, "upgrade that nobody asked for");
            return false;
        }
        tunnel_ = response_begun_ = true;
        loop().cancel(*this);
    } else if (head.status < 200) {
        if (++informational_ > kInformationalMax) {
            fail(ClientError::kProtocol, "too many informational responses");
            return false;
        }
    } else {
        response_begun_ = true;
        keep_alive_ = head.keep_alive;
        await_bytes();
    }
    handler_->on_response_head(head);
    return !gone_;
}

// The response has ended whole.
void ClientConnection::finish_response(bool clean) {
    ClientHandler* handler = handler_;
    handler_ = nullptr;
    loop().cancel(*this);
    const bool reusable = clean && !broken_ && keep_alive_ && request_finished_ && !blocked() &&
                          parser_.error() == ParseError::kNone;
    // The trailers lie in the parser, which the next bind() resets: the handler comes first, but must not find the
    // connection in the pool before it is there, so what it starts on is another one.
    handler->on_response_end(parser_.trailers());
    if (gone_) return;
    if (!reusable) {
        drop();
        return;
    }
    parser_.reset();
    if (paused_) {  // an idle connection reads, so that it hears of the upstream's close
        paused_ = false;
        start_reading();
    }
    since_ = loop().now();
    if (idle_timeout_ != Duration(0)) loop().schedule(*this, idle_timeout_);
    owner_.on_connection_idle(*this);
}

void ClientConnection::on_eof() {
    eof_ = true;
    if (handler_ == nullptr) {
        drop();
        return;
    }
    if (tunnel_) {
        handler_->on_response_end({});
        return;
    }
    if (response_begun_ && parser_.finish()) {
        keep_alive_ = false;
        finish_response(false);
        return;
    }
    fail(broken_off(), "the upstream closed the connection");
}

void ClientConnection::on_error(int) {
    if (!connected_) {
        fail(ClientError::kConnectRefused, "the upstream refused the connection");
        return;
    }
    fail(broken_off(), "the upstream reset the connection");
}

ClientError ClientConnection::broken_off() const {
    return response_begun_ || !parser_.idle() ? ClientError::kIncomplete : ClientError::kReset;
}

// An upstream that answers early and closes breaks our writing while its answer still waits to be read (RFC 9112 section 9.5).
void ClientConnection::on_write_error(int os_error) {
    if (handler_ == nullptr || !connected_ || tunnel_ || !reading()) {
        on_error(os_error);
        return;
    }
    request_finished_ = false;
    loop().schedule(*this, kLastWords);
    read_timeout_ = kLastWords;
    broken_ = true;
}

void ClientConnection::on_blocked() {
    if (handler_ == nullptr) return;
    // An upstream that takes nothing has the same time as one that says nothing.
    if (!request_finished_ && !response_begun_ && !tunnel_ && read_timeout_ != Duration(0))
        loop().schedule(*this, read_timeout_);
    handler_->on_request_blocked();
}

void ClientConnection::on_drained() {
    if (handler_ == nullptr) return;
    if (!request_finished_ && !response_begun_ && !tunnel_) loop().cancel(*this);
    handler_->on_request_drained();
}

void ClientConnection::on_closed() {
    owner_.on_connection_closed(*this);
}

void ClientConnection::on_timeout(Instant) {
    if (gone_) return;
    if (refused_) {
        fail(ClientError::kConnectRefused, "the upstream cannot be connected to");
    } else if (!connected_) {
        fail(ClientError::kConnectTimeout, "the upstream did not accept the connection in time");
    } else if (handler_ != nullptr) {
        if (broken_) {
            fail(broken_off(), "the upstream closed the connection");
        } else if (!request_finished_ && !response_begun_) {
            fail(ClientError::kWriteTimeout, "the upstream did not take the request in time");
        } else {
            fail(ClientError::kReadTimeout, "the upstream did not answer in time");
        }
    } else {
        drop();  // idle for too long
    }
}

}  // namespace outrider::http
