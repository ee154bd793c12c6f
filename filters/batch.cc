// Parts of batches: which requests may be one, and which may share a call. What their bodies must be, and when a call leaves, is the worker's to
// say (proxy/batcher.h).
//
// A call is made in one client's name, so requests share it when every field that is passed on is the same. Not compared are those that
// stand for one request (its id, trace, deadline, key) and what the call has in place of them.
#include <array>
#include <string>

#include "base/bytes.h"
#include "filters/filter.h"

namespace outrider::filters {
namespace {

constexpr std::size_t kGroupBytesMax = 8 * 1024;

bool is_json(std::string_view content_type) {
    const std::string_view type = trim_ows(content_type.substr(0, content_type.find(';')));
    constexpr std::string_view kSuffix = "+json";
    return iequals(type, "application/json") ||
           (type.size() > kSuffix.size() && iequals(type.substr(type.size() - kSuffix.size()), kSuffix));
}

bool names_key(const Context& c, std::string_view name) {
    return iequals(name, "Idempotency-Key") ||
           (c.route->idempotency && iequals(name, c.route->idempotency->header));
}

// Stands for one request only, or is written anew.
bool is_its_own(const Context& c, const http::FieldRef& f) {
    switch (f.id) {
        case http::FieldId::kHost:
        case http::FieldId::kContentLength:
        case http::FieldId::kContentType:
        case http::FieldId::kTransferEncoding:
        case http::FieldId::kTrailer:
        case http::FieldId::kExpect:
        case http::FieldId::kXRequestId:
        case http::FieldId::kTraceparent:
        case http::FieldId::kTracestate:
        case http::FieldId::kVia:
            return true;
        case http::FieldId::kXForwardedFor:
        case http::FieldId::kXForwardedHost:
        case http::FieldId::kXForwardedProto:
            return !c.listener->trust_forwarded;  // not passed on
        case http::FieldId::kOutrider:
            return !c.listener->trust_forwarded || iequals(c.request->name(f), "Outrider-Deadline-Ms");
        default:
            return iequals(c.request->name(f), "Accept-Encoding") ||
                   (c.key && names_key(c, c.request->name(f)));
    }
}

bool may_be_a_part(const Context& c) {
    const http::RequestHead& request = *c.request;
    if (request.method != http::Method::kPost || request.upgrade || !request.query().empty()) return false;
    if (request.framing == http::Framing::kNone) return false;
    if (!is_json(request.value_of(http::FieldId::kContentType))) return false;
    for (const http::FieldRef& f : request.all()) {
        const std::string_view name = request.name(f);
        // A key that nobody here keeps is for the application, which would not see it in a call.
        if (iequals(name, "Content-Encoding") || (!c.key && names_key(c, name))) return false;
    }
    return true;
}

class Batch final : public Filter {
    bool concerns(const config::RouteSettings& route) const override { return route.batch.has_value(); }
    Verdict on_request(Context& c) const override {
        if (!c.route->batch || !may_be_a_part(c)) return Continue{};
        const std::optional<Duration> time = time_allowed(c);
        if (time && *time == Duration(0)) return Continue{};  // to be refused
        std::string group;
        const auto add = [&group](std::string_view part) {
            group.append(std::to_string(part.size())).append(":").append(part);
        };
        add(c.request->authority());
        add(c.request->path());
        for (const http::FieldRef& f : c.request->all()) {
            if (f.dropped || is_its_own(c, f)) continue;
            add(to_lower(c.request->name(f)));
            add(c.request->value(f));
            if (group.size() > kGroupBytesMax) return Continue{};
        }
        c.batch_group = c.arena->copy(group);
        c.time_left = time;
        return Gather{};
    }
};

}  // namespace

std::unique_ptr<const Filter> make_batch() {
    return std::make_unique<Batch>();
}

}  // namespace outrider::filters
