// Stores of idempotency keys, and single keys, for an operator.
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/http/message.h"
#include "base/log.h"
#include "filters/policy/idempotency_key.h"
#include "proxy/admin.h"
#include "proxy/admin_reply.h"
#include "proxy/server.h"

namespace outrider::proxy {

namespace {

std::string_view phase_name(policy::KeyPhase phase) {
    switch (phase) {
        case policy::KeyPhase::kAbsent:
            return "absent";
        case policy::KeyPhase::kInFlight:
            return "in_flight";
        case policy::KeyPhase::kDone:
            return "done";
        case policy::KeyPhase::kUnknown:
            return "unknown";
    }
    return "";
}

std::string_view why_name(policy::UnknownWhy why) {
    switch (why) {
        case policy::UnknownWhy::kCut:
            return "the exchange with the application broke off";
        case policy::UnknownWhy::kLeasePassed:
            return "its sidecar was lost, or took longer than the route's timeout";
        case policy::UnknownWhy::kRestart:
            return "the sidecar was restarted before the answer";
    }
    return "";
}

Json store_json(const std::string& name, const idempotency::StoreStatus& status, std::int64_t now_seconds) {
    Json out = {{"store", name}, {"kind", status.kind}, {"ok", status.ok}};
    if (!status.ok) out["problem"] = status.problem;
    if (status.counted) {
        out["in_flight"] = status.in_flight;
        out["done"] = status.done;
        out["unknown"] = status.unknown;
        out["memory_bytes"] = status.memory_bytes;
        out["memory_bytes_max"] = status.memory_bytes_max;
    }
    out["waiting"] = status.waiting;
    if (status.kind == "redis") {
        out["workers"] = status.clients;
        out["workers_connected"] = status.connected;
    }
    if (status.kind == "log") {
        out["disk_bytes"] = status.disk_bytes;
        out["segments"] = status.segments;
    }
    if (status.oldest) {
        out["oldest"] = rfc3339(*status.oldest);
        out["oldest_age_seconds"] = std::max<std::int64_t>(0, now_seconds - status.oldest->unix_seconds());
    }
    return out;
}

Json key_json(const policy::Digest& key, const idempotency::KeyView& view) {
    Json out = {{"key", key.hex()}, {"state", phase_name(view.phase)}};
    if (view.phase == policy::KeyPhase::kAbsent) return out;
    if (view.phase == policy::KeyPhase::kUnknown) out["why"] = why_name(view.why);
    if (view.phase == policy::KeyPhase::kDone) {
        out["status"] = view.status;
        out["replayable"] = view.replayable;
        if (view.replayable) out["answer_bytes"] = view.answer_bytes;
    }
    out["generation"] = view.generation;
    out["claimed"] = rfc3339(view.claimed);
    if (view.lease_end) out["lease_end"] = rfc3339(*view.lease_end);
    out["expires"] = rfc3339(view.expires);
    return out;
}

// Every value of a parameter, decoded.
std::optional<std::vector<std::string>> all_parameters(std::string_view query, std::string_view name) {
    std::optional<std::vector<std::string>> out(std::in_place);
    http::for_each_parameter(query, [&](std::string_view each, std::optional<std::string_view> value) {
        if (each != name || !value) return true;
        auto decoded = percent_decoded(*value);
        decoded ? out->push_back(std::move(*decoded)) : out.reset();
        return out.has_value();
    });
    return out;
}

const config::RouteSettings* find_route_named(const Snapshot& snapshot, std::string_view name) {
    for (const config::RouteSettings& route : snapshot.settings.routes) {
        if (route.name == name) return &route;
    }
    return nullptr;
}

// The digest that a path and query mean.
Result<policy::Digest> digest_from(const Snapshot& snapshot, std::string_view store, std::string_view segment,
                                   std::string_view query) {
    const auto routes = all_parameters(query, "route");
    const auto scope = all_parameters(query, "scope");
    const auto text = percent_decoded(segment);
    if (!routes || !scope || !text) return Error{"a %XX in the path or query is not one"};
    if (routes->empty()) {
        if (const auto digest = policy::parse_digest(segment)) return *digest;
        return Error{"the key is neither a digest (64 hexadecimal digits) nor followed by ?route=NAME"};
    }
    const config::RouteSettings* route = find_route_named(snapshot, routes->front());
    if (route == nullptr || !route->idempotency)
        return Error{"no route \"" + routes->front() + "\" with [route.idempotency]"};
    const config::IdempotencySettings& settings = *route->idempotency;
    if (settings.store != store) return Error{"the route keeps its keys in store \"" + settings.store + "\""};
    if (scope->size() > settings.scope.size()) return Error{"more scope= than the route's scope has entries"};
    std::vector<policy::ScopeValue> values;
    for (std::size_t i = 0; i < settings.scope.size(); ++i) {  // those that are left out were absent
        std::optional<std::string_view> value;
        if (i < scope->size()) value = (*scope)[i];
        values.push_back({settings.scope[i].as_set, value});
    }
    return policy::key_digest(values, route->name, *text);
}

AdminReply forgotten_reply(const policy::Digest& key, policy::Forgotten forgotten) {
    switch (forgotten) {
        case policy::Forgotten::kForgotten:
            return json_reply({{"key", key.hex()}, {"forgotten", true}});
        case policy::Forgotten::kAbsent:
            return admin_problem(404, "the store has no such key");
        case policy::Forgotten::kInFlight:
            return admin_problem(409,
                                 "a request with this key is being executed; it cannot be forgotten before "
                                 "its lease is over");
    }
    return admin_problem(500, "");
}

}  // namespace

void Admin::stores(const Done& done) const {
    struct Gather {
        Json out = Json::array();
        std::size_t missing = 0;
        Done done;
    };
    auto gather = std::make_shared<Gather>();
    const std::vector<std::string> names = server_.stores().names();
    gather->missing = names.size();
    gather->done = done;
    if (names.empty()) {
        done(json_reply({{"stores", Json::array()}}));
        return;
    }
    gather->out = std::vector<Json>(names.size());
    for (std::size_t i = 0; i < names.size(); ++i) {
        server_.stores().find(names[i])->status(
            [this, gather, i, name = names[i]](const idempotency::StoreStatus& status) {
                gather->out[i] = store_json(name, status, server_.loop().wall().unix_seconds());
                if (--gather->missing == 0) gather->done(json_reply({{"stores", gather->out}}));
            });
    }
}

// /idempotency/{store}/{key} and …/forget
void Admin::idempotency_key(const AdminRequest& request, const Done& done) const {
    std::string_view rest = request.path;
    rest.remove_prefix(std::string_view("/idempotency/").size());
    const std::string name(rest.substr(0, rest.find('/')));
    rest.remove_prefix(name.size() + 1);
    const std::string_view segment = rest.substr(0, rest.find('/'));
    const bool forget = request.method == "POST";
    const std::shared_ptr<idempotency::Store> store = server_.stores().find(name);
    if (!store) return done(admin_problem(404, "no store \"" + name + "\"; /idempotency lists them"));
    const auto key = digest_from(server_.snapshot(), name, segment, request.query);
    if (!key) return done(admin_problem(400, key.error()));
    if (forget) {
        store->forget(*key, [done, name, key = *key](const Result<policy::Forgotten>& forgotten) {
            if (!forgotten) return done(admin_problem(503, forgotten.error()));
            if (*forgotten == policy::Forgotten::kForgotten)
                log_info("store {}: an operator forgot key {}", name, key.hex());
            done(forgotten_reply(key, *forgotten));
        });
        return;
    }
    store->look(*key, [done, key = *key](const Result<idempotency::KeyView>& view) {
        if (!view) return done(admin_problem(503, view.error()));
        const bool absent = view.value().phase == policy::KeyPhase::kAbsent;
        done(json_reply(key_json(key, view.value()), absent ? 404 : 200));
    });
}

}  // namespace outrider::proxy
