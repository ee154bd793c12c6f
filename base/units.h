// Durations and sizes as people write them in the configuration, and back.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"

namespace outrider {

// A count of bytes; a type of its own so that it cannot be swapped with a count of something else.
struct Bytes {
    std::uint64_t value = 0;
    friend constexpr auto operator<=>(const Bytes&, const Bytes&) = default;
};

// "250ms", "1.5s", "2m", "24h", "10us", "1d", "0s"; a unit is required (a bare "0" is accepted too).
// Range: 0 to 10 years.
Result<Duration> parse_duration(std::string_view text);

// "512B", "64KiB", "1MiB", "2GiB", "1KB" (1000), "0"; a unit is required for anything but 0. Range: 0 to 2^62.
Result<Bytes> parse_bytes(std::string_view text);

// The shortest exact form that the parsers above read back ("1500ms", "64KiB").
std::string to_string(Duration d);
std::string to_string(Bytes b);

}  // namespace outrider
