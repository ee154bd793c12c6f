// Route matching: everything a match names must hold; the first route in file order wins.
#include <algorithm>

#include "base/bytes.h"
#include "proxy/snapshot.h"

namespace outrider::proxy {

namespace {

std::string_view without_port(std::string_view authority) {
    if (!authority.empty() && authority.front() == '[') return authority.substr(0, authority.find(']') + 1);
    return authority.substr(0, authority.find(':'));
}

bool host_matches(std::string_view wanted, std::string_view authority) {
    std::string_view host = without_port(authority);
    if (!host.empty() && host.back() == '.') host.remove_suffix(1);  // a fully qualified name
    if (wanted.size() > 1 && wanted[0] == '*' && wanted[1] == '.') {
        const std::string_view suffix = wanted.substr(1);
        return host.size() > suffix.size() && iequals(host.substr(host.size() - suffix.size()), suffix);
    }
    return iequals(host, wanted);
}

// Whole segments: "/pay" matches "/pay" and "/pay/x", not "/payments".
bool prefix_matches(std::string_view prefix, std::string_view path) {
    if (path.substr(0, prefix.size()) != prefix) return false;
    return prefix.back() == '/' || path.size() == prefix.size() || path[prefix.size()] == '/';
}

bool matches(const config::MatchSettings& match, const http::RequestHead& request) {
    if (!match.host.empty() && !host_matches(match.host, request.authority())) return false;
    if (!match.path.empty() && request.path() != match.path) return false;
    if (!match.path_prefix.empty() && !prefix_matches(match.path_prefix, request.path())) return false;
    if (!match.methods.empty() &&
        std::find(match.methods.begin(), match.methods.end(), request.method_text()) == match.methods.end()) {
        return false;
    }
    return std::all_of(match.headers.begin(), match.headers.end(), [&](const config::HeaderMatch& wanted) {
        return std::any_of(request.all().begin(), request.all().end(), [&](const http::FieldRef& f) {
            return iequals(request.name(f), wanted.name) && request.value(f) == wanted.value;
        });
    });
}

}  // namespace

const RouteEntry* find_route(const ListenerEntry& listener, const http::RequestHead& request) {
    for (const RouteEntry& route : listener.routes) {
        if (matches(route.settings->match, request)) return &route;
    }
    return nullptr;
}

}  // namespace outrider::proxy
