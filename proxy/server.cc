#include "proxy/server.h"

#include <algorithm>
#include <csignal>
#include <map>

#include <fcntl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/process_metrics.h"
#include "proxy/admin.h"

#ifndef OUTRIDER_VERSION
#define OUTRIDER_VERSION "0.0.0"
#endif

namespace outrider::proxy {

namespace {
using namespace std::chrono_literals;

constexpr Duration kDrainPoll = 50ms;
constexpr std::uint64_t kDescriptorsHeldBack = 64;  // of the open files: /live answers whatever clients do

// Descriptors are given out from the lowest: how many there are.
std::uint64_t open_descriptors() {
    const int fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) ::close(fd);
    return fd < 0 ? 0 : static_cast<std::uint64_t>(fd);
}

std::string listener_key(const config::ListenerSettings& l) {
    return l.name + " " + config::to_string(l.listen);
}

// What a running process cannot change.
std::vector<std::string> needs_restart(const config::Settings& now, const config::Settings& next) {
    std::vector<std::string> out;
    const auto note = [&](bool differs, const char* key) {
        if (differs)
            out.push_back(std::string("warning: ") + key + " changed; it takes effect at the next start");
    };
    note(now.runtime.workers != next.runtime.workers, "runtime.workers");
    note(now.admin != next.admin, "admin");
    note(now.log.access != next.log.access, "log.access");
    note(now.log.access_format != next.log.access_format, "log.access_format");
    return out;
}

}  // namespace

Server::Server(std::string config_path) : config_path_(std::move(config_path)) {}
Server::~Server() = default;

// ---- start --------------------------------------------------------------------------------------------------------------

std::vector<std::string> Server::start() {
    std::signal(SIGPIPE, SIG_IGN);
    config::LoadResult loaded = config::load_file(config_path_);
    std::vector<std::string> problems;
    for (const auto& d : loaded.diagnostics) {
        if (d.severity == config::Diagnostic::Severity::kError) {
            problems.push_back(config::to_string(d));
        } else {
            log_warning("{}", config::to_string(d));
        }
    }
    if (!loaded.settings) return problems;
    const config::Settings& settings = *loaded.settings;
    if (auto level = set_log_level(settings.log.level); !level) return {level.error()};
    started_at_ = loop_.now();
    open_files_ = uv::raise_open_files(kDescriptorsHeldBack);
    const unsigned workers = settings.runtime.workers != 0 ? settings.runtime.workers : uv::processor_count();
    if (auto opened = open_access_log(settings.log); !opened) return {opened.error()};
    metrics_ = std::make_unique<Registry>(workers + 1);
    placement_ = std::make_unique<Placement>(workers);
    std::vector<Worker*> peers;
    for (unsigned i = 0; i < workers; ++i) {
        workers_.push_back(
            std::make_unique<Worker>(i, *placement_, access_log_ ? &access_log_->worker(i) : nullptr));
        peers.push_back(workers_.back().get());
    }
    for (auto& worker : workers_)
        worker->set_peers(peers);
    std::vector<std::pair<std::string, std::vector<int>>> opened;
    if (auto ok = open_listeners(settings, opened); !ok) return {ok.error()};
    health_ = std::make_unique<HealthChecker>(loop_, [this](const std::string& cluster) {
        for (auto& worker : workers_)
            worker->health_changed(cluster);
    });
    discovery_ =
        std::make_unique<Discovery>(loop_, [this](const std::string& cluster, const EndpointSet& set) {
            const EndpointSet checked = health_->attach(cluster, set);
            for (auto& worker : workers_)
                worker->publish_endpoints(cluster, checked);
        });
    stores_ = std::make_unique<Stores>(loop_, *metrics_);
    if (auto ok = stores_->open(settings.stores); !ok) return {ok.error()};
    admin_ = std::make_unique<Admin>(*this);
    if (auto ok = admin_->listen(settings.admin); !ok) return {ok.error()};
    register_metrics();
    started_with_ = settings;
    // Each socket gets an acceptor, which keeps one more.
    descriptors_own_ = open_descriptors() + workers * opened.size();
    for (auto& worker : workers_)
        worker->start();
    activate(make_snapshot(loaded));
    for (auto& [name, fds] : opened) {
        for (std::size_t i = 0; i < fds.size(); ++i)
            workers_[i]->listen(name, fds[i]);
    }
    signals_ = std::make_unique<uv::Signals>(
        loop_, std::initializer_list<int>{SIGTERM, SIGINT, SIGHUP, SIGUSR1}, [this](int s) { on_signal(s); });
    for (const auto& [name, address] : bound_)
        log_info("listener {} on {}", name, address.text());
    log_info("outrider {} serves with {} worker{}, admin on {}", OUTRIDER_VERSION, workers,
             workers == 1 ? "" : "s", admin_->address_text());
    return {};
}

Result<void> Server::open_access_log(const config::LogSettings& settings) {
    if (settings.access == "off") return {};
    AccessLogWriter::Options options;
    options.target = settings.access;
    options.format = settings.access_format;
    options.workers = 256;
    auto opened = AccessLogWriter::open(options);
    if (!opened) return Error{opened.error()};
    access_log_ = std::move(*opened);
    return {};
}

// `ask_first`: is the port free? Not asked for one that this process listens on already, under another name.
Result<std::vector<int>> Server::open_sockets(const config::ListenerSettings& listener,
                                              bool ask_first) const {
    auto address = uv::SocketAddress::to_listen(listener.listen.host, listener.listen.port);
    if (!address) return Error{"listener " + listener.name + ": " + address.error()};
    std::vector<int> fds;
    for (std::size_t i = 0; i < workers_.size(); ++i) {
        // The first socket of several asks whether the port is free; port 0 is settled by it for all.
        auto fd = uv::open_listening_socket(*address, true, ask_first && i == 0);
        if (!fd) {
            for (const int open : fds)
                ::close(open);
            return Error{"listener " + listener.name + ": " + fd.error()};
        }
        fds.push_back(*fd);
        if (i == 0) address = uv::local_address(*fd);
    }
    return fds;
}

// Opens what `next` listens on and the process does not; all or nothing.
Result<void> Server::open_listeners(const config::Settings& next,
                                    std::vector<std::pair<std::string, std::vector<int>>>& opened) {
    for (const auto& listener : next.listeners) {
        bool known = false;
        if (snapshot_) {
            for (const auto& have : snapshot_->settings.listeners)
                known |= listener_key(have) == listener_key(listener);
        }
        if (known) continue;
        const auto wanted = uv::SocketAddress::to_listen(listener.listen.host, listener.listen.port);
        bool ours = false;
        for (const auto& [name, address] : bound_)
            ours |= wanted && address.text() == wanted->text();
        auto fds = open_sockets(listener, !ours);
        if (!fds) {
            for (auto& [name, open] : opened) {
                for (const int fd : open)
                    ::close(fd);
            }
            opened.clear();
            return Error{fds.error()};
        }
        bound_.emplace_back(listener.name, uv::local_address(fds->front()));
        opened.emplace_back(listener.name, std::move(*fds));
    }
    return {};
}

std::shared_ptr<const Snapshot> Server::make_snapshot(config::LoadResult& loaded) {
    health_->configure(loaded.settings->clusters);
    return build_snapshot(
        std::move(*loaded.settings), std::move(loaded.source), ++generation_,
        {*metrics_, worker_count(), [this](const std::string& name) { return health_->health(name); },
         [this](const std::string& name) { return stores_->find(name); }, seed_, snapshot_.get()});
}

void Server::activate(std::shared_ptr<const Snapshot> snapshot) {
    snapshot_ = std::move(snapshot);
    placement_->max.store(connections_max(snapshot_->settings.runtime.max_connections),
                          std::memory_order_relaxed);
    discovery_->configure(snapshot_->settings.clusters);
    auto endpoints = discovery_->endpoints();
    for (auto& [name, set] : endpoints)
        set = health_->attach(name, set);
    for (auto& worker : workers_)
        worker->publish(snapshot_, endpoints);
}

// What the open files allow. Most connections are idle at a time and need one each, a quarter gets one upstream as well; admin keeps
// its reserve whatever they do. Refused with a 503 beats closed unserved.
std::int64_t Server::connections_max(std::uint32_t wanted) const {
    const std::uint64_t others = descriptors_own_ + (open_files_.all - open_files_.shared);
    const std::uint64_t needed = others + std::uint64_t{wanted} * 5 / 4;
    if (needed <= open_files_.all || open_files_.all == 0) return wanted;
    const std::uint64_t fits =
        open_files_.all <= others ? 1 : std::max<std::uint64_t>(1, (open_files_.all - others) * 4 / 5);
    log_warning(
        "runtime.max_connections = {} needs {} open files and the limit is {}: only {} client connections "
        "are taken. Raise the hard limit (ulimit -Hn, LimitNOFILE=) or lower runtime.max_connections",
        wanted, needed, open_files_.all, fits);
    return static_cast<std::int64_t>(fits);
}

void Server::register_metrics() {
    metrics_->collect(collect_process_metrics);
    metrics_->collect([this](Samples& s) {
        s.gauge("config_generation", "Generation of the configuration in use.",
                static_cast<double>(snapshot_->generation));
        s.counter("config_rejected_total", "Configurations refused at a reload.",
                  static_cast<double>(rejected_));
        s.counter("connections_shed_total", "Connections closed unserved for want of a file descriptor.",
                  static_cast<double>(uv::Acceptor::shed_total()));
        s.gauge("build_info", "Always 1; the labels say what runs.", 1, {{"version", OUTRIDER_VERSION}});
        s.gauge("ready", "1 while /ready answers 200.", not_ready_reason().empty() ? 1 : 0);
        if (access_log_) {
            s.counter("access_log_dropped_total", "Access-log lines that could not be written.",
                      static_cast<double>(access_log_->dropped_lines()));
        }
        collect_health(s);
    });
}

void Server::collect_health(Samples& s) const {
    for (const ListenerEntry& listener : snapshot_->listeners) {
        for (const RouteEntry& route : listener.routes) {
            if (!route.hedge) continue;
            std::int64_t wait = 0;
            for (const Gauge& worker : route.hedge->wait_us)
                wait = std::max(wait, worker.value());
            s.gauge("hedge_wait_seconds", "How long the route waited last before it would have hedged.",
                    static_cast<double>(wait) / 1e6,
                    {{"listener", listener.settings->name}, {"route", route.settings->name}});
        }
    }
    for (const ClusterEntry& entry : snapshot_->clusters) {
        const std::string& cluster = entry.settings->name;
        const std::vector<EndpointVerdict> verdicts = entry.health->verdicts();
        const auto usable =
            std::count_if(verdicts.begin(), verdicts.end(), [](const auto& v) { return v.usable; });
        s.gauge(
            "cluster_panic",
            "1 while so few endpoints are usable that health is disregarded (panic_percent).",
            policy::panic(static_cast<std::size_t>(usable), verdicts.size(), entry.settings->panic_percent)
                ? 1
                : 0,
            {{"cluster", cluster}});
        for (const EndpointVerdict& verdict : verdicts) {
            s.gauge("endpoint_healthy", "1 while the endpoint is neither unhealthy nor ejected.",
                    verdict.usable ? 1 : 0, {{"cluster", cluster}, {"endpoint", verdict.id}});
        }
        if (entry.settings->health) {
            const CheckReport report = health_->report(cluster);
            s.counter("health_checks_total", "Active checks, by result.", static_cast<double>(report.passed),
                      {{"cluster", cluster}, {"result", "passed"}});
            s.counter("health_checks_total", "Active checks, by result.", static_cast<double>(report.failed),
                      {{"cluster", cluster}, {"result", "failed"}});
        }
        if (entry.settings->outlier) {
            s.counter("outlier_ejections_total", "Endpoints ejected after failures in a row.",
                      static_cast<double>(entry.health->ejections()), {{"cluster", cluster}});
            s.counter("outlier_ejections_refused_total",
                      "Ejections left out because too many were out already.",
                      static_cast<double>(entry.health->ejections_refused()), {{"cluster", cluster}});
        }
    }
}

int Server::run() {
    loop_.run();
    signals_.reset();
    admin_.reset();
    discovery_.reset();
    for (auto& worker : workers_)
        worker->join();
    if (access_log_) access_log_->stop();
    workers_.clear();
    snapshot_.reset();
    stores_.reset();  // what is still to be written is
    return exit_code_;
}

// ---- reload ---------------------------------------------------------------------------------------------------------------

ReloadResult Server::reload(bool dry_run) {
    ReloadResult result;
    result.generation = snapshot_->generation;
    if (draining_ && !dry_run) {
        result.messages.emplace_back("draining: the configuration is not changed any more");
        return result;
    }
    config::LoadResult loaded = config::load_file(config_path_);
    for (const auto& d : loaded.diagnostics)
        result.messages.push_back(config::to_string(d));
    std::vector<std::pair<std::string, std::vector<int>>> opened;
    const auto bound_before = bound_;
    if (loaded.settings && !dry_run) {
        if (auto ok = open_listeners(*loaded.settings, opened); !ok) {
            bound_ = bound_before;
            result.messages.push_back(ok.error());
            loaded.settings.reset();
        }
    }
    if (loaded.settings && !dry_run) {
        if (auto ok = stores_->open(loaded.settings->stores); !ok) {
            for (auto& [name, fds] : opened) {
                for (const int fd : fds)
                    ::close(fd);
            }
            bound_ = bound_before;
            result.messages.push_back(ok.error());
            loaded.settings.reset();
        }
    }
    if (!loaded.settings) {
        if (!dry_run) {
            ++rejected_;
            for (const std::string& m : result.messages)
                log_error("reload refused: {}", m);
        }
        return result;
    }
    result.ok = true;
    for (std::string& m : needs_restart(started_with_, *loaded.settings))
        result.messages.push_back(std::move(m));
    if (dry_run) return result;
    for (const std::string& m : result.messages)
        log_warning("reload: {}", m);
    const auto previous = snapshot_;
    (void)set_log_level(loaded.settings->log.level);
    activate(make_snapshot(loaded));
    for (const auto& had : previous->settings.listeners) {
        bool stays = false;
        for (const auto& has : snapshot_->settings.listeners)
            stays |= listener_key(has) == listener_key(had);
        if (stays) continue;
        const auto address = uv::SocketAddress::to_listen(had.listen.host, had.listen.port);
        std::erase_if(bound_, [&](const auto& b) {
            return b.first == had.name &&
                   (!address || had.listen.port == 0 || b.second.text() == address->text());
        });
        for (auto& worker : workers_)
            worker->unlisten(had.name);
    }
    for (auto& [name, fds] : opened) {
        for (std::size_t i = 0; i < fds.size(); ++i)
            workers_[i]->listen(name, fds[i]);
    }
    result.generation = snapshot_->generation;
    log_info("configuration generation {} is in use", result.generation);
    return result;
}

// ---- end ------------------------------------------------------------------------------------------------------------------

void Server::on_signal(int signum) {
    switch (signum) {
        case SIGHUP:
            reload(false);
            break;
        case SIGUSR1:
            if (access_log_) {
                if (auto reopened = access_log_->reopen(); !reopened) log_error("{}", reopened.error());
            }
            break;
        case SIGTERM:
            // The first one drains, also when /drain has begun already (a preStop hook).
            sigterm_seen_ ? shutdown_now() : begin_drain();
            sigterm_seen_ = true;
            break;
        default:
            shutdown_now();
            break;
    }
}

// The first keyed requests must not be refused only because the connections to their store are still being made.
bool Server::stores_settled() const {
    for (const ListenerEntry& listener : snapshot_->listeners) {
        for (const RouteEntry& route : listener.routes) {
            if (route.idempotency && !route.idempotency->store->settled(worker_count())) return false;
        }
    }
    return true;
}

std::string Server::not_ready_reason() const {
    if (draining_) return "draining";
    if (health_failing_) return "failed by an operator (POST /health/ok mends it)";
    if (!settled_ && !discovery_->settled()) return "waiting for the first DNS answers";
    if (!settled_ && !stores_settled()) return "waiting for the stores of idempotency keys";
    settled_ = true;  // a cluster that a reload adds does not take the whole sidecar out
    return {};
}

void Server::begin_drain() {
    if (draining_) return;
    draining_ = true;
    const auto& drain = snapshot_->settings.drain;
    log_info("draining: not ready any more, listeners close in {}", to_string(drain.delay));
    loop_.after(drain.delay, [this] { close_listeners(); });
}

void Server::close_listeners() {
    if (listeners_closed_ || finishing_) return;
    listeners_closed_ = true;
    drain_until_ = loop_.now() + snapshot_->settings.drain.timeout;
    for (auto& worker : workers_)
        worker->drain();
    loop_.after(kDrainPoll, [this] { check_drained(); });
}

void Server::check_drained() {
    if (finishing_) return;
    if (connections() == 0 && in_flight() == 0) {  // also what goes on without its client
        log_info("drained");
        finish();
    } else if (loop_.now() >= drain_until_) {
        log_warning("drain.timeout is over with {} connections open, {} exchanges in flight", connections(),
                    in_flight());
        finish();
    } else {
        loop_.after(kDrainPoll, [this] { check_drained(); });
    }
}

void Server::shutdown_now() {
    log_info("ending at once");
    draining_ = true;
    finish();
}

void Server::finish() {
    if (finishing_) return;
    finishing_ = true;
    auto left = std::make_shared<std::size_t>(workers_.size());
    auto cut = std::make_shared<std::size_t>(0);
    for (auto& worker : workers_) {
        worker->stop([this, left, cut](std::size_t aborted) {
            loop_.post([this, left, cut, aborted] {
                *cut += aborted;
                if (--*left != 0) return;
                if (*cut != 0) log_warning("{} exchanges were cut", *cut);
                admin_->close();
                discovery_->close();
                health_->close();
                loop_.after(10ms, [this] { loop_.stop(); });
            });
        });
    }
}

std::vector<std::int64_t> Server::connections_by_worker() const {
    std::vector<std::int64_t> out;
    for (const auto& worker : workers_)
        out.push_back(worker->connections());
    return out;
}

std::int64_t Server::in_flight() const {
    std::int64_t sum = 0;
    for (const auto& worker : workers_)
        sum += worker->in_flight();
    return sum;
}

void Server::collect_clusters(std::function<void(std::vector<ClusterReport>)> done) {
    auto left = std::make_shared<std::size_t>(workers_.size());
    auto sum = std::make_shared<std::vector<ClusterReport>>();
    auto finished = std::make_shared<std::function<void(std::vector<ClusterReport>)>>(std::move(done));
    const auto add = [sum](const std::vector<ClusterReport>& part) {
        for (const ClusterReport& cluster : part) {
            auto known =
                std::find_if(sum->begin(), sum->end(), [&](const auto& c) { return c.name == cluster.name; });
            if (known == sum->end()) {
                sum->push_back(cluster);
                continue;
            }
            known->pending += cluster.pending;
            known->panic |= cluster.panic;
            for (const EndpointReport& e : cluster.endpoints) {
                auto at = std::find_if(known->endpoints.begin(), known->endpoints.end(),
                                       [&](const auto& k) { return k.id == e.id; });
                if (at == known->endpoints.end()) {
                    known->endpoints.push_back(e);
                    continue;
                }
                at->in_flight += e.in_flight;
                at->connections += e.connections;
                at->idle += e.idle;
                at->requests += e.requests;
                at->failures += e.failures;
                at->latency_ewma_us = std::max(at->latency_ewma_us, e.latency_ewma_us);
                at->channels += e.channels;
                at->channel_depth += e.channel_depth;
                at->stalls += e.stalls;
                if (at->fallback.empty()) at->fallback = e.fallback;
            }
        }
    };
    for (auto& worker : workers_) {
        worker->report([this, left, sum, finished, add](std::vector<ClusterReport> part) {
            loop_.post([left, sum, finished, add, part = std::move(part)] {
                add(part);
                if (--*left == 0) (*finished)(std::move(*sum));
            });
        });
    }
}

}  // namespace outrider::proxy
