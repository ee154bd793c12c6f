#include "filters/policy/deadline.h"

#include <algorithm>

namespace outrider::policy {

std::optional<Duration> parse_deadline_ms(std::string_view value) {
    constexpr std::size_t kDigitsMax = 10;
    if (value.empty() || value.size() > kDigitsMax) return std::nullopt;
    std::int64_t millis = 0;
    for (const char c : value) {
        if (c < '0' || c > '9') return std::nullopt;
        millis = millis * 10 + (c - '0');
    }
    return std::min<Duration>(kDeadlineMax, std::chrono::milliseconds(millis));
}

std::optional<Duration> exchange_time(Duration route_timeout, std::optional<Duration> incoming) {
    if (route_timeout <= Duration::zero()) return incoming;
    return incoming ? std::min(route_timeout, *incoming) : route_timeout;
}

std::uint64_t deadline_header_ms(Duration left) {
    return static_cast<std::uint64_t>(std::max<std::int64_t>(0, millis_of(left)));
}

}  // namespace outrider::policy
