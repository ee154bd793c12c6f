// The coordination client: calls of etcd v3's API (outrider's quorum, or an etcd) over a list of endpoints.
//
// One connection an endpoint and lane, opened when it is needed; calls are pipelined on it. What a call is may be read in
// wire.h (Rpc), how it ends in Outcome. Pure parts decide: endpoints.h which endpoint is asked, attempts.h whether a
// call goes on at another one. This file and client.cc are the shell: sockets, timers, callbacks. Watches and leases stand on
// it: watch.h, lease.h.
//
// Writes that take effect exactly once: CallOptions::once. Such a write is sent in a client session (store/sessions.h), and again,
// to any endpoint, until it is answered or its time is over; however many copies arrive, one takes effect, and each of them is
// answered as that one. The client opens sessions when writes need them, keeps up to sessions_max (session_pool.h decides), and
// as many such writes are under way; the others wait in line within their time. It is for outrider's quorum alone: where sessions
// are not known, as by an etcd, such a write is refused (code 12, unimplemented) before it is sent, and nothing falls back silently.
// All endpoints must know them: one that does not know them takes a write for one without. Sessions end after an hour without a
// write; who goes away for good calls close_sessions(), or leaves them to that.
//
// Invariants
//   * each call ends with one callback, at its deadline at the latest; none comes from within call(), none after
//     cancel() or the destructor
//   * a call of Effect::kOnce reaches at most one endpoint that may have acted on it. Outcome::kUnknown says that it may
//     have taken effect, also later; kUnavailable that it has not and will not
//   * a call with `once` that ends with kOk or kRefused has been answered for good: no copy of it takes effect later. kUnknown
//     remains when its time was over, its session ended meanwhile, or its answer was too large to be kept (code 9)
//   * at most calls_max calls and call_bytes_max of their bodies wait or run; one more ends with kUnavailable at once
//   * an answer larger than answer_bytes_max is not kept; the call ends with kRefused (code 8)
//   * all on the loop's thread; callbacks run inside a Loop::Event and may call anything, also destroy the client
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/result.h"
#include "base/uv/loop.h"
#include "base/uv/resolver.h"
#include "control/agent/channel.h"
#include "control/agent/endpoints.h"
#include "control/agent/session_pool.h"
#include "control/agent/wire.h"

namespace outrider::agent {

enum class Outcome : std::uint8_t {
    kOk,
    kRefused,      // the cluster's answer: no
    kUnknown,      // a write was sent, and no answer came
    kUnavailable,  // no endpoint served it in time; nothing took effect
};

template <typename Response>
struct Reply {
    Outcome outcome = Outcome::kUnavailable;
    Response body;
    int code = 0;        // gRPC's (api::Code): kRefused, or kUnavailable with an endpoint
    std::string reason;  // a sentence, when it is not kOk
    std::string
        endpoint;  // who answered; kUnavailable: that it cannot serve, such as without a leader. Empty: nobody
    bool ok() const { return outcome == Outcome::kOk; }
};

struct ClientOptions {
    std::vector<std::string> endpoints;  // host:port, at most kEndpointsMax
    Duration connect_timeout = std::chrono::seconds(1);
    // No answer for so long: reads are asked elsewhere, and new calls go elsewhere. Longer than an election takes.
    Duration attempt_timeout = std::chrono::seconds(2);
    Duration idle_timeout = std::chrono::seconds(30);  // below what servers allow
    Duration call_timeout = std::chrono::seconds(10);  // when a call names none
    BackoffOptions backoff;
    std::size_t calls_max = 10'000;
    std::size_t call_bytes_max = std::size_t{64} << 20;
    std::size_t answer_bytes_max = std::size_t{96} << 20;  // the servers' 64 MiB in base64, and room
    std::size_t sessions_max = 16;                         // writes with `once` under way
    std::uint64_t seed = 0;                                // 0: from the kernel
};
// Each "host:port" or "[ip6]:port".
Result<void> check_endpoints(const std::vector<std::string>& endpoints);

// Calls of different lanes do not wait for each other: each lane has its own connection to an endpoint.
enum class Lane : std::uint8_t { kMain, kLeases };
inline constexpr std::size_t kLanes = 2;

inline constexpr std::size_t kAnyEndpoint = SIZE_MAX;
struct CallOptions {
    Duration timeout{};  // 0: ClientOptions::call_timeout
    Lane lane = Lane::kMain;
    std::size_t endpoint = kAnyEndpoint;  // this one alone: one attempt
    bool repeatable = false;              // twice is as good as once, whatever the call is
    bool once = false;  // for what kTakesSession names, see above; a read takes no notice of it
};

class Client final : private ChannelOwner {
  public:
    // check_endpoints() accepted them.
    Client(uv::Loop& loop, ClientOptions options);
    ~Client();
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    template <typename Request, typename Done>
    CallId call(const Request& request, const CallOptions& options, Done done) {
        using Response = typename Rpc<Request>::Response;
        constexpr Effect kEffect = Rpc<Request>::kEffect;
        const bool once = options.once && kEffect != Effect::kRead;
        require(!once || kTakesSession<Request>,
                "a call that is to take effect once is one that sessions carry");
        return start(Rpc<Request>::kPath, to_json(request), once ? Effect::kSession : kEffect, options,
                     [done = std::move(done)](RawReply raw) mutable {
                         Reply<Response> reply = reply_from<Request>(std::move(raw));
                         done(std::move(reply));
                     });
    }
    void cancel(CallId id);

    // Those that no write uses now, one try each; `done` when that is over. Later writes open others.
    void close_sessions(std::function<void()> done);
    std::size_t sessions() const { return sessions_.sessions(); }

    uv::Loop& loop() { return loop_; }
    const ClientOptions& options() const { return options_; }
    std::size_t outstanding() const { return calls_.size(); }

    // For those that have connections of their own (watch.h).
    EndpointChoice& choice() { return choice_; }
    // One address of the endpoint; resolves names anew each time. Later, unless the client is destroyed.
    void find_address(std::size_t endpoint, std::function<void(Result<uv::SocketAddress>)> found);

  private:
    struct RawReply {
        Outcome outcome = Outcome::kUnavailable;
        int code = 0;
        std::string reason;
        std::string endpoint;
        std::string body;
    };
    using RawDone = std::function<void(RawReply)>;
    class PendingCall;
    struct Endpoint {
        std::string text;
        std::string host;
        std::uint16_t port = 0;
        unsigned resolved = 0;  // times; which of several addresses is next
        struct Line {
            Channel* channel = nullptr;
            bool finding = false;
            std::vector<CallId> waiting;
        };
        Line lines[kLanes];
    };

    template <typename Request>
    static Reply<typename Rpc<Request>::Response> reply_from(RawReply raw);
    CallId start(std::string path, std::string body, Effect effect, const CallOptions& options, RawDone done);
    PendingCall& add(std::string path, std::string body, Effect effect, const CallOptions& options,
                     RawDone done);
    void attempt(PendingCall& call);
    void open(std::size_t endpoint, std::size_t lane);
    void not_opened(std::size_t endpoint, std::size_t lane);
    // Last in what calls it: the call is gone.
    void finish(PendingCall& call, RawReply reply);

    // client_sessions.cc
    void serve_line();
    void open_session();
    void on_session(RawReply raw);
    void change_session(PendingCall& call);

    void on_channel_open(Channel& channel) override;
    void on_channel_gone(Channel& channel, bool at_fault) override;

    uv::Loop& loop_;
    const ClientOptions options_;
    http::ParserLimits limits_;
    http::ParserScratch scratch_;
    std::vector<Endpoint> endpoints_;
    EndpointChoice choice_;
    uv::Resolver resolver_;
    std::unordered_map<CallId, std::unique_ptr<PendingCall>> calls_;
    std::size_t call_bytes_ = 0;
    CallId last_call_ = 0;
    SessionPool sessions_;
};

template <typename Request>
Reply<typename Rpc<Request>::Response> Client::reply_from(RawReply raw) {
    Reply<typename Rpc<Request>::Response> reply;
    reply.outcome = raw.outcome;
    reply.code = raw.code;
    reply.reason = std::move(raw.reason);
    reply.endpoint = std::move(raw.endpoint);
    if (!reply.ok()) return reply;
    bool parsed = false;
    if constexpr (Rpc<Request>::kLine) {
        typename Rpc<Request>::Line line;
        parsed = from_json(std::string_view(raw.body).substr(0, raw.body.find('\n')), line);
        if (line.has_error()) {
            const v3::Refusal refusal = refusal_from(line.error());
            reply.outcome = Outcome::kRefused;
            reply.code = refusal.code();
            reply.reason = refusal.message();
        }
        reply.body = std::move(*line.mutable_result());
    } else {
        parsed = from_json(raw.body, reply.body);
    }
    if (!parsed) {
        reply.outcome = Rpc<Request>::kEffect == Effect::kRead ? Outcome::kUnavailable : Outcome::kUnknown;
        reply.reason = "the endpoint's answer is not the API's";
    }
    return reply;
}

}  // namespace outrider::agent
