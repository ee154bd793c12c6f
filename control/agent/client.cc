#include "control/agent/client.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/uv/acceptor.h"
#include "control/agent/pending_call.h"

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

// ---- the client -------------------------------------------------------------------------------------------------------

Client::Client(uv::Loop& loop, ClientOptions options)
    : loop_(loop),
      options_(std::move(options)),
      choice_(options_.endpoints.size(), options_.backoff,
              options_.seed != 0 ? options_.seed : uv::random_seed()),
      resolver_(loop.raw()),
      sessions_(options_.sessions_max) {
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

Client::PendingCall& Client::add(std::string path, std::string body, Effect effect,
                                 const CallOptions& options, RawDone done) {
    const CallId id = ++last_call_;
    const Duration timeout = options.timeout != Duration(0) ? options.timeout : options_.call_timeout;
    if (options.repeatable && effect == Effect::kOnce) effect = Effect::kRepeatable;
    auto call = std::make_unique<PendingCall>(*this, id, std::move(path), std::move(body), effect, options,
                                              loop_.now() + timeout, std::move(done));
    call_bytes_ += call->bytes();
    return *calls_.emplace(id, std::move(call)).first->second;
}

CallId Client::start(std::string path, std::string body, Effect effect, const CallOptions& options,
                     RawDone done) {
    PendingCall& call = add(std::move(path), std::move(body), effect, options, std::move(done));
    const CallId id = call.id();
    if (calls_.size() > options_.calls_max || call_bytes_ > options_.call_bytes_max) {
        call.end_later({.outcome = Outcome::kUnavailable,
                        .code = 0,
                        .reason = "too many calls are under way",
                        .endpoint = {},
                        .body = {}});
    } else if (call.in_session()) {
        sessions_.join(id);
        call.stand_in_line();
        serve_line();
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
    sessions_.leave(id);
    serve_line();
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
    sessions_.leave(call.id());
    calls_.erase(found);
    serve_line();
    done(std::move(reply));
}

}  // namespace outrider::agent
