#include "config/redis_url.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

constexpr std::string_view kPlain = "redis://";
constexpr std::string_view kSentinel = "redis-sentinel://";
constexpr std::uint16_t kRedisPort = 6379;
constexpr std::uint16_t kSentinelPort = 26379;
constexpr std::uint64_t kDatabaseMax = 2147483647;  // an int of Redis
constexpr const char* kHidden = "***";

bool letter_or_digit(char c) {
    return (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') || ascii_digit(c);
}

int hex_digit(char c) {
    if (ascii_digit(c)) return c - '0';
    const char lower = ascii_lower(c);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

Result<std::string> decode(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            out += text[i];
            continue;
        }
        const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
        const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
        if (high < 0 || low < 0) {
            return Error{
                "the user or password has a '%' without two hexadecimal digits; a '%' itself is written %25"};
        }
        const int byte = high * 16 + low;
        if (byte < 0x20 || byte == 0x7f) return Error{"the user or password has a control character"};
        out += static_cast<char>(byte);
        i += 2;
    }
    return out;
}

// All but the unreserved characters of RFC 3986 section 2.3, so that nothing of it means anything in TOML either.
std::string encode(std::string_view text) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    std::string out;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (letter_or_digit(c) || std::string_view("-._~").find(c) != std::string_view::npos) {
            out += c;
        } else {
            out += {'%', kHex[byte >> 4], kHex[byte & 15]};
        }
    }
    return out;
}

// "user:password" or ":password".
Result<void> read_credentials(std::string_view text, RedisUrl& out) {
    if (text.find_first_of("@/?#[]") != std::string_view::npos) {
        return Error{
            "what stands before the last '@' has a character that a user or password carries percent-encoded "
            "('@' is %40, '/' is %2F, '?' is %3F, '#' is %23)"};
    }
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos) {
        return Error{
            "there is a user without a password; write user:password@, or :password@ without a user"};
    }
    Result<std::string> user = decode(text.substr(0, colon));
    if (!user) return Error{user.error()};
    Result<std::string> password = decode(text.substr(colon + 1));
    if (!password) return Error{password.error()};
    if (password->empty())
        return Error{"the password before the '@' is empty; without one leave out the '@' too"};
    out.user = std::move(*user);
    out.password = std::move(*password);
    return {};
}

Result<void> read_hosts(std::string_view text, RedisUrl& out) {
    if (!out.sentinel && text.find(',') != std::string_view::npos) {
        return Error{"there are several hosts; only redis-sentinel:// takes a list"};
    }
    const std::uint16_t port = out.sentinel ? kSentinelPort : kRedisPort;
    while (true) {
        const std::size_t comma = text.find(',');
        const Result<HostPort> host = parse_host_port_or(text.substr(0, comma), port);
        if (!host) {
            return Error{
                "the host" + (out.sentinel ? " of sentinel " + std::to_string(out.hosts.size() + 1) : "") +
                " is not an IPv4 address, an IPv6 address in brackets or a DNS name, with or without "
                ":port (1 to 65535)"};
        }
        if (std::find(out.hosts.begin(), out.hosts.end(), *host) != out.hosts.end()) {
            return Error{"sentinel " + std::to_string(out.hosts.size() + 1) + " is listed twice"};
        }
        if (out.hosts.size() == kSentinelsMax) {
            return Error{"there are more than " + std::to_string(kSentinelsMax) + " sentinels"};
        }
        out.hosts.push_back(*host);
        if (comma == std::string_view::npos) return {};
        text.remove_prefix(comma + 1);
    }
}

Result<void> read_database(std::string_view text, RedisUrl& out) {
    const auto number = parse_decimal(text);
    if (!number || *number > kDatabaseMax) {
        return Error{"the database at its end is not a number from 0 to " + std::to_string(kDatabaseMax)};
    }
    out.db = static_cast<std::uint32_t>(*number);
    return {};
}

// What follows the hosts, without its first '/'.
Result<void> read_path(std::string_view text, RedisUrl& out) {
    if (!out.sentinel) return text.empty() ? Result<void>() : read_database(text, out);
    const std::size_t slash = text.find('/');
    const Result<std::string> service = parse_name(text.substr(0, slash));
    if (!service) {
        return Error{
            "the name of the master that the sentinels watch is missing or wrong: "
            "redis-sentinel://host1,host2/NAME (1 to 64 letters, digits, '_', '.' or '-')"};
    }
    out.service = *service;
    return slash == std::string_view::npos ? Result<void>() : read_database(text.substr(slash + 1), out);
}

}  // namespace

Result<RedisUrl> parse_redis_url(std::string_view text) {
    RedisUrl out;
    if (text.size() > kRedisUrlMax) return Error{"the URL has more than 4 KiB"};
    if (std::any_of(text.begin(), text.end(), [](char c) { return c <= ' ' || c >= 0x7f; })) {
        return Error{"the URL has a character that URLs carry percent-encoded (a space is %20)"};
    }
    if (text.starts_with("rediss://")) {
        return Error{
            "rediss:// (TLS) is not supported; use redis:// over a network that is protected otherwise"};
    }
    out.sentinel = text.starts_with(kSentinel);
    if (!out.sentinel && !text.starts_with(kPlain)) {
        return Error{
            "is not the URL of a Redis (redis://[user:password@]host[:6379][/db] or "
            "redis-sentinel://[user:password@]host1,host2/master[/db])"};
    }
    text.remove_prefix(out.sentinel ? kSentinel.size() : kPlain.size());
    if (const std::size_t at = text.rfind('@'); at != std::string_view::npos) {
        if (Result<void> read = read_credentials(text.substr(0, at), out); !read) return Error{read.error()};
        text.remove_prefix(at + 1);
    }
    if (text.find_first_of("?#") != std::string_view::npos) {
        return Error{
            "the URL has a '?' or '#'; it takes neither query nor fragment (in a password: %3F, %23)"};
    }
    const std::size_t slash = text.find('/');
    if (Result<void> read = read_hosts(text.substr(0, slash), out); !read) return Error{read.error()};
    const std::string_view path =
        slash == std::string_view::npos ? std::string_view() : text.substr(slash + 1);
    if (Result<void> read = read_path(path, out); !read) return Error{read.error()};
    return out;
}

std::string to_string(const RedisUrl& url, Secrets secrets) {
    std::string out(url.sentinel ? kSentinel : kPlain);
    if (!url.password.empty()) {
        out += encode(url.user) + ":" + (secrets == Secrets::kHide ? kHidden : encode(url.password)) + "@";
    }
    for (std::size_t i = 0; i < url.hosts.size(); ++i)
        out += (i > 0 ? "," : "") + config::to_string(url.hosts[i]);
    if (url.sentinel) out += "/" + url.service;
    return out + "/" + std::to_string(url.db);
}

std::optional<std::string> hide_password(std::string_view written) {
    const bool substituted = written.find("${") != std::string_view::npos;  // so there are two bytes
    const std::size_t at = written.rfind('@');
    if (!substituted && at == std::string_view::npos) return std::nullopt;
    if (at == std::string_view::npos) {
        // "${REDIS_URL}" alone shows nothing; of anything more only the environment could tell what it is.
        const auto end = std::find_if_not(written.begin() + 2, written.end(),
                                          [](char c) { return letter_or_digit(c) || c == '_'; });
        const bool alone =
            written.starts_with("${") && end != written.end() && end + 1 == written.end() && *end == '}';
        return alone ? std::nullopt : std::optional<std::string>(kHidden);
    }
    for (const std::string_view scheme : {kPlain, kSentinel}) {
        const std::string_view rest = written.substr(at + 1);
        const bool plain = std::all_of(rest.begin(), rest.end(), [](char c) {
            return letter_or_digit(c) || std::string_view("-._:,/[]").find(c) != std::string_view::npos;
        });
        if (written.starts_with(scheme) && plain) {
            return std::string(scheme) + ":" + kHidden + "@" + std::string(rest);
        }
    }
    return kHidden;
}

}  // namespace outrider::config
