// Hosts and ports of syntax.h.
#include <algorithm>
#include <optional>

#include <arpa/inet.h>

#include "base/bytes.h"
#include "config/diagnostics.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

constexpr std::size_t kDnsNameMax = 253;  // RFC 1035 section 2.3.4, as text
constexpr std::size_t kDnsLabelMax = 63;

bool is_ip(int family, std::string_view text) {
    in6_addr storage{};
    return text.size() < INET6_ADDRSTRLEN && inet_pton(family, std::string(text).c_str(), &storage) == 1;
}

bool is_label(std::string_view label) {
    return !label.empty() && label.size() <= kDnsLabelMax && label.front() != '-' && label.back() != '-' &&
           std::all_of(label.begin(), label.end(), [](char c) {
               return (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') || ascii_digit(c) || c == '-' ||
                      c == '_';
           });
}

bool is_dns_name(std::string_view name) {
    if (!name.empty() && name.back() == '.') name.remove_suffix(1);
    if (name.empty() || name.size() > kDnsNameMax) return false;
    std::string_view last;
    while (!name.empty()) {
        const std::size_t dot = name.find('.');
        last = name.substr(0, dot);
        if (!is_label(last)) return false;
        if (dot == std::string_view::npos) break;
        name.remove_prefix(dot + 1);
        if (name.empty()) return false;
    }
    // No top-level domain is a number (RFC 3696 section 2): "10.0.0.256" is a mistyped address.
    return !std::all_of(last.begin(), last.end(), ascii_digit);
}

struct Parts {
    std::string host;       // without brackets
    std::string_view port;  // as written
    bool has_port = false;
    bool bracketed = false;
};

// Splits "host[:port]" at the last colon; nothing when brackets do not pair or an IPv6 address
// lacks them.
std::optional<Parts> split(std::string_view text) {
    Parts parts;
    if (text.starts_with('[')) {
        const std::size_t end = text.find(']');
        if (end == std::string_view::npos) return std::nullopt;
        parts.host = text.substr(1, end - 1);
        parts.bracketed = true;
        text.remove_prefix(end + 1);
        if (text.empty()) return parts;
        if (text.front() != ':') return std::nullopt;
        parts.has_port = true;
        parts.port = text.substr(1);
        return parts;
    }
    const std::size_t colon = text.find(':');
    parts.host = text.substr(0, colon);
    if (colon == std::string_view::npos) return parts;
    parts.has_port = true;
    parts.port = text.substr(colon + 1);
    if (parts.port.find(':') != std::string_view::npos) return std::nullopt;
    return parts;
}

bool valid_host(const Parts& parts) {
    if (parts.bracketed) return is_ip(AF_INET6, parts.host);
    return is_ip(AF_INET, parts.host) || is_dns_name(parts.host);
}

std::string ipv6_hint(std::string_view text) {
    return std::count(text.begin(), text.end(), ':') > 1 && !text.starts_with('[')
               ? "; an IPv6 address stands in brackets: [::1]:8080"
               : "";
}

Result<HostPort> parse_with_port(std::string_view text, std::uint64_t port_min) {
    const auto parts = split(text);
    if (!parts || !valid_host(*parts)) {
        return Error{in_quotes(text) +
                     " is not an address (host:port; the host is an IPv4 address, an "
                     "IPv6 address in brackets or a DNS name" +
                     ipv6_hint(text) + ")"};
    }
    const auto port = parts->has_port ? parse_decimal(parts->port) : std::nullopt;
    if (!port || *port < port_min || *port > 65535 || parts->port.size() > 5) {
        return Error{in_quotes(text) + (parts->has_port ? " has a bad port (" : " lacks a port (") +
                     std::to_string(port_min) + " to 65535)"};
    }
    return HostPort{parts->host, static_cast<std::uint16_t>(*port)};
}

}  // namespace

bool is_ip_literal(std::string_view host) {
    return is_ip(AF_INET, host) || is_ip(AF_INET6, host);
}

std::string to_string(const HostPort& address) {
    const bool ipv6 = address.host.find(':') != std::string::npos;
    return (ipv6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port);
}

Result<std::string> parse_host(std::string_view text) {
    if (is_ip(AF_INET6, text)) return std::string(text);
    const auto parts = split(text);
    if (!parts || parts->has_port || !valid_host(*parts)) {
        return Error{in_quotes(text) + " is not a host (an IP address or a DNS name, without port)"};
    }
    return parts->host;
}

Result<HostPort> parse_host_port(std::string_view text) {
    return parse_with_port(text, 1);
}

Result<HostPort> parse_host_port_or(std::string_view text, std::uint16_t port) {
    const auto parts = split(text);
    if (parts && !parts->has_port && valid_host(*parts)) return HostPort{parts->host, port};
    return parse_host_port(text);
}

Result<HostPort> parse_listen(std::string_view text) {
    if ((text.starts_with(':') && !text.starts_with("::")) || text.starts_with("*:")) {
        return Error{in_quotes(text) + " lacks the address to listen on (0.0.0.0" +
                     std::string(text.substr(text.find(':'))) + " listens on every IPv4 address)"};
    }
    Result<HostPort> address = parse_with_port(text, 0);
    if (!address) return address;
    if (!is_ip_literal(address->host) && address->host != "localhost") {
        return Error{in_quotes(text) +
                     " must be a literal address or localhost: names are not resolved to listen on"};
    }
    return address;
}

Result<std::string> parse_authority(std::string_view text) {
    const auto parts = split(text);
    const auto port = parts && parts->has_port ? parse_decimal(parts->port) : std::uint64_t{1};
    if (!parts || !valid_host(*parts) || !port || *port < 1 || *port > 65535) {
        return Error{in_quotes(text) + " is not a host or host:port"};
    }
    return std::string(text);
}

Result<std::string> parse_host_pattern(std::string_view text) {
    if (text == "*") return Error{"'*' is not a host; leave the key out to match every host"};
    const std::string_view suffix = text.starts_with("*.") ? text.substr(2) : text;
    const bool wildcard = suffix.size() != text.size();
    const auto parts = split(suffix);
    if (parts && parts->has_port && valid_host(*parts)) {
        return Error{in_quotes(text) + " must be without a port; matching ignores the port of Host"};
    }
    if (!parts || parts->has_port || !valid_host(*parts) || (wildcard && !is_dns_name(parts->host)) ||
        text.back() == '.') {
        return Error{in_quotes(text) +
                     " is not a host to match (pay.example, or *.example.com for every "
                     "sub-domain)"};
    }
    return to_lower(text);
}

}  // namespace outrider::config
