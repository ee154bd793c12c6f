// Identical requests share an upstream call: which ones are identical. Who leads and who waits is the worker's to say
// (proxy/collapser.h).
//
// A request with an idempotency key does not take part: its answer is recorded under its own key.
#include "filters/policy/collapse.h"

#include <string>
#include <vector>

#include "filters/filter.h"

namespace outrider::filters {
namespace {

constexpr std::size_t kKeyBytesMax = 8 * 1024;

class Collapse final : public Filter {
    bool concerns(const config::RouteSettings& route) const override { return route.collapse.has_value(); }
    Verdict on_request(Context& c) const override {
        if (!c.route->collapse || c.key || !http::is_safe(c.request->method)) return Continue{};
        const std::optional<Duration> time = time_allowed(c);
        if (time && *time == Duration(0)) return Continue{};  // to be refused
        std::vector<policy::FieldView> fields;
        fields.reserve(c.request->all().size());
        for (const http::FieldRef& f : c.request->all())
            fields.push_back({c.request->name(f), c.request->value(f)});
        policy::CollapseRequest request;
        request.method = c.request->method_text();
        request.scheme = "http";
        request.host = c.request->authority();
        request.target = c.request->path_and_query();
        request.has_body = c.request->framing != http::Framing::kNone || c.request->upgrade;
        request.fields = fields;
        const auto key = policy::collapse_key(request, c.route->collapse->vary, kKeyBytesMax);
        if (!key) return Continue{};
        c.collapse_key = c.arena->copy(*key);
        c.time_left = time;
        return Join{};
    }
};

}  // namespace

std::unique_ptr<const Filter> make_collapse() {
    return std::make_unique<Collapse>();
}

}  // namespace outrider::filters
