// Faults on purpose: a share of the requests is delayed, answered with an error, or both (first the delay).
#include "filters/filter.h"

namespace outrider::filters {
namespace {

class Fault final : public Filter {
    bool concerns(const config::RouteSettings& route) const override { return route.fault.has_value(); }
    Verdict on_request(Context& c) const override {
        if (!c.route->fault) return Continue{};
        const config::FaultSettings& fault = *c.route->fault;
        if (!c.flags.has(Flag::kDI)) {
            if (c.random->unit() * 100 >= fault.percent) return Continue{};
            if (fault.delay != Duration(0)) {
                c.flags.set(Flag::kDI);
                // The abort, if any, comes behind the delay: this filter is asked once more.
                if (fault.abort != 0) --c.position;
                return Pause{fault.delay};
            }
        }
        if (fault.abort == 0) return Continue{};
        return Refuse{Refusal::kFault, fault.abort, {}, {}};
    }
};

}  // namespace

std::unique_ptr<const Filter> make_fault() {
    return std::make_unique<Fault>();
}

}  // namespace outrider::filters
