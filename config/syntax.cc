#include "config/syntax.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/bytes.h"
#include "base/units.h"
#include "config/diagnostics.h"
#include "config/suggest.h"

namespace outrider::config {
namespace {

constexpr std::size_t kNameMax = 64;
constexpr std::size_t kNodeNameMax = 253;
constexpr std::size_t kHeaderNameMax = 256;
constexpr std::size_t kPathMax = 8192;
constexpr std::size_t kDirectoryMax = 3072;  // of PATH_MAX (4096); the rest is for the names of files in it
constexpr std::size_t kScopeNameMax = 256;
constexpr double kPercentileMin = 50;
constexpr double kPercentileMax = 99.9;
constexpr Duration kHedgeAfterMin = 1ms;
constexpr Duration kHedgeAfterMax = 5min;

bool letter(char c) {
    return ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z';
}

bool has_control(std::string_view text) {
    return std::any_of(text.begin(), text.end(), [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return byte < 0x20 || byte == 0x7f;
    });
}

Result<std::string> parse_limited_name(std::string_view text, std::size_t max) {
    const bool allowed = std::all_of(text.begin(), text.end(), [](char c) {
        return letter(c) || ascii_digit(c) || c == '_' || c == '.' || c == '-';
    });
    if (text.empty() || text.size() > max || !allowed) {
        return Error{in_quotes(text) + " is not a name (1 to " + std::to_string(max) +
                     " letters, digits, '_', '.' or '-')"};
    }
    return std::string(text);
}

// What llhttp knows, without CONNECT (outrider is no forward proxy) and the RTSP methods.
const std::vector<std::string>& methods() {
    static const std::vector<std::string> kMethods{
        "GET",      "HEAD",      "POST",       "PUT",        "DELETE", "OPTIONS", "PATCH",
        "TRACE",    "ACL",       "BIND",       "CHECKOUT",   "COPY",   "LINK",    "LOCK",
        "M-SEARCH", "MERGE",     "MKACTIVITY", "MKCALENDAR", "MKCOL",  "MOVE",    "NOTIFY",
        "PROPFIND", "PROPPATCH", "PURGE",      "REBIND",     "REPORT", "SEARCH",  "SUBSCRIBE",
        "UNBIND",   "UNLINK",    "UNLOCK",     "UNSUBSCRIBE"};
    return kMethods;
}

bool is_query_name(std::string_view name) {
    return !name.empty() && !has_control(name) && name.find_first_of(" &=#") == std::string_view::npos;
}

// RFC 9110 section 7.6.1 and RFC 9112 section 6: these describe the connection or the framing,
// which outrider writes itself.
constexpr std::array<std::string_view, 8> kFramingFields{
    "connection", "content-length", "keep-alive",        "proxy-connection",
    "te",         "trailer",        "transfer-encoding", "upgrade"};

}  // namespace

Result<std::string> parse_name(std::string_view text) {
    return parse_limited_name(text, kNameMax);
}

Result<std::string> parse_node_name(std::string_view text) {
    return parse_limited_name(text, kNodeNameMax);
}

bool is_token(std::string_view text) {
    constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
    return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
        return letter(c) || ascii_digit(c) || kMarks.find(c) != std::string_view::npos;
    });
}

Result<std::string> parse_header_value(std::string_view text) {
    if (std::any_of(text.begin(), text.end(), [](char c) {
            const auto byte = static_cast<unsigned char>(c);
            return (byte < 0x20 && c != '\t') || byte == 0x7f;
        })) {
        return Error{"a header value cannot contain control characters or line breaks"};
    }
    if (trim_ows(text).size() != text.size()) {
        return Error{"a header value cannot begin or end with white space"};
    }
    if (text.size() > kPathMax) return Error{"a header value of more than 8 KiB"};
    return std::string(text);
}

Result<std::string> parse_header_name(std::string_view text) {
    if (!is_token(text) || text.size() > kHeaderNameMax) {
        return Error{in_quotes(text) + " is not a header name (letters, digits and !#$%&'*+-.^_`|~)"};
    }
    return std::string(text);
}

bool is_framing_field(std::string_view name) {
    return std::find(kFramingFields.begin(), kFramingFields.end(), to_lower(name)) != kFramingFields.end();
}

Result<std::string> parse_rule_header(std::string_view text) {
    Result<std::string> name = parse_header_name(text);
    if (!name) return name;
    if (iequals(text, "host")) {
        return Error{"Host cannot be changed by header rules; use rewrite = { host = \"...\" }"};
    }
    if (is_framing_field(text)) {
        return Error{*name +
                     " frames messages or belongs to one connection; outrider writes it "
                     "itself, rules cannot touch it"};
    }
    return name;
}

Result<std::string> parse_method(std::string_view text) {
    const auto& known = methods();
    if (std::find(known.begin(), known.end(), text) != known.end()) return std::string(text);
    if (text == "CONNECT") return Error{"CONNECT is not forwarded"};
    return Error{in_quotes(text) + " is not a known HTTP method" + did_you_mean(text, known)};
}

Result<std::string> parse_path(std::string_view text) {
    if (text.empty() || text.front() != '/') return Error{in_quotes(text) + " must begin with '/'"};
    if (text.size() > kPathMax) return Error{"a path of more than 8 KiB"};
    for (const char c : text) {
        if (c == '?' || c == '#') {
            return Error{in_quotes(text) + " must be a path only, without '" + std::string(1, c) + "'"};
        }
        if (c <= ' ' || c >= 0x7f) {  // char is signed here: bytes above 0x7f are below ' '
            return Error{in_quotes(text) + " has a character that paths carry percent-encoded (space: %20)"};
        }
    }
    return std::string(text);
}

Result<std::string> parse_file_path(std::string_view text) {
    if (text.find('/') == std::string_view::npos || text.back() == '/' || has_control(text)) {
        return Error{in_quotes(text) + " is not a file path (with a '/' in it, not at its end)"};
    }
    return std::string(text);
}

Result<std::string> parse_directory(std::string_view text) {
    if (text.find('/') == std::string_view::npos || has_control(text) || text.size() > kDirectoryMax) {
        return Error{in_quotes(text) +
                     " is not the path of a directory (with a '/' in it: \"./keys\", \"/var/lib/keys\")"};
    }
    while (text.size() > 1 && text.back() == '/')
        text.remove_suffix(1);
    return std::string(text);
}

Result<HashKey> parse_hash_key(std::string_view text) {
    using Kind = HashKey::Kind;
    if (text == "path") return HashKey{Kind::kPath, ""};
    if (text == "source") return HashKey{Kind::kSource, ""};
    const std::size_t colon = text.find(':');
    const std::string_view kind = text.substr(0, colon);
    const std::string_view name =
        colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
    if (kind == "header" && is_token(name)) return HashKey{Kind::kHeader, std::string(name)};
    if (kind == "cookie" && is_token(name)) return HashKey{Kind::kCookie, std::string(name)};
    if (kind == "query" && is_query_name(name)) return HashKey{Kind::kQuery, std::string(name)};
    return Error{in_quotes(text) +
                 " is not a hash key (header:NAME, query:NAME, cookie:NAME, path or source)"};
}

std::string to_string(const HashKey& key) {
    switch (key.kind) {
        case HashKey::Kind::kHeader:
            return "header:" + key.name;
        case HashKey::Kind::kQuery:
            return "query:" + key.name;
        case HashKey::Kind::kCookie:
            return "cookie:" + key.name;
        case HashKey::Kind::kPath:
            return "path";
        case HashKey::Kind::kSource:
            break;
    }
    return "source";
}

Result<Discover> parse_discover(std::string_view text) {
    const std::size_t colon = text.find(':');
    const std::string_view kind = text.substr(0, colon);
    const std::string_view rest =
        colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
    if (kind == "dns") {
        Result<HostPort> where = parse_host_port(rest);
        if (!where) return Error{where.error()};
        if (is_ip_literal(where->host)) {
            return Error{in_quotes(rest) + " is an address, not a DNS name; list it under endpoints"};
        }
        return Discover{DiscoverKind::kDns, where->host, where->port};
    }
    if (kind == "dns-srv") {
        Result<std::string> name = parse_host(rest);
        if (name && !is_ip_literal(*name)) return Discover{DiscoverKind::kDnsSrv, *name, 0};
        return Error{in_quotes(rest) + " is not the DNS name of SRV records (_http._tcp.example)"};
    }
    return Error{in_quotes(text) + " is not a discovery (dns:NAME:PORT or dns-srv:NAME)"};
}

std::string to_string(const Discover& discover) {
    if (discover.kind == DiscoverKind::kDnsSrv) return "dns-srv:" + discover.name;
    return "dns:" + discover.name + ":" + std::to_string(discover.port);
}

Result<std::string> parse_retry_condition(std::string_view text) {
    static const std::vector<std::string> kWords{"connect", "reset", "timeout", "5xx"};
    if (std::find(kWords.begin(), kWords.end(), text) != kWords.end()) return std::string(text);
    const bool status = text.size() == 3 && (text[0] == '4' || text[0] == '5') && ascii_digit(text[1]) &&
                        ascii_digit(text[2]);
    if (status) return std::string(text);
    return Error{in_quotes(text) + " is neither connect, reset, timeout, 5xx nor a status from 400 to 599" +
                 did_you_mean(text, kWords)};
}

RetryOn retry_on(const std::vector<std::string>& conditions) {
    RetryOn on{.connect = false, .reset = false, .timeout = false, .any_5xx = false, .statuses = {}};
    for (const std::string& condition : conditions) {
        if (condition == "connect") {
            on.connect = true;
        } else if (condition == "reset") {
            on.reset = true;
        } else if (condition == "timeout") {
            on.timeout = true;
        } else if (condition == "5xx") {
            on.any_5xx = true;
        } else if (const auto status = parse_decimal(condition)) {
            on.statuses.push_back(static_cast<int>(*status));
        }
    }
    std::sort(on.statuses.begin(), on.statuses.end());
    on.statuses.erase(std::unique(on.statuses.begin(), on.statuses.end()), on.statuses.end());
    return on;
}

std::vector<std::string> conditions_of(const RetryOn& on) {
    std::vector<std::string> out;
    if (on.connect) out.emplace_back("connect");
    if (on.reset) out.emplace_back("reset");
    if (on.timeout) out.emplace_back("timeout");
    if (on.any_5xx) out.emplace_back("5xx");
    for (const int status : on.statuses)
        out.push_back(std::to_string(status));
    return out;
}

Result<HedgeSettings> parse_hedge_after(std::string_view text) {
    HedgeSettings out;
    if (text.starts_with('p')) {
        const char* const end = text.data() + text.size();
        double value = 0;
        const auto parsed = std::from_chars(text.data() + 1, end, value, std::chars_format::fixed);
        if (parsed.ec == std::errc() && parsed.ptr == end && value >= kPercentileMin &&
            value <= kPercentileMax) {
            out.percentile = value;
            return out;
        }
        return Error{in_quotes(text) + " is not a percentile from p50 to p99.9"};
    }
    const Result<Duration> after = parse_duration(text);
    if (!after) {
        return Error{in_quotes(text) +
                     " is neither a percentile such as \"p95\" nor a duration such as \"20ms\""};
    }
    if (*after < kHedgeAfterMin || *after > kHedgeAfterMax) {
        return Error{std::string(text) + " is out of range (" + outrider::to_string(kHedgeAfterMin) + " to " +
                     outrider::to_string(kHedgeAfterMax) + ")"};
    }
    out.after = *after;
    return out;
}

std::string hedge_after(const HedgeSettings& hedge) {
    return hedge.percentile > 0 ? "p" + number_text(hedge.percentile) : outrider::to_string(hedge.after);
}

Result<RateKey> parse_rate_key(std::string_view text) {
    constexpr std::string_view kHeader = "header:";
    if (text == "source") return RateKey{RateKeyKind::kSource, ""};
    if (text.starts_with(kHeader) && is_token(text.substr(kHeader.size()))) {
        return RateKey{RateKeyKind::kHeader, std::string(text.substr(kHeader.size()))};
    }
    return Error{in_quotes(text) + " is not a key to limit by (header:NAME or source)"};
}

std::string to_string(const RateKey& key) {
    switch (key.kind) {
        case RateKeyKind::kHeader:
            return "header:" + key.name;
        case RateKeyKind::kSource:
            return "source";
        case RateKeyKind::kNone:
            break;
    }
    return "";
}

Result<ScopeEntry> parse_scope_entry(std::string_view text) {
    const std::size_t colon = text.find(':');
    const std::string_view kind = text.substr(0, colon);
    const std::string_view name =
        colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
    if (text == "source") return ScopeEntry{ScopeKind::kSource, "", "source"};
    if (name.size() <= kScopeNameMax) {
        if (kind == "header" && is_framing_field(name)) {
            return Error{std::string(name) +
                         " says nothing about who the caller is: it belongs to one connection"};
        }
        if (kind == "header" && is_token(name)) {
            return ScopeEntry{ScopeKind::kHeader, std::string(name), std::string(text)};
        }
        if (kind == "query" && is_query_name(name)) {
            return ScopeEntry{ScopeKind::kQuery, std::string(name), std::string(text)};
        }
    }
    return Error{in_quotes(text) + " does not say who the caller is (header:NAME, query:NAME or source)"};
}

std::string number_text(double value) {
    char buffer[32];
    // At most 16 digits before the point, so that it fits.
    const bool plain = value == 0 || (std::fabs(value) >= 1e-3 && std::fabs(value) < 1e16);
    const auto end =
        plain ? std::to_chars(std::begin(buffer), std::end(buffer), value, std::chars_format::fixed)
              : std::to_chars(std::begin(buffer), std::end(buffer), value);
    return {std::begin(buffer), end.ptr};
}

}  // namespace outrider::config
