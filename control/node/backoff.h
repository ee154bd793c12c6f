// How long a node waits before it dials a peer again. Pure.
#pragma once

#include <algorithm>

#include "base/random.h"
#include "base/time.h"

namespace outrider::node {

inline constexpr Duration kReconnectMin = std::chrono::milliseconds(50);
inline constexpr Duration kReconnectMax = std::chrono::seconds(2);

// Doubles with each attempt that failed, and is drawn from the upper half of that, so that two nodes do not go on in step.
inline Duration reconnect_after(unsigned failures, Random& random) {
    const Duration whole = std::min(kReconnectMax, kReconnectMin * (1 << std::min(failures, 6U)));
    const auto half = static_cast<std::uint64_t>(whole.count()) / 2;
    return Duration(static_cast<std::int64_t>(half + random.below(half + 1)));
}

}  // namespace outrider::node
