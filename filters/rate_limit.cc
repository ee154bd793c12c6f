// The route's rate limit (GCRA, policy/rate_limit.h). What is over it gets 429 with Retry-After and the RateLimit fields of
// draft-ietf-httpapi-ratelimit-headers-10: RateLimit-Policy (q: the quota, w: its window) and RateLimit (r: what is left,
// t: seconds until one more is allowed).
#include <cmath>
#include <string>

#include "filters/filter.h"
#include "filters/rate_limiter.h"

namespace outrider::filters {
namespace {

std::int64_t whole_seconds(Duration d) {
    return static_cast<std::int64_t>(std::ceil(seconds_of(d)));
}

class RateLimit final : public Filter {
    bool concerns(const config::RouteSettings& route) const override { return route.rate_limit.has_value(); }
    Verdict on_request(Context& c) const override {
        if (c.rate_limiter == nullptr) return Continue{};
        const config::RateLimitSettings& settings = c.rate_limiter->settings();
        std::string_view key;
        if (settings.key.kind == config::RateKeyKind::kHeader) key = c.request->value_of(settings.key.name);
        if (settings.key.kind == config::RateKeyKind::kSource) key = c.peer_ip;
        const policy::RateDecision decision = c.rate_limiter->take(key, c.now);
        if (decision.allowed) return Continue{};
        const std::uint32_t burst =
            settings.burst != 0 ? settings.burst : static_cast<std::uint32_t>(std::ceil(settings.rate));
        // A quota of `burst` comes back in burst / rate seconds.
        const auto window = static_cast<std::int64_t>(std::ceil(burst / settings.rate));
        c.response_fields.add("RateLimit-Policy", c.arena->join({"\"default\";q=", std::to_string(burst),
                                                                 ";w=", std::to_string(window)}));
        c.response_fields.add("RateLimit",
                              c.arena->join({"\"default\";r=", std::to_string(decision.remaining),
                                             ";t=", std::to_string(whole_seconds(decision.retry_after))}));
        return Refuse{Refusal::kRateLimited, 0, decision.retry_after, {}};
    }
};

}  // namespace

std::unique_ptr<const Filter> make_rate_limit() {
    return std::make_unique<RateLimit>();
}

}  // namespace outrider::filters
