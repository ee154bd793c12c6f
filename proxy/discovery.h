// Where each cluster's endpoints come from: literal addresses, names (A/AAAA) and SRV records, asked again as their TTL says.
//
// Main thread. A cluster whose sources do not change keeps its endpoints over a reload. The last good answer stays in use
// while names cannot be resolved.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/random.h"
#include "base/uv/loop.h"
#include "base/uv/resolver.h"
#include "config/settings.h"
#include "filters/policy/balancer.h"
#include "proxy/snapshot.h"

namespace outrider::proxy {

// What a cluster's sources give together: `literals` as they are, then each address once, at most config::kEndpointsMax. A name's
// answer must not be able to take the process's time and memory.
struct JoinedEndpoints {
    std::vector<EndpointAddress> endpoints;
    std::size_t left_out = 0;
};
JoinedEndpoints join_endpoints(const std::vector<EndpointAddress>& literals,
                               std::span<const std::vector<policy::BalancerEndpoint>* const> found);

class Discovery {
  public:
    using OnChange = std::function<void(const std::string& cluster, const EndpointSet& endpoints)>;
    Discovery(uv::Loop& loop, OnChange on_change);
    ~Discovery();

    void configure(const std::vector<config::ClusterSettings>& clusters);
    // Never null for a configured cluster; may be empty while nothing has been resolved.
    std::unordered_map<std::string, EndpointSet> endpoints() const;
    // Every name has been asked at least once: with an answer, or in vain.
    bool settled() const;
    // The last failure of a cluster's names; empty when there is none.
    std::string failure(const std::string& cluster) const;

    void close();

  private:
    class Cluster;
    uv::Loop& loop_;
    OnChange on_change_;
    Random random_;
    std::unique_ptr<uv::Resolver> resolver_;
    std::unordered_map<std::string, std::shared_ptr<Cluster>> clusters_;
};

}  // namespace outrider::proxy
