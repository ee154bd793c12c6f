// The small grammars inside string values: names, addresses, header fields, paths. Pure functions;
// each error is a sentence that says what would be right.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "config/settings.h"

namespace outrider::config {

// The name of a listener, route, cluster or the node: [A-Za-z0-9_.-]{1,64} (the node: up to 253).
Result<std::string> parse_name(std::string_view text);
Result<std::string> parse_node_name(std::string_view text);

// A token (RFC 9110 section 5.6.2), which header field names, cookie names and methods are.
bool is_token(std::string_view text);
// A header field value: no control bytes but tab, no white space at its ends.
Result<std::string> parse_header_value(std::string_view text);
// A name that header rules may touch: a token that is no framing or hop-by-hop field, nor Host.
Result<std::string> parse_rule_header(std::string_view text);
// Whether it describes the connection or the framing, which outrider writes itself; any letter case.
bool is_framing_field(std::string_view name);
// A name that a match may ask for.
Result<std::string> parse_header_name(std::string_view text);

// An upper-case method that outrider forwards (CONNECT is not one).
Result<std::string> parse_method(std::string_view text);

// A host without port: IPv4, [IPv6] or IPv6 (kept without brackets), DNS name.
Result<std::string> parse_host(std::string_view text);
bool is_ip_literal(std::string_view host);  // without brackets
// "host:port", port 1 to 65535.
Result<HostPort> parse_host_port(std::string_view text);
// The same, and without a port this one.
Result<HostPort> parse_host_port_or(std::string_view text, std::uint16_t port);
// What can be listened on: a literal address or "localhost", port 0 to 65535.
Result<HostPort> parse_listen(std::string_view text);
// What a Host header may carry: host or host:port, IPv6 in brackets. Kept as written.
Result<std::string> parse_authority(std::string_view text);
// match.host: a host without port, lower-cased; "*.example.com" for every sub-domain.
Result<std::string> parse_host_pattern(std::string_view text);

// A path in requests' own form: begins with '/', visible ASCII, no query, no fragment.
Result<std::string> parse_path(std::string_view text);
// A place in the file system.
Result<std::string> parse_file_path(std::string_view text);
Result<std::string> parse_directory(std::string_view text);  // kept without '/' at its end

Result<HashKey> parse_hash_key(std::string_view text);
std::string to_string(const HashKey& key);
Result<Discover> parse_discover(std::string_view text);
std::string to_string(const Discover& discover);

// An element of retry.on: connect, reset, timeout, 5xx or a status from 400 to 599. Kept as written.
Result<std::string> parse_retry_condition(std::string_view text);
// Of elements that parse_retry_condition() took, and back (in a fixed order, each once).
RetryOn retry_on(const std::vector<std::string>& conditions);
std::vector<std::string> conditions_of(const RetryOn& on);

// hedge.after: "p95" or "20ms". Only `after` and `percentile` of what it gives are set.
Result<HedgeSettings> parse_hedge_after(std::string_view text);
std::string hedge_after(const HedgeSettings& hedge);

Result<RateKey> parse_rate_key(std::string_view text);
std::string to_string(const RateKey& key);  // "" for none

// An element of idempotency.scope: header:NAME, query:NAME or source.
Result<ScopeEntry> parse_scope_entry(std::string_view text);

// The shortest text that reads back as the same number; without an exponent where a person would write none.
std::string number_text(double value);

}  // namespace outrider::config
