// The route's own rules for fields: remove, then set, then add.
#include "base/bytes.h"
#include "filters/filter.h"

namespace outrider::filters {
namespace {

void drop(http::Head* head, Additions& additions, std::string_view name) {
    if (head != nullptr) {
        for (http::FieldRef& f : head->all()) {
            if (iequals(head->name(f), name)) f.dropped = true;
        }
    }
    additions.remove(name);
}

void apply(const config::HeaderRules& rules, http::Head* head, Additions& additions) {
    for (const std::string& name : rules.remove)
        drop(head, additions, name);
    for (const auto& [name, value] : rules.set) {
        drop(head, additions, name);
        additions.add(name, value);
    }
    for (const auto& [name, value] : rules.add)
        additions.add(name, value);
}

class HeaderRulesFilter final : public Filter {
    bool concerns(const config::RouteSettings& route) const override {
        return !route.request_headers.empty() || !route.response_headers.empty();
    }
    Verdict on_request(Context& c) const override {
        if (!c.route->request_headers.empty()) apply(c.route->request_headers, c.request, c.request_fields);
        return Continue{};
    }
    void on_response(Context& c) const override {
        if (c.route != nullptr && !c.route->response_headers.empty()) {
            apply(c.route->response_headers, c.response, c.response_fields);
        }
    }
};

}  // namespace

std::unique_ptr<const Filter> make_header_rules() {
    return std::make_unique<HeaderRulesFilter>();
}

}  // namespace outrider::filters
