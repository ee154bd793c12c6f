// The route's adaptive limit on requests in flight (policy/concurrency_limit.h). What is over it is shed at once: 503 with
// Retry-After.
#include "filters/filter.h"
#include "filters/route_policies.h"

namespace outrider::filters {
namespace {

class Concurrency final : public Filter {
    bool concerns(const config::RouteSettings& route) const override { return route.concurrency.has_value(); }
    Verdict on_request(Context& c) const override {
        if (c.policies == nullptr || !c.policies->limited) return Continue{};
        policy::ConcurrencyLimit& limit = *c.policies->concurrency;
        if (!limit.try_acquire(c.now)) return Refuse{Refusal::kShed, 0, limit.retry_after()};
        c.under_concurrency_limit = true;
        c.limit_since = c.now;
        return Continue{};
    }
    void on_end(Context& c, const Outcome& outcome) const override {
        if (!c.under_concurrency_limit) return;
        c.under_concurrency_limit = false;
        using Release = policy::ConcurrencyLimit::Outcome;
        // An answer of the upstream's own: outrider's 503 for want of an endpoint says nothing of its load.
        const bool answered = outcome.latency >= Duration(0);
        const bool overloaded = outcome.timed_out || (answered && (c.status == 503 || c.status == 429));
        const Release how = overloaded                   ? Release::kDropped
                            : answered && c.status < 500 ? Release::kSample
                                                         : Release::kIgnored;
        c.policies->concurrency->release(outcome.now, outcome.latency, how);
    }
};

}  // namespace

std::unique_ptr<const Filter> make_concurrency() {
    return std::make_unique<Concurrency>();
}

}  // namespace outrider::filters
