#include "proxy/worker.h"

#include <array>

#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "filters/policy/placement.h"
#include "proxy/exchange.h"

namespace outrider::proxy {

namespace {
constexpr std::size_t kFreeExchangesMax = 1024;  // more than that are given back to the allocator
constexpr std::size_t kWorkersMax = 256;
constexpr Duration kFarewell = std::chrono::milliseconds(40);  // handshakes under way when a listener closes
// Of one worker's requests and answers that are kept until a store has spoken, or for slow readers of a shared answer.
constexpr std::size_t kHeldBytesMax = std::size_t{128} << 20;
constexpr Duration kLogTick = std::chrono::milliseconds(250);
}  // namespace

// One listener's share of this worker: its socket and its connections.
class Worker::Listener final : public http::ServerHandler {
  public:
    Listener(Worker& worker, std::string name) : worker_(worker), name_(std::move(name)) {}

    // Exchanges that begin from now on follow this.
    void configure(const Ref<WorkerSnapshot>& snapshot) {
        const ListenerEntry* entry = snapshot->shared->listener(name_);
        if (entry == nullptr) return;
        snapshot_ = snapshot;
        entry_ = entry;
        limits_ = entry->limits;
    }

    void open(int fd) {
        close();           // an older socket of this name may still be saying farewell
        retired_ = false;  // it may have been away for a while, or come from another address
        acceptor_ = new uv::Acceptor(worker_.loop(), fd,
                                     [this](int accepted) { worker_.on_accept(*this, accepted); });
    }
    void close() {
        if (acceptor_ != nullptr) uv::Acceptor::close(acceptor_);
        acceptor_ = nullptr;
    }

    void serve(int fd, bool refused) {
        auto* connection = new http::ServerConnection(worker_.loop(), *this, limits_, worker_.scratch_);
        connection->list_next = connections_;
        if (connections_ != nullptr) connections_->list_prev = connection;
        connections_ = connection;
        entry_->connections[worker_.index()]->add(1);
        if (auto started = connection->start(fd); !started) {
            log_warning("{}", started.error());
            connection->close();
            return;
        }
        if (worker_.draining() || retired_) connection->drain();
        if (refused) connection->refuse(503, "too many connections");
    }

    // The listener is gone from the configuration, or the process is draining.
    void retire() {
        retired_ = true;
        if (acceptor_ != nullptr) {
            acceptor_->refuse_new();
            // The listener lives as long as its worker, the timer not longer.
            worker_.loop().after(kFarewell, [this, leaving = acceptor_] {
                if (acceptor_ == leaving) close();
            });
        }
        for_each([](http::ServerConnection& c) { c.drain(); });
    }
    std::size_t kill() {
        close();
        std::size_t aborted = 0;
        for_each([&](http::ServerConnection& c) {
            aborted += c.in_flight();
            c.kill(http::ServerExchange::AbortReason::kShutdown);
        });
        return aborted;
    }

    const std::string& name() const { return name_; }

  private:
    template <typename F>
    void for_each(F&& f) {
        for (http::ServerConnection* c = connections_; c != nullptr;) {
            http::ServerConnection* next = c->list_next;
            f(*c);
            c = next;
        }
    }

    http::ServerExchange* new_exchange(http::ServerConnection&) override {
        Exchange* exchange = worker_.take_exchange();
        // Not the worker's own snapshot: what is left of a listener that is gone goes on with the routes it had.
        exchange->begin(snapshot_, *entry_);
        return exchange;
    }
    void release_exchange(http::ServerExchange* released) override {
        auto* exchange = static_cast<Exchange*>(released);
        if (exchange->goes_on()) {
            exchange->detach();
            return;
        }
        exchange->end();
        worker_.return_exchange(exchange);
    }
    void on_connection_closed(http::ServerConnection& connection) override {
        if (connection.list_prev != nullptr) {
            connection.list_prev->list_next = connection.list_next;
        } else {
            connections_ = connection.list_next;
        }
        if (connection.list_next != nullptr) connection.list_next->list_prev = connection.list_prev;
        entry_->connections[worker_.index()]->add(-1);
        worker_.placement_.open[worker_.index()].value.fetch_sub(1, std::memory_order_relaxed);
        worker_.placement_.total.fetch_sub(1, std::memory_order_relaxed);
        delete &connection;
    }

    Worker& worker_;
    std::string name_;
    Ref<WorkerSnapshot> snapshot_;  // keeps entry_ alive
    const ListenerEntry* entry_ = nullptr;
    http::ServerLimits limits_;
    uv::Acceptor* acceptor_ = nullptr;
    http::ServerConnection* connections_ = nullptr;
    bool retired_ = false;
};

Worker::Worker(unsigned index, Placement& placement, AccessLogWriter::Worker* access_log)
    : index_(index), placement_(placement), random_(uv::random_seed()), access_log_(access_log) {
    if (access_log_ != nullptr) {
        loop_.on_turn_end([this](Instant now) { access_log_->flush_if_due(now); });
    }
}

Worker::~Worker() {
    join();
    while (free_exchanges_ != nullptr) {
        Exchange* exchange = free_exchanges_;
        free_exchanges_ = exchange->next_free;
        delete exchange;
    }
}

void Worker::start() {
    thread_ = std::thread([this] { run(); });
}

void Worker::join() {
    if (thread_.joinable()) thread_.join();
}

void Worker::run() {
    // The log's linger is kept also when nothing else happens.
    struct Tick final : Timer {
        explicit Tick(Worker& w) : worker(w) { worker.loop_.schedule(*this, kLogTick); }
        void on_timeout(Instant now) override {
            worker.access_log_->flush_if_due(now);
            worker.loop_.schedule(*this, kLogTick);
        }
        Worker& worker;
    };
    std::optional<Tick> tick;
    if (access_log_ != nullptr) tick.emplace(*this);
    loop_.run();
    if (access_log_ != nullptr) access_log_->flush(loop_.now());
}

// ---- configuration ----------------------------------------------------------------------------------------------------

void Worker::publish(std::shared_ptr<const Snapshot> snapshot,
                     std::unordered_map<std::string, EndpointSet> endpoints) {
    loop_.post([this, snapshot = std::move(snapshot), endpoints = std::move(endpoints)]() mutable {
        apply(snapshot, std::move(endpoints));
    });
}

void Worker::apply(const std::shared_ptr<const Snapshot>& snapshot,
                   std::unordered_map<std::string, EndpointSet> endpoints) {
    Ref<WorkerSnapshot> next(new WorkerSnapshot);
    next->shared = snapshot;
    loop_.spin(snapshot->settings.runtime.spin);
    std::unordered_map<std::string, Ref<WorkerCluster>> kept;
    for (const ClusterEntry& entry : snapshot->clusters) {
        const std::string& name = entry.settings->name;
        Ref<WorkerCluster>& cluster = clusters_[name];
        if (!cluster) cluster = Ref<WorkerCluster>(new WorkerCluster(loop_, scratch_, random_, name));
        cluster->configure(entry, index_);
        if (const auto it = endpoints.find(name); it != endpoints.end() && it->second)
            cluster->set_endpoints(it->second);
        next->clusters.push_back(cluster);
        kept[name] = cluster;
    }
    for (const auto& [name, cluster] : clusters_) {
        if (!kept.contains(name)) cluster->retire();
    }
    clusters_ = std::move(kept);
    std::unordered_map<std::string, Ref<filters::RoutePolicies>> policies;
    next->policies.resize(snapshot->settings.routes.size());
    next->stores.resize(snapshot->settings.routes.size());
    next->collapsers.resize(snapshot->settings.routes.size());
    next->batchers.resize(snapshot->settings.routes.size());
    std::unordered_map<std::string, Ref<Batcher>> batchers;
    std::unordered_map<std::string, Ref<Collapser>> collapsers;
    for (const ListenerEntry& listener : snapshot->listeners) {
        for (const RouteEntry& route : listener.routes) {
            if (route.idempotency)
                next->stores[route.index] =
                    store_client(route.settings->idempotency->store, *route.idempotency);
            if (route.settings->collapse)
                next->collapsers[route.index] = collapsers[route.settings->name] = collapser(*route.settings);
            if (route.settings->batch)
                next->batchers[route.index] = batchers[route.settings->name] = batcher(route);
            if (!route.has_policies()) continue;
            Ref<filters::RoutePolicies> kept_policies = policies_[route.settings->name];
            if (!kept_policies) kept_policies = Ref<filters::RoutePolicies>(new filters::RoutePolicies);
            kept_policies->configure(*route.settings, static_cast<unsigned>(placement_.open.size()),
                                     route.seed, route.retry_floor);
            policies[route.settings->name] = kept_policies;
            next->policies[route.index] = kept_policies;
        }
    }
    policies_ = std::move(policies);
    collapsers_ = std::move(collapsers);
    batchers_ = std::move(batchers);
    snapshot_ = next;
    // Before any worker accepts on it: another one may hand a connection over at once.
    for (const ListenerEntry& entry : snapshot->listeners) {
        auto& listener = listeners_[entry.settings->name];
        if (!listener) listener = std::make_unique<Listener>(*this, entry.settings->name);
    }
    for (auto& [name, listener] : listeners_)
        listener->configure(next);
}

idempotency::StoreClient* Worker::store_client(const std::string& name, const RouteIdempotency& route) {
    Connected& connected = stores_[name];
    if (!connected.client) {
        connected.store = route.store;
        connected.client = route.store->connect(loop_, route.store_cells[index_]);
    }
    return connected.client.get();
}

// Keys with other fields in them are not comparable: groups under way end by themselves.
Ref<Collapser> Worker::collapser(const config::RouteSettings& route) {
    const auto had = collapsers_.find(route.name);
    if (had != collapsers_.end() && had->second->vary() == route.collapse->vary) return had->second;
    return Ref<Collapser>(new Collapser(*this, route.collapse->vary));
}

// Calls under way, and members that wait for one, end under the settings they came under.
Ref<Batcher> Worker::batcher(const RouteEntry& route) {
    const auto had = batchers_.find(route.settings->name);
    if (had != batchers_.end() && had->second->settings() == *route.settings->batch) return had->second;
    return Ref<Batcher>(new Batcher(*this, *route.settings->batch, route.batch));
}

void Worker::publish_endpoints(const std::string& cluster, EndpointSet endpoints) {
    loop_.post([this, cluster, endpoints = std::move(endpoints)] {
        if (const auto it = clusters_.find(cluster); it != clusters_.end())
            it->second->set_endpoints(endpoints);
    });
}

void Worker::health_changed(const std::string& cluster) {
    loop_.post([this, cluster] {
        const auto it = clusters_.find(cluster);
        if (it == clusters_.end()) return;
        const uv::Loop::Event event(loop_);
        it->second->release_waiting();
    });
}

void Worker::listen(const std::string& name, int fd) {
    loop_.post([this, name, fd] { listeners_.at(name)->open(fd); });
}

void Worker::unlisten(const std::string& name) {
    loop_.post([this, name] {
        if (const auto it = listeners_.find(name); it != listeners_.end()) it->second->retire();
    });
}

// ---- connections ------------------------------------------------------------------------------------------------------

void Worker::on_accept(Listener& listener, int fd) {
    const std::int64_t total = placement_.total.fetch_add(1, std::memory_order_relaxed) + 1;
    const bool refused = total > placement_.max.load(std::memory_order_relaxed);
    std::array<std::int64_t, kWorkersMax> open{};
    const std::size_t count = placement_.open.size();
    for (std::size_t i = 0; i < count; ++i)
        open[i] = placement_.open[i].value.load(std::memory_order_relaxed);
    const std::size_t target =
        draining_ || stopped_ ? index_ : policy::place_connection({open.data(), count}, index_);
    placement_.open[target].value.fetch_add(1, std::memory_order_relaxed);
    if (target == index_) {
        serve(listener.name(), fd, refused);
        return;
    }
    peers_[target]->loop_.post(
        [worker = peers_[target], name = listener.name(), fd, refused] { worker->serve(name, fd, refused); });
}

void Worker::serve(const std::string& name, int fd, bool refused) {
    const auto it = listeners_.find(name);
    if (it == listeners_.end() || stopped_) {
        ::close(fd);
        placement_.open[index_].value.fetch_sub(1, std::memory_order_relaxed);
        placement_.total.fetch_sub(1, std::memory_order_relaxed);
        return;
    }
    it->second->serve(fd, refused);
}

Exchange* Worker::take_exchange() {
    if (free_exchanges_ == nullptr) return new Exchange(*this);
    Exchange* exchange = free_exchanges_;
    free_exchanges_ = exchange->next_free;
    --free_count_;
    return exchange;
}

void Worker::return_exchange(Exchange* exchange) {
    if (free_count_ >= kFreeExchangesMax) {
        delete exchange;
        return;
    }
    exchange->next_free = free_exchanges_;
    free_exchanges_ = exchange;
    ++free_count_;
}

bool Worker::hold_bytes(std::size_t bytes) {
    if (held_bytes_ + bytes > kHeldBytesMax) return false;
    held_bytes_ += bytes;
    return true;
}

void Worker::detached(Exchange& exchange) {
    exchange.detached_prev = nullptr;
    exchange.detached_next = detached_;
    if (detached_ != nullptr) detached_->detached_prev = &exchange;
    detached_ = &exchange;
}

void Worker::reattached(Exchange& exchange) {
    (exchange.detached_prev != nullptr ? exchange.detached_prev->detached_next : detached_) =
        exchange.detached_next;
    if (exchange.detached_next != nullptr) exchange.detached_next->detached_prev = exchange.detached_prev;
}

// ---- ends -------------------------------------------------------------------------------------------------------------

void Worker::drain() {
    loop_.post([this] {
        draining_ = true;
        for (auto& [name, listener] : listeners_)
            listener->retire();
    });
}

void Worker::stop(std::function<void(std::size_t)> aborted) {
    loop_.post([this, aborted = std::move(aborted)] {
        stopped_ = true;
        std::size_t count = 0;
        for (auto& [name, listener] : listeners_)
            count += listener->kill();
        close_stores();
        mirrors_.give_up_all();
        for (auto& [name, cluster] : clusters_)
            cluster->close_idle();
        aborted(count);
        // Closed handles leave the loop in its next turns; what they release is logged before the thread ends.
        loop_.after(std::chrono::milliseconds(10), [this] { loop_.stop(); });
    });
}

// What the stores were asked is not answered any more; a claim that is open becomes "unknown" when its lease is over, or with the next start.
void Worker::close_stores() {
    for (auto& [name, connected] : stores_)
        connected.client->close();
    while (detached_ != nullptr)
        detached_->drop_detached();
}

void Worker::report(std::function<void(std::vector<ClusterReport>)> done) {
    loop_.post([this, done = std::move(done)] {
        std::vector<ClusterReport> out;
        for (const auto& cluster : snapshot_->clusters) {
            ClusterReport report;
            report.name = cluster->name();
            report.pending = cluster->waiting();
            report.panic = cluster->panic();
            report.pipelined = cluster->settings().channel.mode == config::ChannelMode::kPipelined;
            for (const Ref<Endpoint>& e : cluster->all()) {
                const auto& load = cluster->load(*e);
                report.endpoints.push_back({e->address.id,
                                            load.in_flight,
                                            e->connections,
                                            e->idle_count,
                                            e->requests,
                                            e->failures,
                                            load.latency_ewma_us,
                                            0,
                                            0,
                                            0,
                                            {}});
                if (e->pipeline) cluster->report_channels(*e->pipeline, report.endpoints.back());
            }
            out.push_back(std::move(report));
        }
        done(std::move(out));
    });
}

}  // namespace outrider::proxy
