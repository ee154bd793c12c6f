// [route.idempotency]
#include <algorithm>
#include <string>

#include "base/bytes.h"
#include "base/units.h"
#include "config/diagnostics.h"
#include "config/sections.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

constexpr Duration kWindowMin = 1s;
constexpr Duration kWindowMax = 30 * 24h;
constexpr Duration kWaitMin = 1ms;
constexpr Duration kWaitMax = 5min;
constexpr Bytes kBodyMax{16 * 1024 * 1024};
constexpr std::size_t kMethodsMax = 64;
constexpr std::size_t kPolicyUrlMax = 2048;

Result<std::string> parse_key_header(std::string_view text) {
    Result<std::string> name = parse_header_name(text);
    if (!name) return name;
    if (is_framing_field(text) || iequals(text, "host")) {
        return Error{*name + " cannot carry a key: it frames messages, or says where they go"};
    }
    return name;
}

Result<std::string> parse_keyed_method(std::string_view text) {
    if (text == "*") return Error{"'*' is not a method; list those that take keys (POST, PATCH, ...)"};
    return parse_method(text);
}

// It is sent to clients, in a field and in JSON.
Result<std::string> parse_policy_url(std::string_view text) {
    if (text.empty()) return std::string();  // the default
    const std::string_view rest = text.substr(std::min(text.find("://") + 3, text.size()));
    const bool visible = std::all_of(text.begin(), text.end(), [](char c) {
        return c > ' ' && c < 0x7f && std::string_view("\"<>\\^`{|}").find(c) == std::string_view::npos;
    });
    if (!(text.starts_with("https://") || text.starts_with("http://")) || rest.empty() || !visible ||
        text.size() > kPolicyUrlMax) {
        return Error{in_quotes(text) + " is not a URL (\"https://api.example/idempotency\")"};
    }
    return std::string(text);
}

// RFC 9110 section 9.2.1.
bool is_safe_method(std::string_view method) {
    return method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "TRACE";
}

void read_methods(TableReader& table, std::vector<std::string>& out) {
    std::vector<std::string> methods;
    if (!table.list("methods", methods, parse_keyed_method, {1, kMethodsMax})) return;
    out = std::move(methods);
    for (std::size_t i = 0; i < out.size(); ++i) {
        const auto before = out.begin() + static_cast<std::ptrdiff_t>(i);
        if (std::find(out.begin(), before, out[i]) != before) {
            table.warning("methods", in_quotes(out[i]) + " is listed twice");
        } else if (is_safe_method(out[i])) {
            table.warning("methods", out[i] +
                                         " is safe to repeat without a key; recording its answers only "
                                         "takes room in the store");
        }
    }
}

void read_scope(TableReader& table, std::vector<ScopeEntry>& out) {
    out = {{ScopeKind::kHeader, "Authorization", "header:Authorization"}};
    std::vector<ScopeEntry> scope;
    if (!table.list("scope", scope, parse_scope_entry, {0, kScopeMax})) return;
    out = std::move(scope);
    if (out.empty()) {
        table.warning("scope",
                      "is empty: keys are shared by all callers, so that who sends another's key and "
                      "request is given the other's answer");
    }
    for (std::size_t i = 0; i < out.size(); ++i) {
        const auto same = [&](const ScopeEntry& other) {
            return other.kind == out[i].kind &&
                   (other.kind == ScopeKind::kHeader ? iequals(other.name, out[i].name)
                                                     : other.name == out[i].name);
        };
        const auto before = out.begin() + static_cast<std::ptrdiff_t>(i);
        if (std::find_if(out.begin(), before, same) != before) {
            table.warning("scope", in_quotes(out[i].as_set) + " is listed twice");
        }
    }
}

// Which part of "at most one execution for each key" a setting gives up: who deploys it should know.
void warn_of_promises(TableReader& table, const IdempotencySettings& s) {
    if (s.on_store_error == OnStoreError::kForward) {
        table.warning("on_store_error",
                      "with \"forward\" no key is protected while the store fails: a repeated request may "
                      "then run again");
    }
    if (s.on_unknown == OnUnknown::kReexecute) {
        table.warning(
            "on_unknown",
            "with \"reexecute\" a request may run twice for one key: when its first outcome was lost, "
            "the next duplicate runs again");
    }
    if (s.record == RecordAnswers::kBelow500) {
        table.warning(
            "record",
            "with \"2xx-4xx\" a request may run twice for one key: after a 5xx the next duplicate runs "
            "again, whatever the first one changed");
    }
}

}  // namespace

void read_idempotency(TableReader& route, std::optional<IdempotencySettings>& out) {
    auto table = route.table("idempotency");
    if (!table) return;
    IdempotencySettings s;
    table->parsed("header", s.header, parse_key_header);
    table->choice<KeySyntax>("syntax", kKeySyntaxes, s.syntax);
    table->boolean("require", s.require);
    read_methods(*table, s.methods);
    read_scope(*table, s.scope);
    table->duration("window", s.window, {kWindowMin, kWindowMax});
    if (table->require_key("store", "store = \"local\", a [store.local]")) {
        table->parsed("store", s.store, parse_name);
    }
    const bool in_flight = table->choice<InFlight>("in_flight", kInFlights, s.in_flight);
    table->duration("wait_timeout", s.wait_timeout, {kWaitMin, kWaitMax});
    if (in_flight && s.in_flight == InFlight::kConflict && table->has("wait_timeout")) {
        table->warning("wait_timeout", "has no effect: with in_flight = \"conflict\" nobody waits");
    }
    table->size("max_request", s.max_request, {Bytes{0}, kBodyMax});
    table->size("max_response", s.max_response, {Bytes{0}, kBodyMax});
    table->choice<OnStoreError>("on_store_error", kOnStoreErrors, s.on_store_error);
    table->choice<OnUnknown>("on_unknown", kOnUnknowns, s.on_unknown);
    table->choice<RecordAnswers>("record", kRecords, s.record);
    table->parsed("policy_url", s.policy_url, parse_policy_url);
    table->finish();
    warn_of_promises(*table, s);
    require_cluster(route, *table, "records what an upstream answers");
    out = std::move(s);
}

}  // namespace outrider::config
