// What one worker remembers of a route for its policies: the retry budget, recent latencies, the adaptive limit.
//
// Kept over reloads; limits follow the newest configuration. Only routes with policies have one.
#pragma once

#include <optional>

#include "base/ref.h"
#include "config/settings.h"
#include "filters/policy/concurrency_limit.h"
#include "filters/policy/latency_window.h"
#include "filters/policy/retry_budget.h"

namespace outrider::filters {

struct RoutePolicies final : RefCounted {
    policy::RetryBudget budget{0, 0};  // of the first configure() on
    policy::LatencyWindow latency;     // of whole exchanges until the answer's head, for percentile hedges
    std::optional<policy::ConcurrencyLimit> concurrency;
    bool limited = false;  // by `concurrency`

    // What holds for the whole process is shared out equally.
    // `seed`: the same in every worker, another one in each process (policy::ConcurrencyLimit says why).
    void configure(const config::RouteSettings& route, unsigned workers, std::uint64_t seed) {
        const config::RetrySettings retry = route.retry.value_or(config::RetrySettings{});
        const double per_second = static_cast<double>(retry.budget_min_per_second) / workers;
        if (configured_) {
            budget.configure(retry.budget_ratio, per_second);
        } else {
            budget = policy::RetryBudget(retry.budget_ratio, per_second);  // begins with its tokens
            configured_ = true;
        }
        // Once made it stays, since requests under way hold places in it.
        limited = route.concurrency.has_value();
        if (!limited) return;
        const double share = 1.0 / workers;
        const policy::ConcurrencyLimits limits{std::max(1.0, route.concurrency->min * share),
                                               std::max(1.0, route.concurrency->max * share)};
        if (concurrency) {
            concurrency->configure(limits);
        } else {
            concurrency.emplace(limits, seed);
        }
    }

  private:
    bool configured_ = false;
};

}  // namespace outrider::filters
