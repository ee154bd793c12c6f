// The server's end of an HTTP/1.1 connection: requests in, responses out in the same order.
//
// A ServerConnection reads and frames; what a request means is up to a ServerExchange that the handler makes for each.
//
// Invariants:
//   * responses leave in the order of their requests; a later exchange's output is held back (and its producer told that
//     it is blocked) until it is at the front
//   * requests behind one that is not safe are not started before it is answered (RFC 9112 section 9.3.2)
//   * an exchange hears on_request() first, on_aborted() at most once and last; after finish() nothing more
//   * an answer that ends before its request does closes the connection; the rest is never read as a request
//   * slow heads, slow bodies and slow readers are closed (ServerLimits)
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/http/head_writer.h"
#include "base/http/http1_parser.h"
#include "base/http/message.h"
#include "base/timer_wheel.h"
#include "base/uv/tcp_stream.h"

namespace outrider::http {

struct ServerLimits {
    ParserLimits parser;
    Duration header_timeout{};  // whole head, from its first byte (or from accept)
    Duration idle_timeout{};    // between requests; in a tunnel of which only the client's direction is left
    Duration body_idle_timeout{};  // no byte of a body, or no progress of the reader, for so long
    Duration rate_window =
        std::chrono::seconds(5);  // grace at the beginning; after it the rate is measured over 3/5 of this
    std::uint64_t body_rate_min = 500;  // bytes per second over each window while a body is owed; 0 = off
    std::uint64_t read_rate_min = 500;  // the same for a client that reads our answer
    unsigned pipelined_max = 16;
};

class ServerConnection;

// One request and its response. Derive; the handler makes and releases them.
class ServerExchange {
  public:
    ServerExchange() = default;
    virtual ~ServerExchange() = default;
    ServerExchange(const ServerExchange&) = delete;
    ServerExchange& operator=(const ServerExchange&) = delete;

    enum class AbortReason : std::uint8_t { kClientGone, kBodyTimeout, kReadTimeout, kShutdown };

    virtual void on_request() = 0;
    virtual void on_request_body(std::span<const std::string_view> slices) = 0;
    // After the body; trailers are valid during the call. Not called for a request without body (request_complete() says so).
    virtual void on_request_end(std::span<const Field> trailers) = 0;
    // The bytes were no valid request (request() is empty then), or its body broke off. Answer with `status` and close.
    virtual void on_bad_request(int status, const char* reason) = 0;
    // The response cannot be delivered any more. Let go of everything; release follows.
    virtual void on_aborted(AbortReason reason) = 0;
    // How much the next read of a large request body may bring: TcpStream::read_limit_for_sink() of where it goes.
    virtual std::size_t request_room() { return uv::TcpStream::kRead; }
    virtual void on_response_blocked() {}
    virtual void on_response_drained() {}
    // The client will send no more behind this request. It may still read: an answer that is under way goes on.
    virtual void on_client_ended() {}

    RequestHead& request() { return request_; }
    const RequestHead& request() const { return request_; }
    ServerConnection& connection() { return *connection_; }
    bool request_complete() const { return request_complete_; }
    bool response_started() const { return response_started_; }
    bool response_finished() const { return response_finished_; }
    bool client_is_http10() const { return request_.version_minor == 0; }

    // --- the response ------------------------------------------------------------------------------------------
    enum class Body : std::uint8_t { kNone, kLength, kUnknown };

    // Sends the head. `fields(HeadWriter&)` writes at most `fields_bound` bytes; framing and Connection are added here.
    template <typename F>
    void start_response(int status, std::string_view reason, Body body, std::uint64_t length,
                        std::size_t fields_bound, F&& fields) {
        HeadWriter head(reserve(fields_bound + reason.size() + 160));
        begin_head(head, status, reason, body);
        fields(head);
        end_head(head, body, length);
        commit(head.size());
        response_bytes_ = 0;
    }
    // A 1xx response; not to HTTP/1.0 clients.
    template <typename F>
    void send_informational(int status, std::string_view reason, std::size_t fields_bound, F&& fields) {
        HeadWriter head(reserve(fields_bound + reason.size() + 40));
        begin_informational(head, status, reason);
        fields(head);
        head.text("\r\n");
        commit(head.size());
    }
    // `stable`: the slices stay valid until the current event ends.
    void write_body(std::span<const std::string_view> slices, bool stable);
    void finish(std::span<const Field> trailers = {});
    // The response cannot be completed: the client must see that it is cut.
    void abort_response();
    // The connection closes after this response.
    void close_after() { keep_alive_ = false; }
    bool will_close() const { return !keep_alive_; }

    // After a 101: bytes pass both ways as bodies without framing; finish() ends our direction, on_request_end() theirs.
    // What the client sent already is handed on from within.
    void start_tunnel();
    bool tunnel() const { return tunnel_; }

    // Back-pressure towards the client's body.
    void pause_request();
    void resume_request();
    // The body is a stream of messages that may come when they like: no deadline and no rate is held against it.
    void let_body_rest();

    bool response_blocked() const;
    // How much may be read for this response at once.
    std::size_t response_room() const;
    // Body bytes, framing included.
    std::uint64_t response_bytes() const { return response_bytes_; }
    std::uint64_t request_bytes() const { return request_bytes_; }
    int response_status() const { return status_; }
    Instant started_at() const { return started_at_; }

  protected:
    // Back to the state before on_request(), for a pool.
    void recycle();

  private:
    friend class ServerConnection;
    char* reserve(std::size_t size);
    void commit(std::size_t size);
    void write_text(std::string_view text);
    void begin_head(HeadWriter& head, int status, std::string_view reason, Body body);
    void end_head(HeadWriter& head, Body body, std::uint64_t length);
    void begin_informational(HeadWriter& head, int status, std::string_view reason);

    RequestHead request_;
    HeadStorage storage_;
    ServerConnection* connection_ = nullptr;
    ServerExchange* next_ = nullptr;
    std::string held_;  // output while others are in front
    std::size_t held_reserved_at_ = 0;
    Instant started_at_{};
    std::uint64_t response_bytes_ = 0;
    std::uint64_t request_bytes_ = 0;
    int status_ = 0;
    bool front_ = false;
    bool started_ = false;  // on_request() was called
    bool request_complete_ = false;
    bool response_started_ = false;
    bool response_finished_ = false;
    bool bodiless_ = false;  // HEAD, 204, 304
    bool chunked_ = false;
    bool until_close_ = false;
    bool keep_alive_ = true;
    bool tunnel_ = false;
};

// Makes exchanges and hears of the connection's end.
class ServerHandler {
  public:
    virtual ServerExchange* new_exchange(ServerConnection& connection) = 0;
    // The exchange is over: log it, put it back.
    virtual void release_exchange(ServerExchange* exchange) = 0;
    virtual void on_connection_closed(ServerConnection& connection) = 0;  // delete it

  protected:
    ~ServerHandler() = default;
};

class ServerConnection final : public uv::TcpStream, private Timer {
  public:
    ServerConnection(uv::Loop& loop, ServerHandler& handler, const ServerLimits& limits,
                     ParserScratch& scratch);
    ~ServerConnection() override = default;

    // Takes over an accepted socket and begins to read.
    Result<void> start(int fd);

    bool idle() const { return front_ == nullptr; }
    unsigned in_flight() const { return exchange_count_; }
    // While draining: idle connections close, busy ones after their answer.
    void drain();
    // Answers with this status, whatever comes, and closes.
    void refuse(int status, const char* reason);
    // Everything ends now.
    void kill(ServerExchange::AbortReason reason);
    const std::string& peer_ip() const { return peer_ip_; }

    // For the handler's own bookkeeping.
    ServerConnection* list_prev = nullptr;
    ServerConnection* list_next = nullptr;

  private:
    friend class ServerExchange;

    void on_read(std::string_view data) override;
    void on_eof() override;
    void on_error(int os_error) override;
    void on_blocked() override;
    void on_drained() override;
    void on_closed() override;
    void on_timeout(Instant now) override;
    std::size_t large_read_limit() override;

    // Input.
    void process(std::string_view input);
    bool handle_step(const Step& step);
    void process_pending();
    void keep_pending(std::string_view input);
    bool must_wait() const;
    // Something of a request behind the last exchange has been read.
    bool more_has_come() const { return input_left_ || pending_ != nullptr || head_begun_; }
    void begin_exchange();
    bool may_start(const ServerExchange& exchange) const;
    void start_waiting();
    void reject(int status, const char* reason);
    void update_reading();
    void pause_body(ServerExchange& exchange);
    void resume_body(ServerExchange& exchange);
    void continue_sent(const ServerExchange& exchange);
    void let_body_rest(const ServerExchange& exchange);
    void enter_tunnel();
    void tunnel_input_ended();

    // Ends.
    void response_done(ServerExchange& exchange);
    void advance_queue();
    void abort_exchange(ServerExchange& exchange, bool reset);
    void abort_all(ServerExchange::AbortReason reason);
    void linger();
    void input_ended();
    bool cut_looks_whole() const;
    void body_timed_out(ServerExchange::AbortReason reason);

    // Deadlines.
    void arm();
    void begin_window(Instant now);
    // The first one is long: it is the grace, and what fills the kernel's buffers falls into it.
    Duration window_length() const {
        return window_later_ ? limits_.rate_window * 3 / 5 : limits_.rate_window;
    }
    std::uint64_t progress() const;
    bool owes_body() const {
        return receiving_ && !waiting_start_ && !body_paused_ && !tunnel_ && !awaits_continue_ &&
               !body_rests_;
    }
    bool client_owes_reading() const;
    Instant next_deadline();

    ServerHandler& handler_;
    const ServerLimits& limits_;
    Http1Parser parser_;
    ServerExchange* front_ = nullptr;
    ServerExchange* back_ = nullptr;
    std::unique_ptr<std::string> pending_;  // input that waits for its turn
    std::string peer_ip_;
    Instant phase_began_{};   // of the head, the idle time or the lingering
    Instant window_began_{};  // of the rate being measured
    Instant progress_at_{};   // last progress seen in a window
    std::uint64_t window_base_ = 0;
    std::uint64_t body_received_ = 0;
    std::uint64_t idle_written_ = 0;  // bytes_written() when the unsent rest was last known to be gone
    std::uint16_t exchange_count_ = 0;
    bool eof_ : 1 = false;
    bool failed_ : 1 = false;  // the parser gave up, or an answer overtook its request: nothing more is read
    bool lingering_ : 1 = false;
    bool body_paused_ : 1 = false;
    bool waiting_start_ : 1 = false;  // the back exchange has not begun
    bool processing_ : 1 = false;
    bool drain_ : 1 = false;
    bool served_ : 1 = false;
    bool receiving_ : 1 = false;   // the back exchange's body is still coming
    bool head_begun_ : 1 = false;  // something of a head has come
    bool tunnel_ : 1 = false;
    bool awaits_continue_ : 1 =
        false;                     // the client sends its body when it is told to (RFC 9110 section 10.1.1)
    bool body_rests_ : 1 = false;  // the back exchange's body has no time to keep
    bool window_open_ : 1 = false;
    bool window_later_ : 1 = false;  // not the first since it was opened
    bool input_left_ : 1 = false;    // behind the step that is being handled
};

}  // namespace outrider::http
