// The stack, outermost first. A person cannot misorder it; adding a filter is one line here and one file.
#include "base/bytes.h"
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
}

void Chain::identify(Context& context) const {
    (void)filters_.front()->on_request(context);
    context.position = 1;
}

Verdict Chain::on_request(Context& context) const {
    while (context.position < filters_.size()) {
        Verdict verdict = filters_[context.position++]->on_request(context);
        if (!std::holds_alternative<Continue>(verdict)) return verdict;
    }
    return Continue{};
}

void Chain::on_response(Context& context) const {
    for (auto it = filters_.rbegin(); it != filters_.rend(); ++it)
        (*it)->on_response(context);
}

void Chain::on_end(Context& context, const Outcome& outcome) const {
    for (auto it = filters_.rbegin(); it != filters_.rend(); ++it)
        (*it)->on_end(context, outcome);
}

void Additions::remove(std::string_view name) {
    std::erase_if(fields_, [&](const http::Field& f) {
        if (!iequals(f.name, name)) return false;
        bytes_ -= f.name.size() + f.value.size() + 4;
        return true;
    });
}

}  // namespace outrider::filters
