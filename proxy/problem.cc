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
            return {503, "destination_unavailable", "The cluster has no endpoint to send this to.", Flag::kUH,
                    true};
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
            return {504, "http_response_timeout", "The exchange did not end within the route's timeout.",
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
            return {503, "connection_limit_reached", "The upstream is as busy as it should be: shed.",
                    Flag::kUO, true};
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
    }
    return {};
}

std::string problem_json(int status, std::string_view detail, std::string_view request_id) {
    std::string out = "{\"type\":\"about:blank\",\"title\":\"";
    append_json_escaped(out, http::reason_phrase(status));
    out += "\",\"status\":" + std::to_string(status) + ",\"detail\":\"";
    append_json_escaped(out, detail);
    if (!request_id.empty()) {
        out += "\",\"request_id\":\"";
        append_json_escaped(out, request_id);
    }
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
