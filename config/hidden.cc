#include "config/hidden.h"

#include <algorithm>
#include <string>

#include "base/bytes.h"

namespace outrider::config {
namespace {

bool host_covers(std::string_view earlier, std::string_view later) {
    if (earlier.empty() || earlier == later) return true;
    // "*.example.com" takes a.example.com and *.a.example.com: both end in ".example.com".
    return earlier.starts_with("*.") && later.size() >= earlier.size() && later.ends_with(earlier.substr(1));
}

bool path_covers(const MatchSettings& earlier, const MatchSettings& later) {
    if (!earlier.path.empty()) return earlier.path == later.path;
    if (earlier.path_prefix.empty() || earlier.path_prefix == "/") return true;
    const std::string& path = later.path.empty() ? later.path_prefix : later.path;
    return prefix_holds(earlier.path_prefix, path);
}

bool methods_cover(const MatchSettings& earlier, const MatchSettings& later, std::size_t& work) {
    if (earlier.methods.empty()) return true;
    if (later.methods.empty()) return false;
    work += earlier.methods.size() * later.methods.size();
    return std::all_of(later.methods.begin(), later.methods.end(), [&](const std::string& method) {
        return std::find(earlier.methods.begin(), earlier.methods.end(), method) != earlier.methods.end();
    });
}

// Each header that `earlier` asks for, `later` asks for with the same value.
bool headers_cover(const MatchSettings& earlier, const MatchSettings& later, std::size_t& work) {
    work += earlier.headers.size() * later.headers.size();
    return std::all_of(earlier.headers.begin(), earlier.headers.end(), [&](const HeaderMatch& wanted) {
        return std::any_of(later.headers.begin(), later.headers.end(), [&](const HeaderMatch& other) {
            return iequals(other.name, wanted.name) && other.value == wanted.value;
        });
    });
}

}  // namespace

bool prefix_holds(std::string_view prefix, std::string_view path) {
    if (prefix.empty() || prefix == "/") return true;
    if (!path.starts_with(prefix)) return false;
    return path.size() == prefix.size() || prefix.back() == '/' || path[prefix.size()] == '/';
}

bool hides(const MatchSettings& earlier, const MatchSettings& later, std::size_t& work) {
    ++work;
    return path_covers(earlier, later) && host_covers(earlier.host, later.host) &&
           methods_cover(earlier, later, work) && headers_cover(earlier, later, work);
}

bool hides(const MatchSettings& earlier, const MatchSettings& later) {
    std::size_t work = 0;
    return hides(earlier, later, work);
}

}  // namespace outrider::config
