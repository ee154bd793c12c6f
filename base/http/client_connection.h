// The client's end of an HTTP/1.1 connection: one request at a time out, its response in.
//
// The connection reads, frames and times out; what a response means is up to a ClientHandler. Requests are written by the
// handler through TcpStream's write functions.
//
// Invariants:
//   * a response, or an error, reaches the handler that is bound; bytes that nobody asked for close the connection
//   * the connection becomes idle (reusable) only when the request was sent whole, the response ended whole, both sides
//     keep it alive, and no byte is left over
//   * after on_failed() or the response's end the handler is no longer bound
//   * bytes that were there before the request was written are no answer to it, also when both were noticed in one turn
//   * an idle connection keeps reading, so that it learns of the upstream's close without a system call an exchange
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/http/http1_parser.h"
#include "base/http/message.h"
#include "base/timer_wheel.h"
#include "base/uv/tcp_stream.h"

namespace outrider::http {

enum class ClientError : std::uint8_t {
    kConnectRefused,  // or any other failure to connect
    kConnectTimeout,
    kReset,       // closed or reset before the first byte of the response
    kIncomplete,  // closed or reset within the response
    kProtocol,    // not a response we accept
    kReadTimeout,
    kWriteTimeout,  // what was written did not leave for so long as read_timeout
};

struct ClientFailure {
    ClientError error = ClientError::kReset;
    bool request_sent = false;  // some byte of the request may have reached the upstream
    bool reused = false;        // the connection had served a request before
    const char* reason = "";
    // Of a pipelined connection (pipelined_connection.h) that ended or went on without it: nothing of its answer came, and
    // it may be sent once more.
    bool returned = false;
};

class ClientHandler {
  public:
    virtual void on_connected() = 0;
    // 1xx included (they are never the last). 101 begins a tunnel if `upgrade_asked`.
    virtual void on_response_head(ResponseHead& head) = 0;
    virtual void on_response_body(std::span<const std::string_view> slices) = 0;
    // `reusable`: the connection has gone back to its owner; do not touch it any more.
    virtual void on_response_end(std::span<const Field> trailers) = 0;
    virtual void on_failed(const ClientFailure& failure) = 0;
    // How much the next read of a large response may bring: TcpStream::read_limit_for_sink() of where it goes.
    virtual std::size_t response_room() { return uv::TcpStream::kRead; }
    virtual void on_request_blocked() {}
    virtual void on_request_drained() {}

  protected:
    ~ClientHandler() = default;
};

class ClientConnection;

// The pool. Told of every change so that it needs no look at the connection.
class ClientOwner {
  public:
    virtual void on_connection_idle(ClientConnection& connection) = 0;
    virtual void on_connection_gone(ClientConnection& connection) = 0;    // it is closing; forget it
    virtual void on_connection_closed(ClientConnection& connection) = 0;  // delete it

  protected:
    ~ClientOwner() = default;
};

class ClientConnection : public uv::TcpStream, private Timer {
  public:
    ClientConnection(uv::Loop& loop, ClientOwner& owner, const ParserLimits& limits, ParserScratch& scratch);
    ~ClientConnection() override = default;

    // Opens towards an address; the bound handler hears on_connected() or on_failed().
    void open(const uv::SocketAddress& to, Duration connect_timeout);

    struct RequestOptions {
        bool head = false;  // HEAD: the response has no body
        bool upgrade_asked = false;
        Duration read_timeout{};  // no byte in the direction that is awaited for so long; 0 = none
    };
    void bind(ClientHandler& handler, const RequestOptions& options);
    // The request's last byte was written.
    void request_finished();
    // Some byte of the request was written.
    void request_begun() { request_begun_ = true; }
    // The handler goes away before the end: the connection cannot be used again.
    void abandon();

    bool connected() const { return connected_; }
    bool reused() const { return uses_ > 1; }
    bool bound() const { return handler_ != nullptr; }
    Instant idle_since() const { return since_; }

    void pause_response();
    void resume_response();
    // Tunnel: our direction ends.
    void end_tunnel_write() { shutdown_write(); }

    void set_idle_timeout(Duration d) { idle_timeout_ = d; }

    // The pool's list.
    ClientConnection* list_prev = nullptr;
    ClientConnection* list_next = nullptr;
    void* context = nullptr;

  private:
    void on_connected() override;
    void on_read(std::string_view data) override;
    void on_eof() override;
    void on_error(int os_error) override;
    void on_write_error(int os_error) override;
    void on_blocked() override;
    void on_drained() override;
    void on_closed() override;
    void on_timeout(Instant now) override;
    std::size_t large_read_limit() override {
        return handler_ != nullptr ? handler_->response_room() : kRead;
    }

    void fail(ClientError error, const char* reason);
    void finish_response(bool clean);
    void drop();
    bool on_head();
    void await_bytes();
    ClientError broken_off() const;

    ClientOwner& owner_;
    ClientHandler* handler_ = nullptr;
    Http1Parser parser_;
    Duration read_timeout_{};
    Duration idle_timeout_{};
    Instant since_{};
    std::uint64_t bound_turn_ = 0;
    std::uint32_t uses_ = 0;
    std::size_t informational_bytes_ = 0;
    std::uint8_t informational_ = 0;
    bool connected_ = false;
    bool refused_ = false;  // by our own kernel, at once
    bool eof_ = false;
    bool gone_ = false;
    bool head_ = false;
    bool upgrade_asked_ = false;
    bool request_begun_ = false;
    bool request_finished_ = false;
    bool response_begun_ = false;
    bool keep_alive_ = true;
    bool tunnel_ = false;
    bool paused_ = false;
    bool broken_ = false;  // writing failed; reading goes on for a moment
};

}  // namespace outrider::http
