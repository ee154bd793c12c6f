// What a proxy must or may say of itself and of the client: Via (RFC 9110 section 7.6.3), X-Forwarded-*, Host, Date.
//
// From an untrusted side X-Forwarded-* and Outrider-* are dropped, so that the application can believe what it reads.
#include <ctime>

#include "base/bytes.h"
#include "filters/filter.h"

namespace outrider::filters {
namespace {

// IMF-fixdate (RFC 9110 section 5.6.7), made once a second.
std::string_view http_date(std::int64_t unix_seconds) {
    thread_local std::int64_t cached_for = -1;
    thread_local char text[32];
    if (unix_seconds != cached_for) {
        static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
        static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                  "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
        const std::time_t seconds = unix_seconds;
        std::tm parts{};
        ::gmtime_r(&seconds, &parts);
        // Not strftime: it follows the locale.
        std::snprintf(text, sizeof text, "%s, %02u %s %04u %02u:%02u:%02u GMT", kDays[parts.tm_wday],
                      static_cast<unsigned>(parts.tm_mday) % 100, kMonths[parts.tm_mon],
                      static_cast<unsigned>(parts.tm_year + 1900) % 10000,
                      static_cast<unsigned>(parts.tm_hour) % 100, static_cast<unsigned>(parts.tm_min) % 100,
                      static_cast<unsigned>(parts.tm_sec) % 100);
        cached_for = unix_seconds;
    }
    return {text, 29};
}

// A request may pass one sidecar more than once on purpose (out through one listener, in through another); that it comes back
// this often is a route that leads to itself.
constexpr unsigned kPassesMax = 8;

class Forwarding final : public Filter {
    Verdict on_request(Context& c) const override {
        std::string_view forwarded_for;
        bool has_proto = false;
        bool has_host = false;
        unsigned passes = 0;
        for (http::FieldRef& f : c.request->all()) {
            switch (f.id) {
                case http::FieldId::kHost:
                    f.dropped = true;
                    break;
                case http::FieldId::kOutrider:
                    f.dropped |= !c.listener->trust_forwarded;
                    break;
                case http::FieldId::kXForwardedFor:
                    if (c.listener->trust_forwarded && !f.dropped) {
                        const std::string_view value = c.request->value(f);
                        forwarded_for =
                            forwarded_for.empty() ? value : c.arena->join({forwarded_for, ", ", value});
                    }
                    f.dropped = true;
                    break;
                case http::FieldId::kXForwardedProto:
                    has_proto |= keep_if_trusted(c, f);
                    break;
                case http::FieldId::kVia:
                    passes += times_named(c.request->value(f), c.node->name);
                    break;
                case http::FieldId::kXForwardedHost:
                    has_host |= keep_if_trusted(c, f);
                    break;
                default:
                    break;
            }
        }
        if (passes >= kPassesMax) return Refuse{Refusal::kLoop, 0, {}};
        c.request_fields.add("X-Forwarded-For", forwarded_for.empty()
                                                    ? c.peer_ip
                                                    : c.arena->join({forwarded_for, ", ", c.peer_ip}));
        if (!has_proto) c.request_fields.add("X-Forwarded-Proto", "http");
        if (!has_host && !c.request->authority().empty()) {
            c.request_fields.add("X-Forwarded-Host", c.request->authority());
        }
        c.request_fields.add("Via", via(c, c.request->version_minor));
        c.authority = c.request->authority();
        c.target = c.request->path_and_query();
        return Continue{};
    }

    // How often a Via list (RFC 9110 section 7.6.3) says that the message was received by `name`.
    static unsigned times_named(std::string_view list, std::string_view name) {
        unsigned times = 0;
        while (!list.empty()) {
            const std::size_t comma = list.find(',');
            std::string_view entry = trim_ows(list.substr(0, comma));
            const std::size_t space = entry.find(' ');
            entry = space == std::string_view::npos ? std::string_view() : trim_ows(entry.substr(space));
            times += static_cast<unsigned>(entry.substr(0, entry.find(' ')) == name);
            if (comma == std::string_view::npos) break;
            list.remove_prefix(comma + 1);
        }
        return times;
    }

    static bool keep_if_trusted(const Context& c, http::FieldRef& f) {
        if (!c.listener->trust_forwarded) f.dropped = true;
        return !f.dropped;
    }

    // "1.1 name": the protocol in which the message came, and who received it.
    static std::string_view via(const Context& c, std::uint8_t version_minor) {
        return c.arena->join({version_minor == 0 ? "1.0 " : "1.1 ", c.node->name});
    }

    void on_response(Context& c) const override {
        if (c.response != nullptr) {
            c.response_fields.add("Via", via(c, c.response->version_minor));
            if (c.response->find(http::FieldId::kDate) != nullptr) return;
        }
        c.response_fields.add("Date", http_date(c.received.unix_seconds()));
    }
};

}  // namespace

std::unique_ptr<const Filter> make_forwarding() {
    return std::make_unique<Forwarding>();
}

}  // namespace outrider::filters
