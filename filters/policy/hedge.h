// When a second attempt is made beside the first one ("The Tail at Scale", Dean and Barroso, CACM 2013: defer
// it until the first has been outstanding for longer than the 95th percentile, so it adds about 5 % load).
// The attempt itself is an extra one and is asked of the route's RetryBudget, like a retry.
//
// What to record in the LatencyWindow: the time of each FIRST attempt, from its start until its head or, when
// it is given up because the second one won, until then. Such a time is no less than the wait that was used,
// so the slow attempts stay slow in the statistics. Recording only the winners would pull the percentile down
// a little with each hedge that wins, and hedge more and more.
#pragma once

#include "base/time.h"
#include "filters/policy/latency_window.h"

namespace outrider::policy {

struct HedgeLimits {
    Duration after{};                             // fixed wait; used when percentile is 0
    double percentile = 0;                        // of the route's recent latency, 50 to 99.9
    Duration fallback = std::chrono::seconds(1);  // until enough latencies are known
};

// The wait from the start of the first attempt to that of the second.
Duration hedge_after(const HedgeLimits& limits, const LatencyWindow& latency, Instant now);

}  // namespace outrider::policy
