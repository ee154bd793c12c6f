// One worker's side of a cluster: its endpoints, their pooled connections, and the choice among them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/http/client_connection.h"
#include "base/random.h"
#include "base/ref.h"
#include "filters/policy/balancer.h"
#include "proxy/snapshot.h"

namespace outrider::proxy {

class WorkerCluster;

// An endpoint as one worker knows it. Lives as long as a connection or exchange needs it, also when it has left the set.
class Endpoint final : public RefCounted {
  public:
    static constexpr std::size_t kRemoved = ~std::size_t{0};

    EndpointAddress address;
    std::size_t index = kRemoved;            // in the cluster's loads
    http::ClientConnection* idle = nullptr;  // newest first: the others get to time out
    std::uint32_t idle_count = 0;
    std::uint32_t connections = 0;
    std::uint64_t requests = 0;
    std::uint64_t failures = 0;
    Instant last_sample{};
};

class PooledConnection final : public http::ClientConnection {
  public:
    using ClientConnection::ClientConnection;
    Ref<Endpoint> endpoint;
    Ref<WorkerCluster> cluster;
};

class WorkerCluster final : public RefCounted, private http::ClientOwner {
  public:
    WorkerCluster(uv::Loop& loop, http::ParserScratch& scratch, Random& random, std::string name);
    ~WorkerCluster() override = default;

    // The same name under a newer snapshot. Connections stay.
    void configure(const config::ClusterSettings& settings, const ClusterCells& cells);
    // Endpoints that stay keep their connections; those that go are not used again.
    void set_endpoints(const EndpointSet& set);
    const EndpointSet& endpoints() const { return set_; }
    const std::string& name() const { return name_; }
    const config::ClusterSettings& settings() const { return settings_; }
    const ClusterCells& cells() const { return cells_; }

    // The endpoint for a request with this key hash (0: none); null when there is none.
    Ref<Endpoint> pick(std::uint64_t hash);
    // An idle connection, or a new one that is connecting. `fresh`: never an idle one.
    PooledConnection& connection(const Ref<Endpoint>& endpoint, bool fresh);

    void begin(Endpoint& endpoint);
    // `latency`: until the response's head; negative when there was none.
    void end(Endpoint& endpoint, Duration latency, Instant now, bool failed);

    // Closes what is idle; the rest closes when its exchange ends.
    void close_idle();
    void retire() {
        retired_ = true;
        close_idle();
    }

    const std::vector<Ref<Endpoint>>& all() const { return list_; }
    const policy::EndpointLoad& load(const Endpoint& e) const { return loads_[e.index]; }

  private:
    void on_connection_idle(http::ClientConnection& connection) override;
    void on_connection_gone(http::ClientConnection& connection) override;
    void on_connection_closed(http::ClientConnection& connection) override;
    static void unlink(Endpoint& endpoint, http::ClientConnection& connection);
    void rebuild_balancer();

    uv::Loop& loop_;
    http::ParserScratch& scratch_;
    Random& random_;
    std::string name_;
    config::ClusterSettings settings_;
    ClusterCells cells_;
    http::ParserLimits limits_;
    EndpointSet set_;
    std::vector<Ref<Endpoint>> list_;
    std::vector<policy::EndpointLoad> loads_;
    std::unique_ptr<policy::Balancer> balancer_;
    bool retired_ = false;
};

// The key that a hashing balancer takes from a request; 0 when the request has none.
std::uint64_t request_hash(const config::HashKey& key, const http::RequestHead& request,
                           std::string_view peer_ip);

}  // namespace outrider::proxy
