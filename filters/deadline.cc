// How much time the exchange has: the route's timeout, or what Outrider-Deadline-Ms says if that is less. The field is
// believed from trusted listeners only; towards the upstream it is written anew for each attempt with what is left then.
#include "filters/policy/deadline.h"

#include "filters/filter.h"

namespace outrider::filters {
namespace {

class Deadline final : public Filter {
    Verdict on_request(Context& c) const override {
        std::optional<Duration> incoming;
        if (c.listener->trust_forwarded) {
            if (http::FieldRef* field = c.request->find("Outrider-Deadline-Ms")) {
                incoming = policy::parse_deadline_ms(c.request->value(*field));
                field->dropped = true;
            }
        }
        c.time_left = policy::exchange_time(c.route->timeout, incoming);
        if (c.time_left && *c.time_left == Duration(0)) return Refuse{Refusal::kDeadlinePassed, 0, {}};
        return Continue{};
    }
};

}  // namespace

std::unique_ptr<const Filter> make_deadline() {
    return std::make_unique<Deadline>();
}

}  // namespace outrider::filters
