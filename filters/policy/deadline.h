// The deadline that travels with a request: a header with the milliseconds that are left, so no clocks are
// compared. Each hop takes the smaller of it and of its own timeout, and passes on what then is left; it only
// ever shrinks.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/time.h"

namespace outrider::policy {

inline constexpr Duration kDeadlineMax = std::chrono::hours(30 * 24);

// 1*10DIGIT and nothing else, no sign and no spaces; nullopt for all other text. 0 is valid: the time is
// already over. More than kDeadlineMax is kDeadlineMax.
std::optional<Duration> parse_deadline_ms(std::string_view value);

// How long the whole exchange may take: the smaller of the two. route_timeout: 0 = none. nullopt = no limit.
// Unlike the timeout, an incoming 0 is no time at all.
std::optional<Duration> exchange_time(Duration route_timeout, std::optional<Duration> incoming);

// What the next hop is told. Rounded down, so that it gives up no later than we do; 0 when nothing is left.
std::uint64_t deadline_header_ms(Duration left);

}  // namespace outrider::policy
