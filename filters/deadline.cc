// How much time the exchange has: the route's timeout, or what Outrider-Deadline-Ms says if that is less. The field is
// believed from trusted listeners only; towards the upstream it is written anew for each attempt with what is left then.
#include "filters/policy/deadline.h"

#include <algorithm>

#include "base/bytes.h"
#include "filters/filter.h"

namespace outrider::filters {
namespace {

bool says_deadline(const Context& c, const http::FieldRef& field) {
    return field.id == http::FieldId::kOutrider && iequals(c.request->name(field), "Outrider-Deadline-Ms");
}

class Deadline final : public Filter {
    Verdict on_request(Context& c) const override {
        c.time_left = time_allowed(c);
        if (c.listener->trust_forwarded) {
            for (http::FieldRef& field : c.request->all())
                field.dropped |= says_deadline(c, field);  // each line: the upstream is told one deadline
        }
        if (c.time_left && *c.time_left == Duration(0)) return Refuse{Refusal::kDeadlinePassed, 0, {}, {}};
        return Continue{};
    }
};

}  // namespace

std::optional<Duration> time_allowed(const Context& c) {
    std::optional<Duration> incoming;
    if (c.listener->trust_forwarded) {
        for (const http::FieldRef& field : c.request->all()) {
            if (!says_deadline(c, field)) continue;
            const auto said = policy::parse_deadline_ms(c.request->value(field));
            if (said) incoming = std::min(*said, incoming.value_or(*said));
        }
    }
    return policy::exchange_time(c.route->timeout, incoming);
}

std::unique_ptr<const Filter> make_deadline() {
    return std::make_unique<Deadline>();
}

}  // namespace outrider::filters
