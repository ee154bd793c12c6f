#include "proxy/problem.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/http/message.h"

namespace outrider::proxy {

using filters::Flag;

Problem problem_for(Failure failure) {
    switch (failure) {
        case Failure::kNoRoute:
            return {404, "destination_not_found", "No route matches this request.", Flag::kNR};
        case Failure::kBadRequest:
            return {400, "http_request_error", "The request is not valid HTTP.", Flag::kDPE};
        case Failure::kConnectMethod:
            return {501, "http_request_error", "CONNECT is not served here.", Flag::kDPE};
        case Failure::kNoEndpoint:
            return {503, "destination_unavailable",
                    "The cluster has no usable endpoint: none is known, or all are unhealthy or ejected.",
                    Flag::kUH, true};
        case Failure::kConnectRefused:
            return {502, "connection_refused", "The upstream refused the connection.", Flag::kUF};
        case Failure::kConnectTimeout:
            return {504, "connection_timeout", "The upstream did not accept the connection in time.",
                    Flag::kUF};
        case Failure::kUpstreamReset:
            return {502, "connection_terminated", "The upstream closed the connection before answering.",
                    Flag::kUC};
        case Failure::kUpstreamIncomplete:
            return {502, "http_response_incomplete", "The upstream's answer broke off.", Flag::kUC};
        case Failure::kUpstreamProtocol:
            return {502, "http_protocol_error", "The upstream's answer is not valid HTTP.", Flag::kUPE};
        case Failure::kUpstreamTimeout:
            return {504, "connection_read_timeout", "The upstream did not answer in time.", Flag::kUT};
        case Failure::kRouteTimeout:
            return {504, "http_response_timeout",
                    "The exchange did not end within the route's timeout or the caller's deadline.",
                    Flag::kUT};
        case Failure::kTooManyConnections:
            return {503, "connection_limit_reached", "Too many connections.", Flag::kOM, true};
        case Failure::kTooManyRequests:
            return {503, "connection_limit_reached", "The cluster's limit of requests in flight is reached.",
                    Flag::kUO, true};
        case Failure::kTooManyPending:
            return {503, "connection_limit_reached", "Too many requests wait for the cluster already.",
                    Flag::kUO, true};
        case Failure::kRateLimited:
            return {429, "http_request_denied", "The rate limit of this route is exceeded.", Flag::kRL, true};
        case Failure::kShed:
            return {503, "connection_limit_reached",
                    "The route's adaptive limit of requests in flight is reached.", Flag::kUO, true};
        case Failure::kFaultInjected:
            return {503, "http_request_denied", "A fault that the configuration injects.", Flag::kFI};
        case Failure::kDeadlinePassed:
            return {504, "http_response_timeout", "The caller's deadline had passed already.", Flag::kUT};
        case Failure::kLoop:
            return {502, "proxy_loop_detected",
                    "The request has passed this proxy many times: a route leads back here.", Flag::kDPE};
        case Failure::kWriteTimeout:
            return {504, "connection_write_timeout", "The upstream did not take the request in time.",
                    Flag::kUT};
        case Failure::kBatchMember:
            return {400, "http_request_error", "The body cannot be a part of a batch.", {}};
        case Failure::kBatchMemberTooLarge:
            return {413, "http_request_error", "The body is larger than a batch may be.", {}};
        case Failure::kBatchFull:
            return {503, "connection_limit_reached", "Too many requests wait for a batch already.", Flag::kUO,
                    true};
        case Failure::kBatchAnswer:
            return {502, "http_protocol_error", "The answer to the batch cannot be taken apart.", Flag::kUPE};
        case Failure::kKeyMissing:
            return {400,
                    "http_request_error",
                    "This route requires an idempotency key.",
                    Flag::kDPE,
                    false,
                    "urn:outrider:idempotency:missing"};
        case Failure::kKeyMalformed:
            return {400,
                    "http_request_error",
                    "The idempotency key is malformed.",
                    Flag::kDPE,
                    false,
                    "urn:outrider:idempotency:malformed"};
        case Failure::kKeyReused:
            return {
                422,
                "http_request_error",
                "The idempotency key was used with another request (method, target, content type or body).",
                Flag::kIM,
                false,
                "urn:outrider:idempotency:reused"};
        case Failure::kKeyInFlight:
            return {409,
                    "http_request_error",
                    "A request with this idempotency key is being worked on.",
                    Flag::kIC,
                    true,
                    "urn:outrider:idempotency:in-flight"};
        case Failure::kKeyWaitedTooLong:
            return {409,
                    "http_request_error",
                    "A request with this idempotency key is still being worked on; waiting for its answer "
                    "took too long.",
                    Flag::kIC,
                    true,
                    "urn:outrider:idempotency:in-flight"};
        case Failure::kKeyDone:
            return {409,
                    "http_request_error",
                    "The first request with this idempotency key was done.",
                    Flag::kIC,
                    false,
                    "urn:outrider:idempotency:done"};
        case Failure::kKeyUnknownCut:
            return {409,
                    "http_request_error",
                    "Whether the first request with this idempotency key took effect is not known: the "
                    "exchange with the "
                    "application broke off.",
                    Flag::kIC,
                    false,
                    "urn:outrider:idempotency:unknown"};
        case Failure::kKeyUnknownLost:
            return {409,
                    "http_request_error",
                    "Whether the first request with this idempotency key took effect is not known: its "
                    "sidecar was lost "
                    "before the answer.",
                    Flag::kIC,
                    false,
                    "urn:outrider:idempotency:unknown"};
        case Failure::kKeyBodyTooLarge:
            return {413,
                    "http_request_error",
                    "The body is larger than a request with an idempotency key may have.",
                    Flag::kDPE,
                    false,
                    "urn:outrider:idempotency:too-large"};
        case Failure::kKeyBodiesHeld:
            return {503,
                    "connection_limit_reached",
                    "Too many bytes of requests with idempotency keys are held already.",
                    Flag::kOM,
                    true,
                    "urn:outrider:idempotency:busy"};
        case Failure::kKeyStoreFull:
            return {
                503,  "destination_unavailable",       "The store of idempotency keys is full.", Flag::kIS,
                true, "urn:outrider:idempotency:store"};
        case Failure::kKeyStoreFailed:
            return {503,
                    "destination_unavailable",
                    "The store of idempotency keys does not answer.",
                    Flag::kIS,
                    true,
                    "urn:outrider:idempotency:store"};
    }
    return {};
}

std::string problem_json(const ProblemDocument& document) {
    std::string out = "{\"type\":\"";
    append_json_escaped(out, document.type.empty() ? std::string_view("about:blank") : document.type);
    out += "\",\"title\":\"";
    append_json_escaped(out, http::reason_phrase(document.status));
    out += "\",\"status\":" + std::to_string(document.status) + ",\"detail\":\"";
    append_json_escaped(out, document.detail);
    const auto member = [&out](std::string_view name, std::string_view value) {
        if (value.empty()) return;
        out += "\",\"";
        out += name;
        out += "\":\"";
        append_json_escaped(out, value);
    };
    member("request_id", document.request_id);
    member("policy", document.policy);
    member("key", document.key);
    out += "\"}\n";
    return out;
}

namespace {

// sf-string (RFC 8941 section 3.3.3): printable ASCII, quotes and backslashes escaped.
void append_sf_string(std::string& out, std::string_view s) {
    out += '"';
    for (const char c : s) {
        if (c < 0x20 || c == 0x7F) continue;
        if (c == '"' || c == '\\') out += '\\';
        out += c;
    }
    out += '"';
}

}  // namespace

std::string proxy_status(std::string_view node, std::string_view error, std::string_view details) {
    std::string out;
    const auto alpha = [](char c) { return ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z'; };
    const bool token =
        !node.empty() && alpha(node.front()) && std::all_of(node.begin(), node.end(), [&](char c) {
            return alpha(c) || ascii_digit(c) || c == '-' || c == '.' || c == '_';
        });
    if (token) {
        out += node;
    } else {
        append_sf_string(out, node);
    }
    if (!error.empty()) {
        out += "; error=";
        out += error;
    }
    if (!details.empty()) {
        out += "; details=";
        append_sf_string(out, details);
    }
    return out;
}

}  // namespace outrider::proxy
