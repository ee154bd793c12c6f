#include "proxy/discovery.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "base/log.h"
#include "base/uv/acceptor.h"
#include "filters/policy/dns_refresh.h"

namespace outrider::proxy {

namespace {

std::string endpoint_id(const std::string& ip, std::uint16_t port) {
    return config::to_string(config::HostPort{ip, port});
}

}  // namespace

JoinedEndpoints join_endpoints(const std::vector<EndpointAddress>& literals,
                               std::span<const std::vector<policy::BalancerEndpoint>* const> found) {
    JoinedEndpoints out{.endpoints = literals, .left_out = 0};
    std::unordered_set<std::string_view> seen;
    for (const EndpointAddress& e : literals)
        seen.insert(e.id);
    for (const auto* endpoints : found) {
        for (const policy::BalancerEndpoint& e : *endpoints) {
            if (!seen.insert(e.id).second) continue;
            if (out.endpoints.size() >= config::kEndpointsMax) {
                ++out.left_out;
                continue;
            }
            const std::size_t colon = e.id.rfind(':');
            std::string ip = e.id.substr(0, colon);
            if (ip.front() == '[') ip = ip.substr(1, ip.size() - 2);
            const auto port = static_cast<std::uint16_t>(std::stoul(e.id.substr(colon + 1)));
            if (auto address = uv::SocketAddress::parse(ip, port))
                out.endpoints.push_back({e.id, e.weight, *address, nullptr});
        }
    }
    return out;
}

class Discovery::Cluster : public std::enable_shared_from_this<Discovery::Cluster> {
  public:
    Cluster(Discovery& owner, config::ClusterSettings settings)
        : owner_(&owner), settings_(std::move(settings)) {}

    bool same_sources(const config::ClusterSettings& other) const {
        return settings_.endpoints == other.endpoints && settings_.discover == other.discover;
    }

    void start() {
        for (const config::HostPort& endpoint : settings_.endpoints) {
            // As for listeners: an application on 127.0.0.1 alone must not be missed half the time by way of ::1.
            const std::string host = endpoint.host == "localhost" ? "127.0.0.1" : endpoint.host;
            if (auto address = uv::SocketAddress::parse(host, endpoint.port)) {
                literals_.push_back({endpoint_id(host, endpoint.port), 1, *address, nullptr});
            } else {
                sources_.push_back({endpoint.host, endpoint.port, false});
            }
        }
        if (settings_.discover) {
            sources_.push_back({settings_.discover->name, settings_.discover->port,
                                settings_.discover->kind == config::DiscoverKind::kDnsSrv});
        }
        rebuild();
        for (std::size_t i = 0; i < sources_.size(); ++i)
            ask(i);
    }

    // Until its own sources have answered it goes on with what the cluster had under the configuration before.
    void inherit(EndpointSet endpoints) { inherited_ = std::move(endpoints); }
    void stop() { owner_ = nullptr; }
    const EndpointSet& set() const { return set_; }
    bool settled() const {
        return std::all_of(sources_.begin(), sources_.end(), [](const Source& s) { return s.asked; });
    }
    std::string failure() const {
        for (const Source& s : sources_) {
            if (!s.failure.empty()) return s.failure;
        }
        return {};
    }

  private:
    struct Source {
        std::string name;
        std::uint16_t port = 0;
        bool srv = false;
        policy::DnsRefresh refresh{};
        bool asked = false;
        std::string failure{};
    };

    void ask(std::size_t i) {
        const auto self = shared_from_this();
        Source& source = sources_[i];
        if (source.srv) {
            owner_->resolver_->resolve_srv_addresses(source.name, [self,
                                                                   i](uv::Resolution<uv::ResolvedSrv> r) {
                const auto* answer = std::get_if<uv::ResolvedSrv>(&r);
                self->on_result(i, answer ? endpoints_of(*answer) : std::vector<policy::BalancerEndpoint>{},
                                answer ? answer->ttl : Duration(0), error_of(r));
            });
            return;
        }
        owner_->resolver_->resolve_addresses(source.name, [self, i](uv::Resolution<uv::ResolvedAddresses> r) {
            const auto* answer = std::get_if<uv::ResolvedAddresses>(&r);
            std::vector<policy::BalancerEndpoint> endpoints;
            if (answer != nullptr) {
                for (const std::string& ip : answer->ips) {
                    endpoints.push_back({endpoint_id(ip, self->sources_[i].port), 1});
                }
            }
            self->on_result(i, std::move(endpoints), answer ? answer->ttl : Duration(0), error_of(r));
        });
    }

    template <typename T>
    static std::string error_of(const uv::Resolution<T>& r) {
        const auto* error = std::get_if<uv::ResolveError>(&r);
        return error != nullptr ? error->message : std::string();
    }

    // Only the most preferred priority is used (RFC 2782); weight 0 means seldom, not never.
    static std::vector<policy::BalancerEndpoint> endpoints_of(const uv::ResolvedSrv& answer) {
        std::vector<policy::BalancerEndpoint> out;
        const std::uint16_t best = answer.endpoints.front().target.priority;
        for (const uv::SrvEndpoint& e : answer.endpoints) {
            if (e.target.priority != best) continue;
            out.push_back({endpoint_id(e.ip, e.target.port), std::max<std::uint32_t>(1, e.target.weight)});
        }
        return out;
    }

    void on_result(std::size_t i, std::vector<policy::BalancerEndpoint> endpoints, Duration ttl,
                   std::string error) {
        if (owner_ == nullptr) return;
        Source& source = sources_[i];
        const Instant now = owner_->loop_.now();
        const bool failed = !error.empty();
        if (failed && source.failure.empty()) log_warning("cluster {}: {}", settings_.name, error);
        if (!failed && !source.failure.empty())
            log_info("cluster {}: {} is resolved again", settings_.name, source.name);
        source.failure = std::move(error);
        source.asked = true;
        const auto step = failed ? source.refresh.on_failure(now, owner_->random_)
                                 : source.refresh.on_answer(now, std::move(endpoints), ttl, owner_->random_);
        if (step.changed || failed) {
            if (step.changed) rebuild();
            owner_->on_change_(settings_.name, set_);
        } else if (settled()) {
            owner_->on_change_(settings_.name, set_);
        }
        owner_->loop_.after(step.next - now, [self = shared_from_this(), i] {
            if (self->owner_ != nullptr) self->ask(i);
        });
    }

    void rebuild() {
        std::vector<const std::vector<policy::BalancerEndpoint>*> found;
        for (const Source& source : sources_)
            found.push_back(&source.refresh.endpoints());
        JoinedEndpoints joined = join_endpoints(literals_, found);
        if (joined.left_out > 0 && !cut_) {
            log_warning("cluster {}: {} endpoints, of which {} are used: a cluster has no more",
                        settings_.name, joined.endpoints.size() + joined.left_out, joined.endpoints.size());
        }
        cut_ = joined.left_out > 0;
        auto set = std::make_shared<std::vector<EndpointAddress>>(std::move(joined.endpoints));
        if (!set->empty()) inherited_.reset();
        set_ = inherited_ ? inherited_ : std::move(set);
    }

    Discovery* owner_;  // null once this cluster is no longer configured
    config::ClusterSettings settings_;
    std::vector<EndpointAddress> literals_;
    std::vector<Source> sources_;
    EndpointSet set_;
    EndpointSet inherited_;
    bool cut_ = false;  // there were too many, and the log says so
};

Discovery::Discovery(uv::Loop& loop, OnChange on_change)
    : loop_(loop),
      on_change_(std::move(on_change)),
      random_(uv::random_seed()),
      resolver_(std::make_unique<uv::Resolver>(loop.raw())) {}

Discovery::~Discovery() {
    close();
}

void Discovery::close() {
    for (auto& [name, cluster] : clusters_)
        cluster->stop();
    clusters_.clear();
    if (resolver_) resolver_->close();
}

void Discovery::configure(const std::vector<config::ClusterSettings>& clusters) {
    std::unordered_map<std::string, std::shared_ptr<Cluster>> next;
    std::vector<std::shared_ptr<Cluster>> fresh;
    for (const auto& settings : clusters) {
        const auto known = clusters_.find(settings.name);
        if (known != clusters_.end() && known->second->same_sources(settings)) {
            next[settings.name] = known->second;
            continue;
        }
        fresh.push_back(std::make_shared<Cluster>(*this, settings));
        if (known != clusters_.end()) fresh.back()->inherit(known->second->set());
        next[settings.name] = fresh.back();
    }
    for (const auto& [name, cluster] : clusters_) {
        const auto kept = next.find(name);
        if (kept == next.end() || kept->second != cluster) cluster->stop();
    }
    clusters_ = std::move(next);
    for (const auto& cluster : fresh)
        cluster->start();
}

std::unordered_map<std::string, EndpointSet> Discovery::endpoints() const {
    std::unordered_map<std::string, EndpointSet> out;
    for (const auto& [name, cluster] : clusters_)
        out[name] = cluster->set();
    return out;
}

bool Discovery::settled() const {
    return std::all_of(clusters_.begin(), clusters_.end(),
                       [](const auto& entry) { return entry.second->settled(); });
}

std::string Discovery::failure(const std::string& cluster) const {
    const auto it = clusters_.find(cluster);
    return it == clusters_.end() ? std::string() : it->second->failure();
}

}  // namespace outrider::proxy
