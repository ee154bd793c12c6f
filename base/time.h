// Time as the cores see it: values that come in as arguments. There is no now() here on purpose;
// the only clock source is base/uv (Loop::now()).
#pragma once

#include <chrono>
#include <cstdint>

namespace outrider {

using Duration = std::chrono::nanoseconds;

// The process's monotonic time line. It has no now(): an Instant can only be handed in.
struct MonotonicTimeline {
    using duration = Duration;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<MonotonicTimeline>;
    static constexpr bool is_steady = true;
};
using Instant = MonotonicTimeline::time_point;

// Wall-clock time, for logs and Date headers only; never for a deadline.
struct WallTime {
    std::int64_t unix_micros = 0;
    std::int64_t unix_seconds() const { return unix_micros / 1'000'000; }
};

inline double seconds_of(Duration d) {
    return std::chrono::duration<double>(d).count();
}
inline std::int64_t millis_of(Duration d) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
}

}  // namespace outrider
