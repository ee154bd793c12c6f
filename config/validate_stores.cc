// What shows only when routes, their idempotency and the stores are looked at together.
#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "base/units.h"
#include "config/validate.h"

namespace outrider::config {
namespace {

// A store must hold some answers, not one alone.
constexpr std::uint64_t kAnswersMin = 4;
// A record of the log is below 16 MiB (base/wal/format.h); 1 MiB is left for the headers of the answer.
constexpr Bytes kLoggedAnswerMax{15 << 20};

std::string path_of(const StoreSettings& store) {
    return "store." + key_text(store.name);
}

const StoreSettings* find_store(const Settings& settings, const std::string& name) {
    for (const StoreSettings& store : settings.stores) {
        if (store.name == name) return &store;
    }
    return nullptr;
}

void check_answer_fits(const IdempotencySettings& s, const StoreSettings& store, const std::string& key,
                       Diagnostics& diagnostics) {
    if (store.kind == StoreKind::kRedis) return;
    const std::string size = outrider::to_string(s.max_response);
    if (s.max_response.value > store.max_memory.value / kAnswersMin) {
        diagnostics.error(diagnostics.position_of(key), key,
                          size + " is above a quarter of max_memory of " + path_of(store) + " (" +
                              outrider::to_string(store.max_memory) +
                              (diagnostics.located(path_of(store) + ".max_memory") ? ")" : ", the default)") +
                              ": so few answers would fill the store");
    } else if (store.kind == StoreKind::kLog && s.max_response > kLoggedAnswerMax) {
        diagnostics.error(diagnostics.position_of(key), key,
                          size + " with its headers does not fit into a record of " + path_of(store) +
                              " (kind = \"log\"): at most " + outrider::to_string(kLoggedAnswerMax));
    }
}

// "/var/keys/./" and "/var/keys" are one place. Links are not followed: nothing is touched here.
std::string same_place(const std::string& path) {
    std::string text = std::filesystem::path(path).lexically_normal().string();
    if (text.size() > 1 && text.back() == '/') text.pop_back();
    return text;
}

// Two would write over each other's records.
void check_paths(const Settings& settings, Diagnostics& diagnostics) {
    std::map<std::string, const StoreSettings*> first;
    for (const StoreSettings& store : settings.stores) {
        if (store.kind != StoreKind::kLog || store.path.empty()) continue;
        const auto [it, inserted] = first.emplace(same_place(store.path), &store);
        if (inserted) continue;
        const std::string a = path_of(*it->second) + ".path";
        const std::string b = path_of(store) + ".path";
        const bool a_later = diagnostics.position_of(b) < diagnostics.position_of(a);
        const std::string& later = a_later ? a : b;
        const std::string& earlier = a_later ? b : a;
        diagnostics.error(diagnostics.position_of(later), later,
                          "is the directory of " + earlier + " (line " +
                              std::to_string(diagnostics.position_of(earlier).line) +
                              "); each log needs its own");
    }
}

class RouteWarnings {
  public:
    RouteWarnings(const Settings& settings, std::size_t index, Diagnostics& diagnostics)
        : settings_(settings),
          route_(settings.routes[index]),
          path_(indexed("route", index)),
          diagnostics_(diagnostics) {}

    void run(const IdempotencySettings& s) {
        name();
        times(s);
        bodies(s);
        methods(s);
        repetitions(s);
    }

  private:
    void warning(const std::string& key, const std::string& reason) {
        diagnostics_.warning(diagnostics_.position_of(path_ + "." + key), path_ + "." + key, reason);
    }
    // A default is not warned about: it means "as far as the route allows".
    bool given(const std::string& key) const { return diagnostics_.located(path_ + "." + key); }

    void name() {
        if (given("name")) return;
        warning("name", "missing; keys are kept under the name of their route, and the default (" +
                            in_quotes(route_.name) +
                            ") changes when a route is added above: recorded requests may then run again");
    }

    void times(const IdempotencySettings& s) {
        const std::string timeout = outrider::to_string(route_.timeout) + ")";
        if (s.in_flight == InFlight::kWait && given("idempotency.wait_timeout") &&
            s.wait_timeout > route_.timeout) {
            warning("idempotency.wait_timeout", "is above the route's timeout (" + timeout +
                                                    ", which ends waiting before: 504 instead of 409");
        }
        if (s.window < route_.timeout) {
            warning("idempotency.window",
                    "is below the route's timeout (" + timeout +
                        ": a key is kept as long as its request may take, and that is longer");
        }
    }

    void bodies(const IdempotencySettings& s) {
        if (!given("idempotency.max_request")) return;
        for (const ListenerSettings& listener : settings_.listeners) {
            if (listener.name != route_.listener || listener.max_body_bytes.value == 0 ||
                s.max_request <= listener.max_body_bytes)
                continue;
            warning("idempotency.max_request",
                    "is above max_body_bytes of listener " + in_quotes(listener.name) + " (" +
                        outrider::to_string(listener.max_body_bytes) + "), which is reached first");
        }
    }

    void methods(const IdempotencySettings& s) {
        const std::vector<std::string>& matched = route_.match.methods;
        const bool any = std::any_of(s.methods.begin(), s.methods.end(), [&](const std::string& method) {
            return std::find(matched.begin(), matched.end(), method) != matched.end();
        });
        if (matched.empty() || any) return;
        warning("idempotency.methods", "has no effect: match.methods lets none of them come here");
    }

    // Who owns a key may repeat its request; the application is then the one who must know the key again.
    void repetitions(const IdempotencySettings& s) {
        if (s.on_unknown == OnUnknown::kReexecute) return;  // warned about already
        const char* const reason =
            "repeats a request with a key that the application may have executed: that it takes effect at "
            "most once then rests on "
            "the application";
        if (route_.retry && (route_.retry->on.reset || route_.retry->on.timeout || route_.retry->on.any_5xx ||
                             !route_.retry->on.statuses.empty()))
            warning("retry", std::string(reason) + "; on = [\"connect\"] repeats only what never left");
        if (route_.hedge) warning("hedge", reason);
    }

    const Settings& settings_;
    const RouteSettings& route_;
    std::string path_;
    Diagnostics& diagnostics_;
};

}  // namespace

void check_stores(const Settings& settings, Diagnostics& diagnostics) {
    check_paths(settings, diagnostics);
    for (std::size_t i = 0; i < settings.routes.size(); ++i) {
        const RouteSettings& route = settings.routes[i];
        if (!route.idempotency) continue;
        const std::string path = indexed("route", i);
        if (route.timeout == 0s) {
            diagnostics.error(
                diagnostics.position_of(path + ".timeout"), path + ".timeout",
                "0s is none, and idempotency needs one: how long a request may hold its key (the "
                "lease of its claim) follows from it");
        }
        if (const StoreSettings* store = find_store(settings, route.idempotency->store)) {
            check_answer_fits(*route.idempotency, *store, path + ".idempotency.max_response", diagnostics);
        }
    }
}

void warn_of_stores(const Settings& settings, Diagnostics& diagnostics) {
    std::set<std::string> used;
    for (std::size_t i = 0; i < settings.routes.size(); ++i) {
        const auto& idempotency = settings.routes[i].idempotency;
        if (!idempotency) continue;
        used.insert(idempotency->store);
        RouteWarnings(settings, i, diagnostics).run(*idempotency);
    }
    for (const StoreSettings& store : settings.stores) {
        if (used.count(store.name) > 0) continue;
        diagnostics.warning(diagnostics.position_of(path_of(store)), path_of(store),
                            "store " + in_quotes(store.name) + " is used by no route");
    }
}

}  // namespace outrider::config
