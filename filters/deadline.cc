// How much time the exchange has: the route's timeout, or what Outrider-Deadline-Ms says if that is less. The field is
// believed from trusted listeners only; towards the upstream it is written anew for each attempt with what is left then.
#include "filters/policy/deadline.h"

#include <algorithm>

#include "base/bytes.h"
#include "filters/filter.h"

namespace outrider::filters {
namespace {

class Deadline final : public Filter {
    Verdict on_request(Context& c) const override {
        std::optional<Duration> incoming;
        if (c.listener->trust_forwarded) {
            for (http::FieldRef& field : c.request->all()) {
                if (field.id != http::FieldId::kOutrider ||
                    !iequals(c.request->name(field), "Outrider-Deadline-Ms"))
                    continue;
                field.dropped = true;  // each line: the upstream is told one deadline
                const auto said = policy::parse_deadline_ms(c.request->value(field));
                if (said) incoming = std::min(*said, incoming.value_or(*said));
            }
        }
        c.time_left = policy::exchange_time(c.route->timeout, incoming);
        if (c.time_left && *c.time_left == Duration(0)) return Refuse{Refusal::kDeadlinePassed, 0, {}, {}};
        return Continue{};
    }
};

}  // namespace

std::unique_ptr<const Filter> make_deadline() {
    return std::make_unique<Deadline>();
}

}  // namespace outrider::filters
