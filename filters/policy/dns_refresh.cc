#include "filters/policy/dns_refresh.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace outrider::policy {

DnsRefresh::Step DnsRefresh::on_answer(Instant now, std::vector<BalancerEndpoint> endpoints, Duration ttl,
                                       Random& random) {
    if (endpoints.empty()) return on_failure(now, random);
    failures_ = 0;
    std::stable_sort(endpoints.begin(), endpoints.end(),
                     [](const BalancerEndpoint& a, const BalancerEndpoint& b) { return a.id < b.id; });
    endpoints.erase(
        std::unique(endpoints.begin(), endpoints.end(),
                    [](const BalancerEndpoint& a, const BalancerEndpoint& b) { return a.id == b.id; }),
        endpoints.end());
    const bool changed = endpoints != endpoints_;
    if (changed) endpoints_ = std::move(endpoints);
    return {.next = now + std::clamp(ttl, limits_.ttl_min, limits_.ttl_max), .changed = changed};
}

DnsRefresh::Step DnsRefresh::on_failure(Instant now, Random& random) {
    if (failures_ < std::numeric_limits<std::uint32_t>::max()) ++failures_;
    Duration cap = limits_.backoff_min;
    for (std::uint32_t n = 0; n < failures_ && cap < limits_.backoff_max; ++n) {
        cap *= 2;
    }
    cap = std::min(cap, limits_.backoff_max);
    const Duration least = std::min(cap, std::max(limits_.backoff_min, cap / 2));
    const auto spread = static_cast<std::uint64_t>((cap - least).count());
    const auto extra = static_cast<Duration::rep>(random.below(spread + 1));
    return {.next = now + least + Duration(extra), .changed = false};
}

}  // namespace outrider::policy
