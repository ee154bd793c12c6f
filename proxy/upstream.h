// One worker's side of a cluster: its endpoints, their pooled connections, and the choice among them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/http/client_connection.h"
#include "base/random.h"
#include "base/ref.h"
#include "base/timer_wheel.h"
#include "filters/policy/balancer.h"
#include "proxy/cluster_health.h"
#include "proxy/pipelined_channel.h"
#include "proxy/snapshot.h"

namespace outrider::proxy {

class WorkerCluster;
class UpstreamChannel;
struct EndpointReport;

// The pipelined connections to an endpoint, and what is known of it as their other end. Made by the first request that
// may ride.
struct EndpointPipeline {
    explicit EndpointPipeline(policy::DepthLimits limits) : depth(limits) {}
    policy::ChannelDepth depth;
    policy::PipelineSupport support;
    std::vector<UpstreamChannel*> channels;
    policy::ChannelDepth::Socket next_number = 0;
    Instant open_after{};      // none is opened before
    bool after_break = false;  // the next one starts alone
    std::uint64_t stalls = 0;
};

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
    std::unique_ptr<EndpointPipeline> pipeline;  // null while nothing has ridden
};

class PooledConnection final : public http::ClientConnection {
  public:
    using ClientConnection::ClientConnection;
    Ref<Endpoint> endpoint;
    Ref<WorkerCluster> cluster;
};

class UpstreamChannel final : public PipelinedChannel {
  public:
    using PipelinedChannel::PipelinedChannel;
    Ref<Endpoint> endpoint;
    Ref<WorkerCluster> cluster;
    PipelineCells cells;     // of the configuration that opened it
    bool accepting = false;  // as ChannelDepth was told
};

// What waits for a usable endpoint or a connection: the request waiting list. Released in the order of arrival.
class Waiter {
  public:
    Waiter() = default;
    Waiter(const Waiter&) = delete;
    Waiter& operator=(const Waiter&) = delete;
    virtual ~Waiter() = default;

    virtual void on_may_start() = 0;

  private:
    friend class WorkerCluster;
    Waiter* previous_ = nullptr;
    Waiter* next_ = nullptr;
    bool waiting_ = false;
    bool for_connection_ = false;  // an endpoint there was
};

enum class Admission : std::uint8_t {
    kYes,
    kNoEndpoint,       // none is usable
    kConnectionsBusy,  // this worker's share of max_connections is in use
    kRequestsBusy,     // max_requests are in flight
};

class WorkerCluster final : public RefCounted,
                            private http::ClientOwner,
                            private PipelinedChannelOwner,
                            private Timer {
  public:
    WorkerCluster(uv::Loop& loop, http::ParserScratch& scratch, Random& random, std::string name);
    ~WorkerCluster() override = default;

    // The same name under a newer snapshot. Connections stay.
    void configure(const ClusterEntry& entry, unsigned worker);
    // Endpoints that stay keep their connections; those that go are not used again.
    void set_endpoints(const EndpointSet& set);
    const EndpointSet& endpoints() const { return set_; }
    const std::string& name() const { return name_; }
    const config::ClusterSettings& settings() const { return settings_; }
    const ClusterCells& cells() const { return cells_; }

    // The endpoint for a request with this key hash (0: none), another one than `avoid` if there is one; null when none is usable.
    Ref<Endpoint> pick(std::uint64_t hash, const Endpoint* avoid = nullptr);
    // The same within [cluster.limits]. With kYes, start at once: nothing is reserved.
    Admission admit(std::uint64_t hash, const Endpoint* avoid, Ref<Endpoint>& endpoint);
    // Puts it at the end of the waiting list; false when max_pending wait already. `why`: what admit() said.
    bool wait(Waiter& waiter, Admission why);
    void stop_waiting(Waiter& waiter);
    // Endpoints became usable, or connections free: releases who can go on. When there is no endpoint any more, those that
    // waited for a connection are released too, once: how long they wait for an endpoint is for them to say.
    void release_waiting();
    // An idle connection, or a new one that is connecting. `idle_max`: none that has been idle for longer; 0: never an idle one.
    PooledConnection& connection(const Ref<Endpoint>& endpoint, Duration idle_max);

    // Where a request of this class (its route's number) rides, counted there already: join() it at once. Null: it takes
    // connection(). Only for what is safe to repeat, whole, and without an upgrade.
    UpstreamChannel* channel_for(const Ref<Endpoint>& endpoint, policy::ChannelDepth::Class cls);
    void count_replay() {
        if (cells_.pipeline.replays != nullptr) cells_.pipeline.replays->add();
    }
    // Such a request took a connection of its own, and was answered whole after `took`.
    void answered_alone(Endpoint& endpoint, policy::ChannelDepth::Class cls, Duration took) {
        if (endpoint.pipeline) endpoint.pipeline->depth.answered_alone(cls, took, loop_.now());
    }

    void begin(Endpoint& endpoint);
    // `latency`: until the response's head; negative when there was none.
    void end(Endpoint& endpoint, Duration latency, Instant now, bool failed);

    void judge_success(const Endpoint& endpoint) {
        if (endpoint.address.health) health_->on_success(*endpoint.address.health);
    }
    void judge_failure(const Endpoint& endpoint, std::string_view reason, WallTime wall) {
        if (endpoint.address.health) health_->on_failure(*endpoint.address.health, reason, loop_.now(), wall);
    }

    // An attempt there was given up because a later one elsewhere was quicker.
    void overtaken(Endpoint& endpoint, Duration elapsed, Instant now);
    // release_waiting() from the loop, soon.
    void release_soon() { loop_.schedule(*this, Duration(0)); }

    // Closes what is idle; the rest closes when its exchange ends.
    void close_idle();
    void retire() {
        retired_ = true;
        close_idle();
    }

    void report_channels(const EndpointPipeline& pipeline, EndpointReport& out) const;
    std::size_t waiting() const { return waiting_count_; }
    bool panic() const { return panic_; }
    const std::vector<Ref<Endpoint>>& all() const { return list_; }
    const policy::EndpointLoad& load(const Endpoint& e) const { return loads_[e.index]; }

  private:
    void on_connection_idle(http::ClientConnection& connection) override;
    void on_connection_gone(http::ClientConnection& connection) override;
    void on_connection_closed(http::ClientConnection& connection) override;
    void on_channel_open(PipelinedChannel& channel) override;
    void on_channel_answered(PipelinedChannel& channel, bool counts) override;
    void on_channel_gone(PipelinedChannel& channel, bool start_alone) override;
    void on_channel_closed(PipelinedChannel& channel) override;
    void open_channel(const Ref<Endpoint>& endpoint);
    static void retire_channels(Endpoint& endpoint);
    void on_timeout(Instant now) override;
    void unlink(Endpoint& endpoint, http::ClientConnection& connection);
    void rebuild_balancer();
    void refresh_usable();
    bool no_endpoint();
    bool connection_available() const;
    void close_oldest_idle(const Endpoint& but);

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
    std::shared_ptr<ClusterHealth> health_;
    std::uint64_t health_seen_ = 0;      // its version() when usable_ was made
    std::vector<std::uint64_t> usable_;  // a bit for each endpoint
    std::size_t usable_count_ = 0;
    std::size_t total_idle_ = 0;
    std::vector<const Gauge*> in_flight_;  // every worker's
    std::vector<const Gauge*> pending_;
    std::size_t waiting_count_ = 0;
    std::size_t waiting_for_connection_ = 0;  // of them
    std::uint32_t open_ = 0;                  // connections
    std::uint32_t connections_max_ = 0;       // this worker's share; 0 = no limit
    Waiter* first_waiting_ = nullptr;
    Waiter* last_waiting_ = nullptr;
    bool panic_ = false;  // health is disregarded
    bool retired_ = false;
};

// The key that a hashing balancer takes from a request; 0 when the request has none.
std::uint64_t request_hash(const config::HashKey& key, const http::RequestHead& request,
                           std::string_view peer_ip);

}  // namespace outrider::proxy
