// The sidecar process: the main loop with configuration, signals, discovery, admin, and its workers.
//
// start() -> run() until a signal or /shutdown ends it. Everything here happens on the main thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "base/result.h"
#include "base/uv/acceptor.h"
#include "base/uv/loop.h"
#include "config/load.h"
#include "proxy/access_log_writer.h"
#include "proxy/discovery.h"
#include "proxy/health_checker.h"
#include "proxy/snapshot.h"
#include "proxy/stores.h"
#include "proxy/worker.h"

namespace outrider::proxy {

class Admin;

struct ReloadResult {
    bool ok = false;
    std::vector<std::string> messages;  // errors and warnings, as `validate` prints them
    std::uint64_t generation = 0;       // in use after the call
};

class Server {
  public:
    explicit Server(std::string config_path);
    ~Server();

    // Reads the configuration, opens every socket, starts the workers. On failure: why, one line each.
    std::vector<std::string> start();
    // Serves until told to end; the process's exit code.
    int run();

    // --- for admin and signals
    ReloadResult reload(bool dry_run);
    void begin_drain();
    void shutdown_now();
    void set_health_override(bool failing) { health_failing_ = failing; }
    // Empty when ready, else the reason why not.
    std::string not_ready_reason() const;
    bool draining() const { return draining_; }

    uv::Loop& loop() { return loop_; }
    const Snapshot& snapshot() const { return *snapshot_; }
    Registry& metrics() { return *metrics_; }
    const Discovery& discovery() const { return *discovery_; }
    const HealthChecker& health() const { return *health_; }
    Stores& stores() { return *stores_; }
    const std::string& config_path() const { return config_path_; }
    Instant started_at() const { return started_at_; }
    unsigned worker_count() const { return static_cast<unsigned>(workers_.size()); }
    std::int64_t connections() const { return placement_->total.load(std::memory_order_relaxed); }
    std::vector<std::int64_t> connections_by_worker() const;
    std::int64_t in_flight() const;
    std::uint64_t rejected_configurations() const { return rejected_; }
    // Every worker's view, added up by endpoint; arrives later, on the main thread.
    void collect_clusters(std::function<void(std::vector<ClusterReport>)> done);
    // Listener name and the address it is bound to.
    const std::vector<std::pair<std::string, uv::SocketAddress>>& bound() const { return bound_; }
    const uv::OpenFiles& open_files() const { return open_files_; }

  private:
    Result<void> open_access_log(const config::LogSettings& settings);
    Result<std::vector<int>> open_sockets(const config::ListenerSettings& listener, bool ask_first) const;
    Result<void> open_listeners(const config::Settings& next,
                                std::vector<std::pair<std::string, std::vector<int>>>& opened);
    std::shared_ptr<const Snapshot> make_snapshot(config::LoadResult& loaded);
    void activate(std::shared_ptr<const Snapshot> snapshot);
    bool stores_settled() const;
    void collect_health(Samples& samples) const;
    std::int64_t connections_max(std::uint32_t wanted) const;
    void register_metrics();
    void on_signal(int signum);
    void close_listeners();
    void check_drained();
    void finish();

    std::string config_path_;
    uv::Loop loop_;
    std::unique_ptr<Registry> metrics_;
    std::unique_ptr<AccessLogWriter> access_log_;
    std::unique_ptr<Placement> placement_;
    std::vector<std::unique_ptr<Worker>> workers_;
    std::unique_ptr<HealthChecker> health_;
    std::unique_ptr<Stores> stores_;
    std::unique_ptr<Discovery> discovery_;
    std::unique_ptr<Admin> admin_;
    std::unique_ptr<uv::Signals> signals_;
    std::shared_ptr<const Snapshot> snapshot_;
    std::vector<std::pair<std::string, uv::SocketAddress>> bound_;
    uv::OpenFiles open_files_;
    std::uint64_t descriptors_own_ = 0;  // what the process needs before the first connection
    Instant started_at_{};
    Instant drain_until_{};
    config::Settings started_with_;  // what a reload cannot change is compared with this
    std::uint64_t generation_ = 0;
    const std::uint64_t seed_ = uv::random_seed();
    std::uint64_t rejected_ = 0;
    int exit_code_ = 0;
    bool draining_ = false;
    bool sigterm_seen_ = false;
    mutable bool settled_ = false;  // every cluster has had its first DNS answer once
    bool listeners_closed_ = false;
    bool finishing_ = false;
    bool health_failing_ = false;
};

}  // namespace outrider::proxy
