// The idempotent receiver's first half: is there a key, and whose? A request that has one is held (Hold) until its body is here and the
// store has said what becomes of it; that is the exchange's part, since it takes time (proxy/exchange_keyed.cc).
#include <algorithm>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "filters/filter.h"
#include "filters/policy/idempotency_key.h"

namespace outrider::filters {
namespace {

// A field of several lines is one list (RFC 9110 section 5.3).
std::optional<std::string_view> field_value(const Context& c, std::string_view name) {
    std::optional<std::string_view> value;
    for (const http::FieldRef& f : c.request->all()) {
        if (!iequals(c.request->name(f), name)) continue;
        const std::string_view line = c.request->value(f);
        value = value ? c.arena->join({*value, ", ", line}) : line;
    }
    return value;
}

std::optional<std::string_view> scope_value(const Context& c, const config::ScopeEntry& entry) {
    switch (entry.kind) {
        case config::ScopeKind::kHeader:
            return field_value(c, entry.name);
        case config::ScopeKind::kQuery:
            return http::query_value(c.request->query(), entry.name);
        case config::ScopeKind::kSource:
            return c.peer_ip;
    }
    return {};
}

policy::Digest digest_of(const Context& c, const config::IdempotencySettings& settings,
                         std::string_view key) {
    std::vector<policy::ScopeValue> scope;
    scope.reserve(settings.scope.size());
    for (const config::ScopeEntry& entry : settings.scope)
        scope.push_back({entry.as_set, scope_value(c, entry)});
    return policy::key_digest(scope, c.route->name, key);
}

class Idempotency final : public Filter {
    bool concerns(const config::RouteSettings& route) const override { return route.idempotency.has_value(); }
    Verdict on_request(Context& c) const override {
        if (!c.route->idempotency) return Continue{};
        const config::IdempotencySettings& settings = *c.route->idempotency;
        const std::string_view method = c.request->method_text();
        if (std::find(settings.methods.begin(), settings.methods.end(), method) == settings.methods.end())
            return Continue{};
        std::vector<std::string_view> lines;
        for (const http::FieldRef& f : c.request->all()) {
            if (iequals(c.request->name(f), settings.header)) lines.push_back(c.request->value(f));
        }
        const auto syntax = settings.syntax == config::KeySyntax::kStrict ? policy::KeySyntax::kStrict
                                                                          : policy::KeySyntax::kLenient;
        const policy::KeyField field = policy::read_idempotency_key(lines, syntax, settings.require);
        if (std::holds_alternative<policy::NoKey>(field)) return Continue{};
        if (std::holds_alternative<policy::MissingKey>(field)) {
            c.key_outcome = KeyOutcome::kMissing;
            return Refuse{Refusal::kKeyMissing, 0, {}, {}};
        }
        if (const auto* malformed = std::get_if<policy::MalformedKey>(&field)) {
            c.key_outcome = KeyOutcome::kMalformed;
            return Refuse{Refusal::kKeyMalformed, 0, {}, c.arena->copy(malformed->reason)};
        }
        if (c.request->upgrade) {
            c.key_outcome = KeyOutcome::kMalformed;
            return Refuse{Refusal::kKeyMalformed,
                          0,
                          {},
                          "An upgrade of the connection cannot be made under an idempotency key."};
        }
        c.key = digest_of(c, settings, std::get<policy::SoundKey>(field).key);
        return Hold{};
    }
};

}  // namespace

std::unique_ptr<const Filter> make_idempotency() {
    return std::make_unique<Idempotency>();
}

}  // namespace outrider::filters
