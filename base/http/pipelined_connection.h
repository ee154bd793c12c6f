// The client's end of an HTTP/1.1 connection with many requests in flight: written back to back, answered in their order.
//
// The mechanism only: bytes, framing, time-outs, and which handler the response under way goes to. Who may ride, what an
// end means, and what becomes of those left behind is decided by whoever derives from it (proxy/pipelined_channel.h, by
// the rules of filters/policy/channel.h) in answer to the line's hooks.
//
// The write. Requests are collected and leave in one write at the end of the loop's turn, so that what many clients asked
// in one turn costs one system call. Each is appended whole between push() and request_written().
//
// Invariants
//   * responses go to requests in their order; a response while nothing is in flight, or to a request that has not begun
//     to leave, goes to nobody and ends the connection
//   * each handler hears a whole answer, or on_failed(), or nothing after leave(); it is not called from within push(),
//     leave(), pause() and resume()
//   * what arrives in the turn in which a request was collected is no answer to it: it has not left yet
//   * a handler that pauses gets at most kHeldMax bytes more, and what the read under way brought; then the connection is
//     not read, and after stall_timeout line_stuck() may take those behind elsewhere
// Source: RFC 9112 sections 9.3 to 9.6. Memory: an idle connection holds no buffer above kKeptMax.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "base/http/client_connection.h"

namespace outrider::http {

class PipelinedConnection : public uv::TcpStream, private Timer, private uv::TurnEnd {
  public:
    // The caller's name of a request; never used twice on one connection.
    using Id = std::uint64_t;
    static constexpr std::size_t kHeldMax = 64 * 1024;
    // Of a response whose client has left: more than that is not read to save the connection.
    static constexpr std::size_t kDroppedMax = 1024 * 1024;

    struct Timeouts {
        Duration connect = std::chrono::seconds(1);
        Duration read{};  // no byte of what is outstanding for so long; 0 = none
        Duration idle{};  // nothing in flight for so long; 0 = none
        Duration stall = std::chrono::seconds(1);
    };

    PipelinedConnection(uv::Loop& loop, const ParserLimits& limits, ParserScratch& scratch);
    ~PipelinedConnection() override = default;

    // line_opened() or line_gone() follows.
    void open(const uv::SocketAddress& to, const Timeouts& timeouts);
    void set_timeouts(const Timeouts& timeouts) { timeouts_ = timeouts; }

    // Joins the line; connected() holds. The caller appends the whole request to outgoing() at once, then says so.
    // `head`: HEAD; the response has no body.
    void push(Id id, ClientHandler& handler, bool head);
    std::string& outgoing() { return outgoing_; }
    void request_written();

    // The handler goes away. Its request is sent all the same and the answer dropped.
    void leave(Id id);
    // Of the response under way: its client does not keep up.
    void pause(Id id);
    void resume(Id id);
    // The caller gives the connection up.
    void give_up();

    bool connected() const { return connected_; }
    // A request would have to wait for a client or for the kernel's buffer.
    bool congested() const { return blocked() || held_up_ || broken_; }
    // Somebody waits for an answer.
    bool has_riders() const;

  protected:
    enum class Over : std::uint8_t {
        kBroke,    // gone without notice
        kExtra,    // bytes that nobody asked for
        kGivenUp,  // by the caller, a time-out, or for idleness
    };
    // The line, told in the order of what happens. They may call hand_back() and fail_ride(), nothing else of this class.
    virtual void line_opened() = 0;
    virtual void line_sending(Id id) = 0;  // its first byte was handed to the kernel
    virtual void line_sent(Id id) = 0;     // its last byte was
    virtual void line_left(Id id) = 0;     // its handler has gone; its request has begun to leave
    // A final response to the front begins. False: it is nobody's, and the connection ends.
    virtual bool line_answers(std::uint8_t version_minor, bool keep_alive) = 0;
    // It ended whole. `paused`: its client did not keep up. False: it was the last.
    virtual bool line_answered(bool paused) = 0;
    // The front's client has held the connection up for stall_timeout.
    virtual void line_stuck() = 0;
    // The connection ends with a line: everyone in it is handed back or fails.
    virtual void line_over(Over over) = 0;
    virtual void line_gone() = 0;  // it is closing; forget it

    // Out of the line; the handler hears of it when the event is over.
    void hand_back(Id id);
    void fail_ride(Id id);

  private:
    static constexpr std::size_t kKeptMax = 64 * 1024;
    struct Ride {
        Id id = 0;
        ClientHandler* handler = nullptr;  // null: it has left
        std::uint64_t end = 0;             // of its request in all that was written
        bool head = false;
    };
    struct Leaving {
        Id id = 0;
        ClientHandler* handler = nullptr;
        ClientFailure failure;
    };

    void on_connected() override;
    void on_read(std::string_view data) override;
    void on_eof() override;
    void on_error(int os_error) override;
    void on_write_error(int os_error) override;
    void on_drained() override;
    void on_timeout(Instant now) override;
    void on_turn_end() override;

    void read_responses(std::string_view data);
    bool on_head();
    bool on_informational(ResponseHead& head);
    void on_body();
    bool on_end();
    void note_sent();
    void await_bytes();
    void fail_front(ClientError error, const char* reason);
    void broken_off(const char* reason);
    void finish(Over over);
    void drop();
    void take_out(Id id, const ClientFailure& failure);
    void settle();

    Http1Parser parser_;
    Timeouts timeouts_;
    std::deque<Ride> line_;
    std::size_t begun_ = 0;  // of the line: handed to the kernel, at least in part
    std::size_t sent_ = 0;   // of these: whole
    std::string outgoing_;
    std::uint64_t written_ = 0;     // bytes before outgoing_
    std::vector<Leaving> leaving_;  // to be told
    const char* over_reason_ = "";
    std::size_t held_ = 0;     // bytes delivered to a handler that has paused
    std::size_t dropped_ = 0;  // of a response whose client has left
    std::size_t informational_bytes_ = 0;
    std::uint8_t informational_ = 0;
    bool connected_ = false;
    bool refused_ = false;  // by our own kernel, at once
    bool gone_ = false;
    bool responding_ = false;  // the front's final response is under way
    bool paused_ = false;      // by its handler
    bool was_paused_ = false;  // some time in this response
    bool held_up_ = false;     // not read any more because of it
    bool broken_ = false;      // writing failed; reading goes on for a moment
    bool ending_ = false;
    bool settling_ = false;
};

}  // namespace outrider::http
