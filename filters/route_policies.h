// What one worker remembers of a route for its policies: the retry budget, recent latencies, the adaptive limit.
//
// Kept over reloads; limits follow the newest configuration. Only routes with policies have one.
#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>

#include "base/ref.h"
#include "config/settings.h"
#include "filters/policy/concurrency_limit.h"
#include "filters/policy/latency_window.h"
#include "filters/policy/retry_budget.h"

namespace outrider::filters {

// budget.min_per_second of a route, for the whole process: a share for each worker would be nothing when there are few requests.
// Behind a lock, since extra attempts are rare.
class RetryFloor {
  public:
    explicit RetryFloor(std::uint32_t per_second) : budget_(0, per_second) {}
    void configure(std::uint32_t per_second) {
        const std::lock_guard lock(mutex_);
        budget_.configure(0, per_second);
    }
    // `granted`: by the ratio, so that it only counts.
    bool take(Instant now, bool granted) {
        const std::lock_guard lock(mutex_);
        latest_ = std::max(latest_, now);
        if (!granted) return budget_.try_retry(latest_);
        budget_.count_retry(latest_);
        return true;
    }

  private:
    std::mutex mutex_;
    policy::RetryBudget budget_;
    Instant latest_{};  // workers' turns begin at different times
};

struct RoutePolicies final : RefCounted {
    policy::RetryBudget budget{0, 0};
    policy::LatencyWindow latency;  // of whole exchanges until the answer's head, for percentile hedges
    std::optional<policy::ConcurrencyLimit> concurrency;
    bool limited = false;  // by `concurrency`

    // What holds for the whole process is shared out equally.
    // `seed`: the same in every worker, another one in each process (policy::ConcurrencyLimit says why).
    void configure(const config::RouteSettings& route, unsigned workers, std::uint64_t seed,
                   std::shared_ptr<RetryFloor> floor) {
        const config::RetrySettings retry = route.retry.value_or(config::RetrySettings{});
        budget.configure(retry.budget_ratio, 0);
        budget.set_floor(
            [floor = std::move(floor)](Instant now, bool granted) { return floor->take(now, granted); });
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
};

}  // namespace outrider::filters
