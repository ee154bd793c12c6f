#include "filters/policy/hedge.h"

namespace outrider::policy {

Duration hedge_after(const HedgeLimits& limits, const LatencyWindow& latency, Instant now) {
    if (limits.percentile <= 0) return limits.after;
    return latency.quantile(now, limits.percentile / 100).value_or(limits.fallback);
}

}  // namespace outrider::policy
