// One pipelined connection to an upstream: who rides on it, whose the next response is, and what becomes of the others
// when it ends. Pure: the caller owns the socket and the requests, and arms one timer for stalls_at(). One worker's
// only. How many may ride is a question of its own (channel_depth.h); this class holds only the bound.
//
// A request rides from push() until its response has ended, or the connection has. Source: RFC 9112 sections 9.3 to
// 9.6. What that comes to:
//   * Only what is safe to repeat rides: a safe or idempotent method, or a key (9.3.2: a client should not pipeline
//     after a method that is not). So a bound on its body and a copy of it are the caller's part.
//   * Responses belong to requests in their order (9.3.2). A final response while nothing is in flight, or to a request
//     of which no byte has left, is a protocol error: the connection ends and the bytes are nobody's. Informational
//     responses (1xx) are the front's and are not told to this class. A 101 cannot come: an upgrade does not ride.
//   * A response that begins before its request has left whole (a 413 to a body) is delivered, and is the last: it is
//     not known whether the upstream will read the rest of the body or take it for a request.
//   * A response that closes the connection ("Connection: close", HTTP/1.0) is the last. The upstream processes nothing
//     that came after it (9.6), so those behind are handed back at its head and do not wait for its body.
//   * When the connection ends without notice, one whose response has begun fails (its client has seen part of it), and
//     the others are handed back to be sent once more. Whoever was handed back so before fails: a failed repetition is
//     not repeated (9.3.1).
//   * The connection that is made after such an end starts kAlone: one request at a time until one was answered whole
//     ("a client MUST NOT pipeline immediately after connection establishment", 9.3.2), since the first one may be what
//     breaks it. The same serves to find out about an upstream that nothing is known of.
//   * A response that has been due for longer than stall_timeout, be it slow to come or slow to be read by its client,
//     moves new requests away. The responses of those behind it cannot overtake; the caller who does not want them to
//     wait gives the connection up, or, when it is a slow client, leaves the connection to that one (release_behind()).
//
// Invariants
//   * Each request that was pushed leaves exactly once: delivered whole, dropped (its client had left), handed back,
//     or failed.
//   * in_flight() is at most depth; at most 1 before the first answer of a connection that starts kAlone.
//   * After ended() nothing changes any more.
// Each step is O(in flight) at most.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string_view>
#include <vector>

#include "base/time.h"

namespace outrider::policy {

// The caller's name of a request in flight; never used twice on one channel.
enum class RideId : std::uint64_t {};

// Why a channel ended.
enum class ChannelEnd : std::uint8_t {
    kBroke,          // reset or end of file without notice
    kClosed,         // the upstream said so in its last response
    kIdle,           // it closed while nothing was in flight (nothing unusual, RFC 9112 section 9.5)
    kHttp10,         // its last response was HTTP/1.0
    kUnasked,        // a final response that nobody asked for, or more bytes than the response had
    kAnsweredEarly,  // the last response came before its request had left whole
    kGivenUp,        // by the caller: drain, a stall, a time-out
};
std::string_view to_text(ChannelEnd end);

struct Return {
    RideId id{};
    // The upstream may have executed it, so that sending it again is a repetition: it is pushed with `repeated`.
    bool repeated = false;
    friend bool operator==(const Return&, const Return&) = default;
};

// Those whom an ending channel leaves behind, in their order.
struct LeftBehind {
    std::vector<Return> send_again;
    std::vector<RideId> failed;
    // The connection that takes their place starts kAlone.
    bool start_alone = false;
};

struct ChannelLimits {
    std::size_t depth = 64;
    Duration stall_timeout = std::chrono::seconds(1);
};

class Channel {
  public:
    enum class Start : std::uint8_t { kTogether, kAlone };
    Channel(ChannelLimits limits, Start start) : limits_(limits), alone_(start == Start::kAlone) {}

    enum class Refusal : std::uint8_t { kNone, kEnded, kNotRepeatable, kAlone, kFull, kStalled };
    Refusal refusal(bool safe_to_repeat, Instant now) const;

    // Written behind the others, or about to be; refusal() is kNone. `repeated`: of an earlier Return.
    void push(RideId id, bool repeated, Instant now);
    // The first byte of the request was handed to the kernel; its last byte was. In order, each once.
    void sending(RideId id);
    void sent(RideId id);
    // The client has gone. What has begun to leave is answered all the same, and its answer dropped. True: it was not
    // yet written and is out of the line: do not write it.
    bool leave(RideId id);

    struct ResponseHead {
        std::uint8_t version_minor = 1;
        bool keep_alive = true;  // false too for a body that ends with the connection
    };
    struct Delivery {
        std::optional<RideId>
            to;           // nothing: drop the response (its client has left), or the channel has ended
        LeftBehind left;  // those behind a response that closes the connection
    };
    // A final response to the front begins. ended(): it belongs to nobody.
    Delivery response_head(ResponseHead head);
    // It has ended as its framing says. `to`: as at its head.
    Delivery response_end(Instant now);

    // Bytes behind the end of the last response, or the connection is gone, or the caller gives it up.
    LeftBehind extra_bytes() { return finish(ChannelEnd::kUnasked); }
    LeftBehind broke();
    LeftBehind give_up() { return finish(ChannelEnd::kGivenUp); }
    // The response under way becomes the last: its client reads so slowly that those behind are not to wait for it. They
    // are handed back, it goes on. Nothing happens when no response is under way.
    LeftBehind release_behind();

    std::optional<RideId> front() const;
    std::size_t in_flight() const { return line_.size(); }
    std::optional<ChannelEnd> ended() const { return end_; }
    // Answered whole since it was made; of these while others were in flight behind them.
    std::uint64_t answered() const { return answered_; }
    std::uint64_t answered_pipelined() const { return answered_pipelined_; }
    // Handed back or failed: what left without an answer.
    std::uint64_t unanswered() const { return unanswered_; }
    // The most that were in flight at once.
    std::size_t in_flight_most() const { return in_flight_most_; }
    // No new request is taken from then on, as long as the front is what it is.
    std::optional<Instant> stalls_at() const;

  private:
    enum class Stage : std::uint8_t { kWritten, kSending, kSent };
    struct Ride {
        RideId id{};
        Stage stage = Stage::kWritten;
        bool repeated = false;
        bool left = false;
        Instant pushed{};
    };
    Ride* find(RideId id);
    std::optional<RideId> front_client() const;
    LeftBehind finish(ChannelEnd end);
    // Hands back those from `first` on. `unprocessed`: the upstream has promised not to look at them.
    void hand_back(std::size_t first, bool unprocessed, LeftBehind& out);

    ChannelLimits limits_;
    std::deque<Ride> line_;  // the front is answered next
    std::optional<ChannelEnd> end_;
    std::optional<ChannelEnd> last_response_;  // the response under way is the last, and why
    bool alone_;
    bool responding_ = false;
    Instant front_since_{};  // when the front became that
    std::uint64_t answered_ = 0;
    std::uint64_t answered_pipelined_ = 0;
    std::uint64_t unanswered_ = 0;
    std::size_t in_flight_most_ = 0;
};

// Whether an upstream can be pipelined to at all, from how its channels end. One per endpoint and worker.
//
//   * HTTP/1.0, and a response that nobody asked for, settle it at once.
//   * Otherwise kEndsMax channels in a row that answered fewer than kAnswersMin: closed by a response, or broken while
//     at least two waited (one that breaks with one on it says nothing about pipelining). Of channels that one event
//     may have ended (a restart), those after the first within kSameEvent are not counted.
//   * A channel that answers kAnswersMin with others behind proves the upstream fit.
// After an unfit verdict everything takes pooled connections, and kRetryAfter later, doubling up to kRetryAfterMax with
// each verdict, one channel that starts kAlone may try again.
class PipelineSupport {
  public:
    static constexpr std::uint32_t kEndsMax = 3;
    static constexpr std::uint64_t kAnswersMin = 8;
    static constexpr Duration kSameEvent = std::chrono::milliseconds(100);
    static constexpr Duration kRetryAfter = std::chrono::minutes(5);
    static constexpr Duration kRetryAfterMax = std::chrono::hours(1);

    enum class Unfit : std::uint8_t { kHttp10, kUnasked, kCloses, kBreaks };

    // False: take a pooled connection.
    bool may_pipeline(Instant now) const { return !unfit_ || now >= retry_at_; }
    // What a new channel starts with; `after_break`: LeftBehind::start_alone.
    Channel::Start start(bool after_break) const;

    // kAnswersMin answers with others behind have come: call it when that is so, once a channel.
    void proved();
    // A channel has ended. Something: log it and count it; pooled from now on.
    std::optional<Unfit> ended(const Channel& channel, Instant now);
    std::optional<Unfit> unfit() const { return unfit_; }

  private:
    bool proved_ = false;
    std::uint32_t ends_ = 0;
    Instant last_end_{};
    std::optional<Unfit> unfit_;
    Instant retry_at_{};
    Duration retry_after_ = kRetryAfter;
};
// For the log, as the end of a sentence: "… takes pooled connections: it answers in HTTP/1.0".
std::string_view to_text(PipelineSupport::Unfit unfit);

}  // namespace outrider::policy
