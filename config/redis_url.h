// Where a Redis store is, as one URL.
//
//   redis://[[user]:password@]host[:6379][/db]
//   redis-sentinel://[[user]:password@]h1[:26379],h2[:26379],.../master-name[/db]
//
// User and password are percent-encoded (RFC 3986 section 3.2.1): a password with '@', '/', '?', '#', '%' or a space in it is not
// the same without. IPv6 addresses stand in brackets. No query, no fragment.
//
// Invariant: no error of the parser quotes any part of the URL. Where the password ends is just what a mistake hides.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "config/load.h"
#include "config/settings.h"

namespace outrider::config {

inline constexpr std::size_t kRedisUrlMax = 4096;
inline constexpr std::size_t kSentinelsMax = 16;

Result<RedisUrl> parse_redis_url(std::string_view text);

// Ports and database spelled out. kShow reads back as the same settings; kHide has "***" for the password, and reads back too.
std::string to_string(const RedisUrl& url, Secrets secrets);

// A URL as it is written in a file, before it is substituted from the environment, without user and password; nothing when it
// has none. Where it is not certain which part they are, "***".
std::optional<std::string> hide_password(std::string_view written);

}  // namespace outrider::config
