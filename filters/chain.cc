// The stack, outermost first. A person cannot misorder it; adding a filter is one line here and one file.
#include <bit>

#include "base/bytes.h"
#include "base/check.h"
#include "filters/filter.h"

namespace outrider::filters {

Chain::Chain() {
    filters_.push_back(make_request_id());
    filters_.push_back(make_rate_limit());
    filters_.push_back(make_fault());
    filters_.push_back(make_idempotency());
    filters_.push_back(make_collapse());
    filters_.push_back(make_batch());
    filters_.push_back(make_concurrency());
    filters_.push_back(make_forwarding());
    filters_.push_back(make_route_action());
    filters_.push_back(make_rewrite());
    filters_.push_back(make_header_rules());
    filters_.push_back(make_deadline());
    require(filters_.size() < 32, "a set of filters is one word");
    all_ = (FilterSet{1} << filters_.size()) - 1;
}

void Chain::identify(Context& context) const {
    (void)filters_.front()->on_request(context);
    context.position = 1;
}

FilterSet Chain::concerned(const config::RouteSettings& route) const {
    FilterSet set = 0;
    for (std::size_t i = 0; i < filters_.size(); ++i)
        set |= filters_[i]->concerns(route) ? FilterSet{1} << i : 0;
    return set;
}

Verdict Chain::on_request(Context& context) const {
    for (;;) {
        const FilterSet left = context.filters & all_ & (kAllFilters << context.position);
        if (left == 0) return Continue{};
        const auto next = static_cast<std::size_t>(std::countr_zero(left));
        context.position = next + 1;  // a filter may take itself back
        Verdict verdict = filters_[next]->on_request(context);
        if (!std::holds_alternative<Continue>(verdict)) return verdict;
    }
}

namespace {
// Innermost first.
template <typename Visit>
void upwards(FilterSet set, Visit visit) {
    while (set != 0) {
        const auto at = static_cast<unsigned>(std::bit_width(set)) - 1;
        set &= ~(FilterSet{1} << at);
        visit(at);
    }
}
}  // namespace

void Chain::on_response(Context& context) const {
    upwards(context.filters & all_, [&](unsigned at) { filters_[at]->on_response(context); });
}

void Chain::on_end(Context& context, const Outcome& outcome) const {
    upwards(context.filters & all_, [&](unsigned at) { filters_[at]->on_end(context, outcome); });
}

void Additions::remove(std::string_view name) {
    std::erase_if(fields_, [&](const http::Field& f) {
        if (!iequals(f.name, name)) return false;
        bytes_ -= f.name.size() + f.value.size() + 4;
        return true;
    });
}

}  // namespace outrider::filters
