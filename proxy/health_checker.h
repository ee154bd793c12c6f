// Heartbeats: asks each endpoint of the clusters with [cluster.health] at an interval, and keeps every cluster's health.
//
// Main thread, once for the whole process: what is asked does not grow with the workers. Also ends ejections when their time
// is up. The verdict on an endpoint is policy::HealthDetector's.
//
// A check succeeds when, within `timeout` from its connecting: kind tcp: the connection stands; kind http: GET path is answered
// with 200 to 299 and a body that ends within 64 KiB. Redirects are failures: what they point to may be another server. Each check has a
// connection of its own, so that it also sees whether the endpoint accepts.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/http/http1_parser.h"
#include "base/random.h"
#include "base/uv/loop.h"
#include "config/settings.h"
#include "proxy/cluster_health.h"
#include "proxy/snapshot.h"

namespace outrider::proxy {

struct CheckReport {
    std::uint64_t passed = 0;
    std::uint64_t failed = 0;
};

class HealthChecker {
  public:
    // on_changed: some endpoint of the cluster became usable or unusable. Main thread.
    HealthChecker(uv::Loop& loop, std::function<void(const std::string& cluster)> on_changed);
    ~HealthChecker();

    // For clusters that are new too. Those that are gone are no longer checked.
    void configure(const std::vector<config::ClusterSettings>& clusters);
    // Never null for a configured cluster.
    std::shared_ptr<ClusterHealth> health(const std::string& cluster) const;
    // The same endpoints with their health; from here on they, and only they, are checked.
    EndpointSet attach(const std::string& cluster, const EndpointSet& endpoints);
    CheckReport report(const std::string& cluster) const;
    // Ends every check under way; the loop has to turn once more.
    void close();

  private:
    class Cluster;
    class Check;
    class Probe;
    void changed(const std::string& cluster);

    uv::Loop& loop_;
    std::function<void(const std::string&)> on_changed_;
    Random random_;
    http::ParserScratch scratch_;
    std::unordered_map<std::string, std::unique_ptr<Cluster>> clusters_;
    std::shared_ptr<bool> alive_;
};

}  // namespace outrider::proxy
