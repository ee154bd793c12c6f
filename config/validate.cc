#include "config/validate.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include <arpa/inet.h>

#include "config/hidden.h"
#include "config/suggest.h"

namespace outrider::config {
namespace {

constexpr std::size_t kHiddenWorkMax = 100'000'000;  // comparisons; a part of a second
constexpr std::size_t kSuggestedMax = 20;            // names for which a near one is looked for

class Checks {
  public:
    Checks(const Settings& settings, Diagnostics& diagnostics)
        : settings_(settings), diagnostics_(diagnostics) {}

    void errors() {
        listeners_ = unique_names("listener", settings_.listeners);
        clusters_ = unique_names("cluster", settings_.clusters);
        for (const StoreSettings& store : settings_.stores)
            stores_.push_back(store.name);
        unique_names("route", settings_.routes);
        references();
        addresses();
        if (settings_.listeners.empty() && !diagnostics_.located("listener")) {
            error("listener", "there is none; a sidecar needs at least one [[listener]]");
        }
    }

    void warnings() {
        unused();
        hidden();
        shares();
        holds();
    }

  private:
    void error(const std::string& key, const std::string& reason) {
        diagnostics_.error(diagnostics_.position_of(key), key, reason);
    }
    void warning(const std::string& key, const std::string& reason) {
        diagnostics_.warning(diagnostics_.position_of(key), key, reason);
    }
    std::string line_of(const std::string& key) const {
        return "line " + std::to_string(diagnostics_.position_of(key).line);
    }

    template <typename T>
    // Sorted.
    std::vector<std::string> unique_names(std::string_view kind, const std::vector<T>& entries) {
        std::map<std::string, std::size_t> first;
        for (std::size_t i = 0; i < entries.size(); ++i) {
            const std::string& name = entries[i].name;
            if (name.empty()) continue;
            const auto [it, inserted] = first.emplace(name, i);
            if (!inserted) {
                error(indexed(kind, i) + ".name", "there is already a " + std::string(kind) + " named " +
                                                      in_quotes(name) + " (" +
                                                      line_of(indexed(kind, it->second)) + ")");
            }
        }
        std::vector<std::string> names;
        names.reserve(first.size());
        for (const auto& [name, index] : first)
            names.push_back(name);
        return names;
    }

    void refer(const std::string& key, std::string_view kind, const std::string& name,
               const std::vector<std::string>& known) {
        if (name.empty() || std::binary_search(known.begin(), known.end(), name)) return;
        // A file whose names are all wrong must not hold the main loop while each is compared with 10,000 others.
        const bool suggest = suggested_ < kSuggestedMax;
        if (suggest) ++suggested_;
        error(key, "there is no " + std::string(kind) + " named " + in_quotes(name) +
                       (suggest ? did_you_mean(name, known) : ""));
    }

    void references() {
        for (std::size_t i = 0; i < settings_.routes.size(); ++i) {
            const RouteSettings& route = settings_.routes[i];
            const std::string path = indexed("route", i);
            refer(path + ".listener", "listener", route.listener, listeners_);
            const bool single = diagnostics_.located(path + ".cluster");
            for (std::size_t k = 0; k < route.clusters.size(); ++k) {
                const std::string key = single ? path + ".cluster" : indexed(path + ".clusters", k) + ".name";
                refer(key, "cluster", route.clusters[k].name, clusters_);
            }
            if (route.mirror) {
                refer(path + ".mirror.cluster", "cluster", route.mirror->cluster, clusters_);
            }
            if (route.idempotency) {
                refer(path + ".idempotency.store", "store", route.idempotency->store, stores_);
            }
        }
    }

    // One spelling for each address, so that [::1] and [0:0::1] are the same.
    static std::string canonical(const std::string& host) {
        if (host == "localhost") return "127.0.0.1";
        in6_addr address{};
        char text[INET6_ADDRSTRLEN] = "";
        if (inet_pton(AF_INET6, host.c_str(), &address) == 1 &&
            inet_ntop(AF_INET6, &address, text, sizeof text) != nullptr) {
            return text;
        }
        return host;
    }

    // An IPv4 wildcard and an IPv6 wildcard are kept apart, as sockets with IPV6_V6ONLY are.
    static bool collide(const HostPort& a, const HostPort& b) {
        if (a.port == 0 || a.port != b.port) return false;
        const std::string host_a = canonical(a.host);
        const std::string host_b = canonical(b.host);
        if (host_a == host_b) return true;
        const bool ipv6_a = host_a.find(':') != std::string::npos;
        const bool ipv6_b = host_b.find(':') != std::string::npos;
        const std::string wildcard = ipv6_a ? "::" : "0.0.0.0";
        return ipv6_a == ipv6_b && (host_a == wildcard || host_b == wildcard);
    }

    void addresses() {
        std::vector<std::pair<std::string, HostPort>> all;
        all.emplace_back("admin.listen", settings_.admin.listen);
        if (settings_.admin.status_listen) {
            all.emplace_back("admin.status_listen", *settings_.admin.status_listen);
        }
        for (std::size_t i = 0; i < settings_.listeners.size(); ++i) {
            if (settings_.listeners[i].listen.host.empty()) continue;
            all.emplace_back(indexed("listener", i) + ".listen", settings_.listeners[i].listen);
        }
        // Report at the one that stands later in the file; a default (admin.listen) stands nowhere.
        for (std::size_t i = 0; i < all.size(); ++i) {
            for (std::size_t k = 0; k < i; ++k) {
                if (!collide(all[i].second, all[k].second)) continue;
                const bool swap =
                    diagnostics_.located(all[k].first) &&
                    diagnostics_.position_of(all[i].first) < diagnostics_.position_of(all[k].first);
                const auto& later = swap ? all[k] : all[i];
                const auto& earlier = swap ? all[i] : all[k];
                error(later.first, to_string(later.second) + " is taken by " + earlier.first + " (" +
                                       to_string(earlier.second) +
                                       (diagnostics_.located(earlier.first) ? ", " + line_of(earlier.first)
                                                                            : ", the default") +
                                       ")");
                break;
            }
        }
    }

    void unused() {
        std::set<std::string> used_listeners;
        std::set<std::string> used_clusters;
        for (const RouteSettings& route : settings_.routes) {
            used_listeners.insert(route.listener);
            for (const WeightedCluster& cluster : route.clusters)
                used_clusters.insert(cluster.name);
            if (route.mirror) used_clusters.insert(route.mirror->cluster);
        }
        for (std::size_t i = 0; i < settings_.listeners.size(); ++i) {
            if (used_listeners.count(settings_.listeners[i].name) > 0) continue;
            warning(indexed("listener", i), "listener " + in_quotes(settings_.listeners[i].name) +
                                                " has no route: every request gets 404");
        }
        for (std::size_t i = 0; i < settings_.clusters.size(); ++i) {
            if (used_clusters.count(settings_.clusters[i].name) > 0) continue;
            warning(indexed("cluster", i),
                    "cluster " + in_quotes(settings_.clusters[i].name) + " is used by no route");
        }
    }

    // What is shared out among the workers is at least 1 for each, so that none is without.
    void shares() {
        const unsigned workers = settings_.runtime.workers;
        const auto check = [&](const std::string& key, std::uint32_t limit) {
            if (limit == 0 || limit >= workers) return;
            warning(key, std::to_string(limit) + " for " + std::to_string(workers) +
                             " workers (runtime.workers): each gets at least one, so that it is " +
                             std::to_string(workers) + " in all");
        };
        for (std::size_t i = 0; i < settings_.clusters.size(); ++i) {
            check(indexed("cluster", i) + ".limits.max_connections",
                  settings_.clusters[i].limits.max_connections);
        }
        for (std::size_t i = 0; i < settings_.routes.size(); ++i) {
            const auto& concurrency = settings_.routes[i].concurrency;
            if (concurrency) check(indexed("route", i) + ".concurrency.max", concurrency->max);
        }
    }

    // Whoever waits longer than the route allows gets that answer instead.
    void holds() {
        for (std::size_t i = 0; i < settings_.clusters.size(); ++i) {
            const ClusterSettings& cluster = settings_.clusters[i];
            if (cluster.limits.hold == 0s) continue;
            for (const RouteSettings& route : settings_.routes) {
                const auto uses = [&](const WeightedCluster& c) { return c.name == cluster.name; };
                if (route.timeout == 0s || route.timeout >= cluster.limits.hold ||
                    std::none_of(route.clusters.begin(), route.clusters.end(), uses))
                    continue;
                warning(indexed("cluster", i) + ".limits.hold",
                        "route " + in_quotes(route.name) + " ends before, after " +
                            outrider::to_string(route.timeout) + " (timeout): 504 instead of 503");
                break;
            }
        }
    }

    // Each route is compared with those before it, so this alone takes a time that grows with their square.
    void hidden() {
        std::size_t work = 0;
        std::unordered_map<std::string, std::vector<std::size_t>> by_listener;
        for (std::size_t i = 0; i < settings_.routes.size(); ++i) {
            const RouteSettings& route = settings_.routes[i];
            std::vector<std::size_t>& earlier = by_listener[route.listener];
            for (const std::size_t k : earlier) {
                const RouteSettings& before = settings_.routes[k];
                if (work > kHiddenWorkMax) {
                    warning(indexed("route", i),
                            "whether this route and those below it are ever taken was not looked at: "
                            "there are too many");
                    return;
                }
                if (!hides(before.match, route.match, work)) continue;
                warning(indexed("route", i), "route " + in_quotes(route.name) + " is never taken: route " +
                                                 in_quotes(before.name) + " (" +
                                                 line_of(indexed("route", k)) + ") takes all its requests");
                break;
            }
            earlier.push_back(i);
        }
    }

    const Settings& settings_;
    Diagnostics& diagnostics_;
    std::vector<std::string> listeners_;
    std::vector<std::string> clusters_;
    std::vector<std::string> stores_;
    std::size_t suggested_ = 0;
};

}  // namespace

void validate(const Settings& settings, Diagnostics& diagnostics) {
    Checks checks(settings, diagnostics);
    checks.errors();
    check_stores(settings, diagnostics);
    // A wrong value keeps its default, about which no warning would be true.
    if (diagnostics.has_errors()) return;
    checks.warnings();
    warn_of_stores(settings, diagnostics);
}

}  // namespace outrider::config
