// What the upstream sees as path and Host.
#include <algorithm>

#include "filters/filter.h"

namespace outrider::filters {
namespace {

class Rewrite final : public Filter {
    bool concerns(const config::RouteSettings& route) const override {
        return !route.rewrite.host.empty() || route.rewrite.prefix;
    }
    Verdict on_request(Context& c) const override {
        const auto& rewrite = c.route->rewrite;
        if (!rewrite.host.empty()) c.authority = rewrite.host;
        if (rewrite.prefix && c.target != "*") {
            // The matched prefix (a whole number of segments) goes, the new one comes; exactly one slash between.
            std::string_view rest = c.target.substr(c.route->match.path_prefix.size());
            std::string_view prefix = *rewrite.prefix;
            while (!prefix.empty() && prefix.back() == '/')
                prefix.remove_suffix(1);
            if (prefix.empty() && !rest.empty() && (rest.front() == '/' || rest.front() == '\\')) {
                // "/old//x" must not become "//x": as a reference that names a host (RFC 3986 section 4.2), and an application
                // that redirects to its own path would send the client there.
                rest.remove_prefix(std::min(rest.find_first_not_of("/\\"), rest.size()));
                c.target = c.arena->join({"/", rest});
                return Continue{};
            }
            const bool slash = !rest.empty() ? (rest.front() != '/' && rest.front() != '?') : prefix.empty();
            const bool bare_query = prefix.empty() && !rest.empty() && rest.front() == '?';
            c.target = c.arena->join({prefix, slash || bare_query ? "/" : "", rest});
        }
        return Continue{};
    }
};

}  // namespace

std::unique_ptr<const Filter> make_rewrite() {
    return std::make_unique<Rewrite>();
}

}  // namespace outrider::filters
