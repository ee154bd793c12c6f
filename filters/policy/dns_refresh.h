// When a name is resolved again, and which endpoints count meanwhile. Pure: answers and `now` come
// in, the next refresh time comes out; the shell arms the timer and asks the resolver.
//
// Invariants
//   * A failure never takes endpoints away: the last good ones stay until an answer replaces them.
//   "Not
//     found" is a failure too: a name that vanishes (a deployment scaled to nothing, a broken zone)
//     leaves endpoints whose health checks say the rest.
//   * An empty answer is treated as a failure.
//   * endpoints() is sorted by id without duplicates, so a server that rotates its answers changes
//   nothing.
//   * After an answer:   next - now = ttl, clamped to [ttl_min, ttl_max].
//   * After n failures in a row:  next - now is uniform in [max(backoff_min, cap / 2), cap] with
//     cap = min(backoff_max, 2^n * backoff_min): with the defaults 1-2 s, 2-4, 4-8, 8-16, then
//     15-30. The jitter keeps a fleet from asking a returning server in step.
#pragma once

#include <vector>

#include "base/random.h"
#include "base/time.h"
#include "filters/policy/balancer.h"

namespace outrider::policy {

struct DnsRefreshLimits {
    Duration ttl_min = std::chrono::seconds(1);
    Duration ttl_max = std::chrono::minutes(5);
    Duration backoff_min = std::chrono::seconds(1);
    Duration backoff_max = std::chrono::seconds(30);
};

class DnsRefresh {
  public:
    explicit DnsRefresh(DnsRefreshLimits limits = {}) : limits_(limits) {}

    struct Step {
        Instant next;          // ask again then
        bool changed = false;  // endpoints() differs from before: build a new balancer
    };

    Step on_answer(Instant now, std::vector<BalancerEndpoint> endpoints, Duration ttl, Random& random);
    Step on_failure(Instant now, Random& random);

    // The last good ones; empty until the first answer.
    const std::vector<BalancerEndpoint>& endpoints() const { return endpoints_; }
    // Since the last good answer.
    std::uint32_t failures() const { return failures_; }

  private:
    DnsRefreshLimits limits_;
    std::vector<BalancerEndpoint> endpoints_;
    std::uint32_t failures_ = 0;
};

}  // namespace outrider::policy
