// One worker: a thread with a loop, its listeners, connections, pools and counters. Workers share nothing mutable.
//
// The main thread talks to a worker by posting; a worker answers by posting to the main loop.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/http/server_connection.h"
#include "base/random.h"
#include "base/ref.h"
#include "base/uv/acceptor.h"
#include "base/uv/loop.h"
#include "filters/filter.h"
#include "filters/route_policies.h"
#include "proxy/access_log_writer.h"
#include "proxy/batcher.h"
#include "proxy/collapser.h"
#include "proxy/mirror.h"
#include "proxy/snapshot.h"
#include "proxy/upstream.h"

namespace outrider::proxy {

class Exchange;
class Worker;

// A snapshot as one worker uses it: the count of its users needs no atomics, and names are resolved to this worker's clusters.
struct WorkerSnapshot final : RefCounted {
    std::shared_ptr<const Snapshot> shared;
    std::vector<Ref<WorkerCluster>> clusters;           // parallel to shared->clusters
    std::vector<Ref<filters::RoutePolicies>> policies;  // parallel to settings.routes; null without policies
    std::vector<idempotency::StoreClient*> stores;  // parallel to settings.routes; null without idempotency
    std::vector<Ref<Batcher>> batchers;             // parallel to settings.routes; null without batch
    std::vector<Ref<Collapser>> collapsers;         // parallel to settings.routes; null without collapse
};

// What all workers see of each other: open connections, for placement at accept, and the process's limit.
struct Placement {
    explicit Placement(unsigned workers) : open(workers) {}
    struct alignas(64) Count {
        std::atomic<std::int64_t> value{0};
    };
    std::vector<Count> open;
    std::atomic<std::int64_t> total{0};
    std::atomic<std::int64_t> max{0};
};

struct EndpointReport {
    std::string id;
    std::uint32_t in_flight = 0;
    std::uint32_t connections = 0;
    std::uint32_t idle = 0;
    std::uint64_t requests = 0;
    std::uint64_t failures = 0;
    double latency_ewma_us = 0;
    // Of pipelined connections, which `connections` counts too.
    std::uint32_t channels = 0;
    std::size_t channel_depth = 0;  // requests in flight on them
    std::uint64_t stalls = 0;
    std::string fallback;  // why it gets pooled connections; empty: it does not
};
struct ClusterReport {
    std::string name;
    std::vector<EndpointReport> endpoints;
    std::size_t pending = 0;  // requests that wait
    bool panic = false;       // health is disregarded
    bool pipelined = false;
};

class Worker {
  public:
    // `access_log` is null when the log is off; it outlives the worker.
    Worker(unsigned index, Placement& placement, AccessLogWriter::Worker* access_log);
    ~Worker();

    // --- main thread
    void start();
    void set_peers(std::vector<Worker*> peers) { peers_ = std::move(peers); }
    void publish(std::shared_ptr<const Snapshot> snapshot,
                 std::unordered_map<std::string, EndpointSet> endpoints);
    void publish_endpoints(const std::string& cluster, EndpointSet endpoints);
    // Endpoints of the cluster may have become usable: who waits is looked at.
    void health_changed(const std::string& cluster);
    // A listener of the snapshot that was published last. Every worker gets that before any gets a socket.
    void listen(const std::string& listener, int fd);
    void unlisten(const std::string& listener);
    // Stops accepting; connections end after their answer.
    void drain();
    // Ends whatever is left and the thread. `aborted`: exchanges that were cut.
    void stop(std::function<void(std::size_t aborted)> aborted);
    void join();
    void report(std::function<void(std::vector<ClusterReport>)> done);
    // Exchanges in flight, readable from any thread.
    std::int64_t in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
    std::int64_t connections() const { return placement_.open[index_].value.load(std::memory_order_relaxed); }

    // --- the worker's own thread
    unsigned index() const { return index_; }
    uv::Loop& loop() { return loop_; }
    Random& random() { return random_; }
    const filters::Chain& chain() const { return chain_; }
    const Ref<WorkerSnapshot>& snapshot() const { return snapshot_; }
    AccessLogWriter::Worker* access_log() { return access_log_; }
    void exchange_began() {
        in_flight_.store(in_flight_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    void exchange_ended() {
        in_flight_.store(in_flight_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    }
    Mirrors& mirrors() { return mirrors_; }
    Exchange* take_exchange();
    void return_exchange(Exchange* exchange);
    bool draining() const { return draining_; }
    // Exchanges that go on without their client.
    void detached(Exchange& exchange);
    void reattached(Exchange& exchange);
    // Of bodies that are kept for the sake of an idempotency key, and of shared answers. False: the bound is reached.
    bool hold_bytes(std::size_t bytes);
    void give_back_bytes(std::size_t bytes) { held_bytes_ -= bytes; }

  private:
    class Listener;
    void run();
    void apply(const std::shared_ptr<const Snapshot>& snapshot,
               std::unordered_map<std::string, EndpointSet> endpoints);
    idempotency::StoreClient* store_client(const std::string& name, const RouteIdempotency& route);
    Ref<Batcher> batcher(const RouteEntry& route);
    Ref<Collapser> collapser(const config::RouteSettings& route);
    void close_stores();
    void on_accept(Listener& listener, int fd);
    void serve(const std::string& listener, int fd, bool refused);

    unsigned index_;
    Placement& placement_;
    std::vector<Worker*> peers_;
    uv::Loop loop_;
    Random random_;
    filters::Chain chain_;
    http::ParserScratch scratch_;
    Ref<WorkerSnapshot> snapshot_;
    std::unordered_map<std::string, Ref<WorkerCluster>> clusters_;
    std::unordered_map<std::string, Ref<filters::RoutePolicies>> policies_;  // by route name
    std::unordered_map<std::string, Ref<Batcher>> batchers_;                 // by route name
    std::unordered_map<std::string, Ref<Collapser>> collapsers_;             // by route name
    std::unordered_map<std::string, std::unique_ptr<Listener>> listeners_;
    struct Connected {
        std::shared_ptr<idempotency::Store> store;
        std::unique_ptr<idempotency::StoreClient> client;
    };
    std::unordered_map<std::string, Connected> stores_;  // by name; kept as long as the process
    AccessLogWriter::Worker* access_log_;
    Mirrors mirrors_;
    Exchange* free_exchanges_ = nullptr;
    std::size_t free_count_ = 0;
    Exchange* detached_ = nullptr;
    std::size_t held_bytes_ = 0;
    std::atomic<std::int64_t> in_flight_{0};
    bool draining_ = false;
    bool stopped_ = false;  // what others still hand over is closed unserved
    std::thread thread_;
};

}  // namespace outrider::proxy
