#include "control/agent/client.h"

#include <algorithm>
#include <optional>

#include "base/bytes.h"
#include "base/check.h"
#include "base/uv/acceptor.h"
#include "control/api/errors.h"

namespace outrider::agent {
namespace {

struct HostPort {
    std::string host;  // an IPv6 address without brackets
    std::uint16_t port = 0;
};

Result<HostPort> split_endpoint(const std::string& text) {
    const Error wrong{"\"" + text + "\" is no host:port"};
    const std::size_t colon = text.rfind(':');
    if (colon == std::string::npos || colon == 0) return wrong;
    const auto port = parse_decimal(std::string_view(text).substr(colon + 1));
    if (!port || *port == 0 || *port > 65'535) return wrong;
    std::string host = text.substr(0, colon);
    const bool bracketed = host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    const bool has_colon = host.find(':') != std::string::npos;
    if (host.empty() || has_colon != bracketed) return wrong;
    if (host.find_first_of(" \t\r\n/") != std::string::npos) return wrong;
    return HostPort{std::move(host), static_cast<std::uint16_t>(*port)};
}

}  // namespace

Result<void> check_endpoints(const std::vector<std::string>& endpoints) {
    if (endpoints.empty()) return Error{"no endpoint is given"};
    if (endpoints.size() > kEndpointsMax)
        return Error{"more than " + std::to_string(kEndpointsMax) + " endpoints"};
    for (const std::string& text : endpoints) {
        if (const auto split = split_endpoint(text); !split) return Error{split.error()};
    }
    return {};
}

// ---- one call ---------------------------------------------------------------------------------------------------------

class Client::PendingCall final : public http::ClientHandler, public Timer {
  public:
    PendingCall(Client& client, CallId id, std::string path, std::string body, Effect effect,
                const CallOptions& options, Instant deadline, RawDone done)
        : client_(client),
          id_(id),
          path_(std::move(path)),
          body_(std::move(body)),
          effect_(effect),
          options_(options),
          deadline_(deadline),
          done_(std::move(done)) {}
    ~PendingCall() {
        if (channel_ != nullptr) channel_->leave(ride_);
    }

    CallId id() const { return id_; }
    const CallOptions& options() const { return options_; }
    std::size_t bytes() const { return path_.size() + body_.size(); }
    const EndpointSet& tried() const { return tried_; }
    RawDone take_done() { return std::move(done_); }

    // Ends without an attempt, later.
    void refuse_later(const char* reason) {
        refused_ = reason;
        client_.loop_.schedule(*this, Duration(0));
    }
    void wait_until(Instant at) { client_.loop_.timers().schedule(*this, std::min(at, deadline_)); }
    void go_to(std::size_t endpoint) {
        endpoint_ = endpoint;
        tried_.set(endpoint);
        boarding_ = true;
        begun_ = client_.loop_.now();
        wait_until(begun_ + client_.options_.attempt_timeout);
    }
    // It waits for a connection to this endpoint.
    bool waits_for(std::size_t endpoint) const { return boarding_ && endpoint_ == endpoint; }
    // The connection does not come. Told from the loop, so that callbacks come one by one.
    void not_sent_later() {
        unsent_ = true;
        client_.loop_.schedule(*this, Duration(0));
    }
    void ride(Channel& channel) {
        boarding_ = false;
        status_ = 0;
        answer_.clear();
        channel_ = &channel;
        ride_ = channel.join(*this);
        std::string& out = channel.outgoing();
        out += "POST " + path_ + " HTTP/1.1\r\nHost: " + client_.endpoints_[endpoint_].text +
               "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body_.size()) +
               "\r\n\r\n";
        out += body_;
        channel.request_written();
    }
    // The attempt has ended. The call may be gone afterwards.
    void end_attempt(const AttemptEnd& end, std::string reason) {
        const Instant now = client_.loop_.now();
        channel_ = nullptr;
        if (endpoint_at_fault(end)) client_.choice_.failed(endpoint_, now);
        if (end.kind == AttemptEnd::Kind::kAnswered && !endpoint_at_fault(end))
            client_.choice_.succeeded(endpoint_);
        note_reason(end, reason, now);
        const Verdict verdict = judge(end, effect_);
        if (verdict == Verdict::kDeliver) {
            deliver(end, std::move(reason));
            return;
        }
        if (verdict == Verdict::kUnknown || options_.endpoint != kAnyEndpoint || now >= deadline_ ||
            refusal_stands(now)) {
            give_up();
            return;
        }
        client_.attempt(*this);
    }

  private:
    void deliver(const AttemptEnd& end, std::string reason) {
        RawReply reply;
        reply.endpoint = client_.endpoints_[endpoint_].text;
        if (end.http_status == 200) {
            reply.outcome = Outcome::kOk;
            reply.body = std::move(answer_);
        } else {
            reply.outcome = Outcome::kRefused;
            reply.code = end.code;
            reply.reason = std::move(reason);
        }
        client_.finish(*this, std::move(reply));
    }
    // Of several attempts the caller hears the one that says most: a refusal, else a silence, else no connection. But of a call
    // whose outcome is unknown, why it is.
    void note_reason(const AttemptEnd& end, const std::string& reason, Instant now) {
        const bool settled = without_effect(end) || effect_ == Effect::kRead;
        const Telling telling = end.kind == AttemptEnd::Kind::kAnswered  ? Telling::kRefusal
                                : end.kind == AttemptEnd::Kind::kNotSent ? Telling::kUnreached
                                                                         : Telling::kSilence;
        if (settled && telling == Telling::kRefusal) {
            refusal_time_ = now - begun_;
            refused_by_ = endpoint_;
            refusal_code_ = end.code;
        }
        if (settled && (unsettled_ || telling < told_)) return;
        unsettled_ |= !settled;
        told_ = telling;
        told_reason_ = client_.endpoints_[endpoint_].text + ": " + reason;
    }
    // Everyone was asked, and one more try would not be answered in time, going by how long the refusal took: of a write it
    // would make the outcome unknown, which is known now.
    bool refusal_stands(Instant now) const {
        return refusal_time_ && tried_.count() == client_.endpoints_.size() &&
               deadline_ - now < 2 * *refusal_time_;
    }
    void give_up() {
        RawReply reply;
        reply.outcome = unsettled_ ? Outcome::kUnknown : Outcome::kUnavailable;
        reply.reason = told_reason_.empty() ? "no endpoint could be reached in time" : told_reason_;
        if (!unsettled_ && refusal_time_) {
            reply.endpoint = client_.endpoints_[refused_by_].text;
            reply.code = refusal_code_;
        }
        client_.finish(*this, std::move(reply));
    }

    void on_connected() override {}
    void on_response_head(http::ResponseHead& head) override {
        if (head.status >= 200) status_ = head.status;
    }
    void on_response_body(std::span<const std::string_view> slices) override {
        for (const std::string_view s : slices) {
            if (too_large_) return;
            too_large_ = answer_.size() + s.size() > client_.options_.answer_bytes_max;
            if (!too_large_) answer_.append(s);
        }
        if (!too_large_) return;
        std::string().swap(answer_);
        Channel* channel = std::exchange(channel_, nullptr);
        channel->leave(ride_);
        end_attempt(
            {.kind = AttemptEnd::Kind::kAnswered,
             .http_status = 413,
             .code = static_cast<int>(api::Code::kResourceExhausted)},
            "the answer is larger than " + std::to_string(client_.options_.answer_bytes_max) + " bytes");
    }
    void on_response_end(std::span<const http::Field>) override {
        if (status_ == 200) {
            end_attempt({.http_status = 200}, {});
            return;
        }
        const v3::Refusal refusal = refusal_from(status_, answer_);
        end_attempt({.http_status = status_, .code = refusal.code(), .text = refusal.message()},
                    refusal.message());
    }
    void on_failed(const http::ClientFailure& failure) override {
        const bool unsent = !failure.request_sent || failure.returned;
        const bool garbled = failure.error == http::ClientError::kProtocol;
        end_attempt({.kind = unsent    ? AttemptEnd::Kind::kNotSent
                             : garbled ? AttemptEnd::Kind::kGarbled
                                       : AttemptEnd::Kind::kLost},
                    failure.reason);
    }
    void on_timeout(Instant now) override {
        const uv::Loop::Event event(client_.loop_);
        if (refused_ != nullptr) {
            told_reason_ = refused_;
            give_up();
        } else if (std::exchange(unsent_, false)) {
            boarding_ = false;
            end_attempt({.kind = AttemptEnd::Kind::kNotSent}, "cannot be connected to");
        } else if (now >= deadline_) {
            on_deadline();
        } else if (channel_ != nullptr) {
            on_silence(now);
        } else if (std::exchange(boarding_, false)) {
            end_attempt({.kind = AttemptEnd::Kind::kNotSent}, "cannot be connected to in time");
        } else {
            client_.attempt(*this);
        }
    }
    void on_deadline() {
        if (channel_ != nullptr) {
            const Instant now = client_.loop_.now();
            client_.choice_.failed(endpoint_, now);
            note_reason({.kind = AttemptEnd::Kind::kSilent}, "no answer in time", now);
            leave();
        } else if (boarding_ && !unsettled_ && told_reason_.empty()) {
            told_reason_ = client_.endpoints_[endpoint_].text + ": cannot be connected to in time";
        }
        give_up();
    }
    // The endpoint does not answer: others are asked, and a write that may have taken effect waits on. When there is nobody else
    // to ask, it is given as long as a member without a leader needs to say so.
    void on_silence(Instant now) {
        const Instant last = begun_ + kLastAnswer * client_.options_.attempt_timeout;
        const bool elsewhere = judge({.kind = AttemptEnd::Kind::kSilent}, effect_) == Verdict::kElsewhere &&
                               options_.endpoint == kAnyEndpoint;
        if (elsewhere && now < last && tried_.count() == client_.endpoints_.size()) {
            client_.choice_.failed(endpoint_, now);
            wait_until(last);
            return;
        }
        if (elsewhere) {
            leave();
            end_attempt({.kind = AttemptEnd::Kind::kSilent}, "no answer in time");
            return;
        }
        client_.choice_.failed(endpoint_, now);
        wait_until(deadline_);
    }
    void leave() {
        Channel* channel = std::exchange(channel_, nullptr);
        channel->leave(ride_);
        if (!channel->has_riders()) channel->give_up();  // nobody waits for what it owes
    }

    static constexpr int kLastAnswer = 3;  // attempt timeouts
    enum class Telling : std::uint8_t { kUnreached, kSilence, kRefusal };

    Client& client_;
    const CallId id_;
    const std::string path_;
    const std::string body_;
    const Effect effect_;
    const CallOptions options_;
    const Instant deadline_;
    RawDone done_;
    EndpointSet tried_;
    std::size_t endpoint_ = 0;
    Channel* channel_ = nullptr;  // riding
    Channel::Id ride_ = 0;
    const char* refused_ = nullptr;
    int status_ = 0;
    std::string answer_;
    Instant begun_{};  // the attempt
    std::string told_reason_;
    Telling told_ = Telling::kUnreached;
    std::optional<Duration> refusal_time_;  // the last refusal, after which the call went on, took so long
    std::size_t refused_by_ = 0;
    int refusal_code_ = 0;
    bool too_large_ = false;
    bool boarding_ = false;
    bool unsent_ = false;
    bool unsettled_ = false;  // an attempt may have taken effect
};

// ---- the client -------------------------------------------------------------------------------------------------------

Client::Client(uv::Loop& loop, ClientOptions options)
    : loop_(loop),
      options_(std::move(options)),
      choice_(options_.endpoints.size(), options_.backoff,
              options_.seed != 0 ? options_.seed : uv::random_seed()),
      resolver_(loop.raw()) {
    for (const std::string& text : options_.endpoints) {
        auto split = split_endpoint(text);
        require(split.ok(), "the endpoints were checked");
        Endpoint& endpoint = endpoints_.emplace_back();
        endpoint.text = text;
        endpoint.host = std::move(split->host);
        endpoint.port = split->port;
    }
}

Client::~Client() {
    calls_.clear();
    for (Endpoint& endpoint : endpoints_) {
        for (Endpoint::Line& line : endpoint.lines) {
            if (Channel* channel = std::exchange(line.channel, nullptr)) channel->orphan();
        }
    }
}

CallId Client::start(std::string path, std::string body, Effect effect, const CallOptions& options,
                     RawDone done) {
    const CallId id = ++last_call_;
    const Duration timeout = options.timeout != Duration(0) ? options.timeout : options_.call_timeout;
    if (options.repeatable && effect == Effect::kOnce) effect = Effect::kRepeatable;
    auto made = std::make_unique<PendingCall>(*this, id, std::move(path), std::move(body), effect, options,
                                              loop_.now() + timeout, std::move(done));
    PendingCall& call = *made;
    call_bytes_ += call.bytes();
    calls_.emplace(id, std::move(made));
    if (calls_.size() > options_.calls_max || call_bytes_ > options_.call_bytes_max) {
        call.refuse_later("too many calls are under way");
    } else {
        attempt(call);
    }
    return id;
}

void Client::cancel(CallId id) {
    const auto found = calls_.find(id);
    if (found == calls_.end()) return;
    call_bytes_ -= found->second->bytes();
    calls_.erase(found);
}

// Never ends the call.
void Client::attempt(PendingCall& call) {
    const Instant now = loop_.now();
    EndpointChoice::Pick pick;
    if (call.options().endpoint != kAnyEndpoint) {
        pick.index = call.options().endpoint;
    } else {
        pick = choice_.pick(now, call.tried());
    }
    if (pick.not_before > now) {
        call.wait_until(pick.not_before);
        return;
    }
    call.go_to(pick.index);
    const auto lane = static_cast<std::size_t>(call.options().lane);
    Endpoint::Line& line = endpoints_[pick.index].lines[lane];
    if (line.channel != nullptr && line.channel->connected()) {
        call.ride(*line.channel);
        return;
    }
    line.waiting.push_back(call.id());
    if (line.channel == nullptr && !line.finding) open(pick.index, lane);
}

void Client::open(std::size_t endpoint, std::size_t lane) {
    endpoints_[endpoint].lines[lane].finding = true;
    find_address(endpoint, [this, endpoint, lane](const Result<uv::SocketAddress>& found) {
        const uv::Loop::Event event(loop_);
        Endpoint::Line& line = endpoints_[endpoint].lines[lane];
        line.finding = false;
        if (!found) {
            not_opened(endpoint, lane);
            return;
        }
        auto* channel = new Channel(loop_, *this, limits_, scratch_);
        channel->endpoint = endpoint;
        channel->lane = lane;
        line.channel = channel;
        // A call that waits longer than this has a deadline of its own; what is silent for so long is not coming back.
        channel->open(*found, {.connect = options_.connect_timeout,
                               .read = 10 * options_.attempt_timeout,
                               .idle = options_.idle_timeout});
    });
}

void Client::find_address(std::size_t endpoint, std::function<void(Result<uv::SocketAddress>)> found) {
    Endpoint& at = endpoints_[endpoint];
    if (auto literal = uv::SocketAddress::parse(at.host, at.port)) {
        found(std::move(literal));
        return;
    }
    resolver_.resolve_addresses(
        at.host, [this, endpoint, found = std::move(found)](uv::Resolution<uv::ResolvedAddresses> resolved) {
            if (const auto* error = std::get_if<uv::ResolveError>(&resolved)) {
                found(Error{error->message});
                return;
            }
            const auto& ips = std::get<uv::ResolvedAddresses>(resolved).ips;
            Endpoint& named = endpoints_[endpoint];
            found(uv::SocketAddress::parse(ips[named.resolved++ % ips.size()], named.port));
        });
}

void Client::on_channel_open(Channel& channel) {
    Endpoint::Line& line = endpoints_[channel.endpoint].lines[channel.lane];
    for (const CallId id : std::exchange(line.waiting, {})) {
        const auto found = calls_.find(id);
        if (found != calls_.end() && found->second->waits_for(channel.endpoint)) found->second->ride(channel);
    }
}

void Client::on_channel_gone(Channel& channel, bool at_fault) {
    const std::size_t endpoint = channel.endpoint;
    const std::size_t lane = channel.lane;
    endpoints_[endpoint].lines[lane].channel = nullptr;
    if (at_fault) choice_.failed(endpoint, loop_.now());
    if (!endpoints_[endpoint].lines[lane].waiting.empty()) not_opened(endpoint, lane);
}

void Client::not_opened(std::size_t endpoint, std::size_t lane) {
    choice_.failed(endpoint, loop_.now());
    for (const CallId id : std::exchange(endpoints_[endpoint].lines[lane].waiting, {})) {
        const auto found = calls_.find(id);
        if (found != calls_.end() && found->second->waits_for(endpoint)) found->second->not_sent_later();
    }
}

void Client::finish(PendingCall& call, RawReply reply) {
    const auto found = calls_.find(call.id());
    require(found != calls_.end(), "a call ends once");
    const RawDone done = call.take_done();
    call_bytes_ -= call.bytes();
    calls_.erase(found);
    done(std::move(reply));
}

}  // namespace outrider::agent
