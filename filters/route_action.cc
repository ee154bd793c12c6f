// Routes that answer themselves: direct responses and redirects.
#include <algorithm>

#include "filters/filter.h"

namespace outrider::filters {
namespace {

class RouteAction final : public Filter {
    bool concerns(const config::RouteSettings& route) const override {
        return route.respond || route.redirect;
    }
    Verdict on_request(Context& c) const override {
        if (c.route->respond) {
            const auto& respond = *c.route->respond;
            return LocalResponse{respond.status, respond.content_type, respond.body, {}};
        }
        if (c.route->redirect) return redirect(c, *c.route->redirect);
        return Continue{};
    }

    static Verdict redirect(Context& c, const config::RedirectSettings& r) {
        const http::RequestHead& request = *c.request;
        std::string_view path = request.path();
        if (!r.path.empty()) {
            path = r.path;
        } else if (r.prefix) {
            std::string_view rest = path.substr(c.route->match.path_prefix.size());
            std::string_view prefix = *r.prefix;
            // "/old/" + "x" -> "/new" + "/x"; never "//".
            if (!prefix.empty() && prefix.back() == '/' && !rest.empty() && rest.front() == '/')
                rest.remove_prefix(1);
            const bool slash =
                (prefix.empty() || prefix.back() != '/') && !rest.empty() && rest.front() != '/';
            path = c.arena->join({prefix, slash ? "/" : "", rest});
            if (path.empty()) path = "/";
        }
        const bool query =
            r.keep_query && !request.query().empty() && path.find('?') == std::string_view::npos;
        const std::string_view host = r.host.empty() ? request.authority() : std::string_view(r.host);
        // Without a host (HTTP/1.0) or anything that changes it, a relative reference stays on the client's own scheme.
        const bool absolute = !host.empty() && (!r.scheme.empty() || !r.host.empty());
        bool slash = false;
        if (!absolute) {
            // "//evil.example/x" names another host (RFC 3986 section 4.2), and browsers read "\" as "/": what the client
            // wrote behind the matched prefix must not lead it away (CWE-601).
            const std::size_t first = std::min(path.find_first_not_of("/\\"), path.size());
            slash = first > 0;
            path.remove_prefix(first);
        }
        const std::string_view location = c.arena->join(
            {absolute ? (r.scheme.empty() ? std::string_view("http") : std::string_view(r.scheme)) : "",
             absolute ? "://" : "", absolute ? host : "", slash ? "/" : "", path, query ? "?" : "",
             query ? request.query() : ""});
        return LocalResponse{r.status, {}, {}, location};
    }
};

}  // namespace

std::unique_ptr<const Filter> make_route_action() {
    return std::make_unique<RouteAction>();
}

}  // namespace outrider::filters
