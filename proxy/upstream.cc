#include "proxy/upstream.h"

#include <string_view>
#include <unordered_map>

#include "base/bytes.h"
#include "base/check.h"
#include "base/http/kept_head.h"

namespace outrider::proxy {

namespace {
// An upstream's head may be larger than what we take from clients, but not without end.
constexpr std::size_t kResponseHeadMax = 256 * 1024;
constexpr std::uint32_t kResponseFieldsMax = http::kKeptFieldsMax;  // what is accepted can be recorded

policy::BalancerKind kind_of(config::Balance balance) {
    switch (balance) {
        case config::Balance::kRoundRobin:
            return policy::BalancerKind::kRoundRobin;
        case config::Balance::kLeastRequest:
            return policy::BalancerKind::kLeastRequest;
        case config::Balance::kRingHash:
            return policy::BalancerKind::kRingHash;
        case config::Balance::kMaglev:
            return policy::BalancerKind::kMaglev;
    }
    return policy::BalancerKind::kLeastRequest;
}

// Over all workers. What others count meanwhile may make it one too many for each of them.
std::int64_t sum(const std::vector<const Gauge*>& gauges) {
    std::int64_t total = 0;
    for (const Gauge* gauge : gauges)
        total += gauge->value();
    return total;
}
}  // namespace

WorkerCluster::WorkerCluster(uv::Loop& loop, http::ParserScratch& scratch, Random& random, std::string name)
    : loop_(loop), scratch_(scratch), random_(random), name_(std::move(name)) {
    limits_.head_bytes_max = kResponseHeadMax;
    limits_.fields_max = kResponseFieldsMax;
}

void WorkerCluster::configure(const ClusterEntry& entry, unsigned worker) {
    const bool rebuild = entry.settings->balance != settings_.balance || !balancer_;
    settings_ = *entry.settings;
    cells_ = entry.cells[worker];
    health_ = entry.health;
    health_seen_ = 0;
    in_flight_.clear();
    pending_.clear();
    for (const ClusterCells& cells : entry.cells) {
        in_flight_.push_back(cells.in_flight);
        pending_.push_back(cells.pending);
    }
    const std::uint32_t max = settings_.limits.max_connections;
    connections_max_ = max == 0 ? 0 : std::max(1U, max / static_cast<std::uint32_t>(entry.cells.size()));
    retired_ = false;
    if (settings_.channel.mode != config::ChannelMode::kPipelined) {
        for (const Ref<Endpoint>& e : list_)
            retire_channels(*e);
    }
    if (rebuild) rebuild_balancer();
    if (first_waiting_ != nullptr) loop_.schedule(*this, Duration(0));
}

void WorkerCluster::set_endpoints(const EndpointSet& set) {
    set_ = set;
    std::vector<Ref<Endpoint>> old;
    old.swap(list_);
    std::vector<policy::EndpointLoad> old_loads;
    old_loads.swap(loads_);
    std::unordered_multimap<std::string_view, std::size_t> known(
        old.size());  // a twin is an endpoint of its own
    for (std::size_t i = old.size(); i-- != 0;)
        known.emplace(old[i]->address.id, i);
    for (const EndpointAddress& address : *set) {
        Ref<Endpoint> endpoint;
        if (const auto it = known.find(address.id); it != known.end()) {
            endpoint = std::move(old[it->second]);
            old[it->second].reset();
            known.erase(it);  // before its key goes with the old address
        }
        loads_.push_back(endpoint ? old_loads[endpoint->index] : policy::EndpointLoad{});
        if (!endpoint) endpoint = Ref<Endpoint>(new Endpoint);
        endpoint->address = address;
        endpoint->index = list_.size();
        list_.push_back(std::move(endpoint));
    }
    for (const Ref<Endpoint>& gone : old) {
        if (!gone) continue;
        gone->index = Endpoint::kRemoved;
        while (gone->idle != nullptr)
            gone->idle->abandon();
        retire_channels(*gone);
    }
    health_seen_ = 0;
    rebuild_balancer();
    if (first_waiting_ != nullptr) loop_.schedule(*this, Duration(0));
}

void WorkerCluster::rebuild_balancer() {
    std::vector<policy::BalancerEndpoint> endpoints;
    for (const Ref<Endpoint>& e : list_)
        endpoints.push_back({e->address.id, e->address.weight});
    balancer_ = policy::make_balancer(kind_of(settings_.balance), endpoints);
}

void WorkerCluster::refresh_usable() {
    health_seen_ = health_->version();
    usable_.assign((list_.size() + 63) / 64, 0);
    usable_count_ = 0;
    for (std::size_t i = 0; i < list_.size(); ++i) {
        const auto& health = list_[i]->address.health;
        if (health && !health->usable()) continue;
        usable_[i / 64] |= std::uint64_t{1} << (i % 64);
        ++usable_count_;
    }
    panic_ = policy::panic(usable_count_, list_.size(), settings_.panic_percent);
    if (panic_) usable_count_ = list_.size();
}

Ref<Endpoint> WorkerCluster::pick(std::uint64_t hash, const Endpoint* avoid) {
    if (list_.empty()) return {};
    if (health_seen_ != health_->version()) [[unlikely]]
        refresh_usable();
    if (usable_count_ == 0) return {};
    const bool all = usable_count_ == list_.size();
    if (avoid != nullptr && avoid->index != Endpoint::kRemoved && usable_count_ > 1) {
        const auto other = [&](std::size_t i) {
            return i != avoid->index && (all || (usable_[i / 64] >> (i % 64) & 1) != 0);
        };
        const auto index = balancer_->pick(hash, loads_, policy::Usable(other), random_);
        if (index) return list_[*index];
    }
    if (list_.size() == 1) return list_.front();
    const auto index = balancer_->pick(
        hash, loads_, all ? policy::Usable::all() : policy::Usable::bitmap(usable_.data()), random_);
    return index ? list_[*index] : Ref<Endpoint>();
}

bool WorkerCluster::connection_available() const {
    return connections_max_ == 0 || open_ < connections_max_ || total_idle_ > 0;
}

Admission WorkerCluster::admit(std::uint64_t hash, const Endpoint* avoid, Ref<Endpoint>& endpoint) {
    endpoint = pick(hash, avoid);
    if (!endpoint) return Admission::kNoEndpoint;
    const std::uint32_t requests_max = settings_.limits.max_requests;
    if (requests_max != 0 && sum(in_flight_) >= requests_max) return Admission::kRequestsBusy;
    if (connections_max_ == 0 || endpoint->idle != nullptr || open_ < connections_max_)
        return Admission::kYes;
    if (total_idle_ == 0) return Admission::kConnectionsBusy;
    close_oldest_idle(*endpoint);  // another endpoint's, which this one needs more now
    return Admission::kYes;
}

void WorkerCluster::close_oldest_idle(const Endpoint& but) {
    http::ClientConnection* oldest = nullptr;
    for (const Ref<Endpoint>& e : list_) {
        if (e.get() == &but) continue;
        http::ClientConnection* last = e->idle;
        while (last != nullptr && last->list_next != nullptr)
            last = last->list_next;
        if (last != nullptr && (oldest == nullptr || last->idle_since() < oldest->idle_since()))
            oldest = last;
    }
    if (oldest != nullptr) oldest->abandon();
}

bool WorkerCluster::wait(Waiter& waiter, Admission why) {
    const std::uint32_t max = settings_.limits.max_pending;
    if (max != 0 && sum(pending_) >= max) return false;
    waiter.previous_ = last_waiting_;
    waiter.next_ = nullptr;
    waiter.waiting_ = true;
    waiter.for_connection_ = why == Admission::kConnectionsBusy;
    if (waiter.for_connection_) ++waiting_for_connection_;
    (last_waiting_ != nullptr ? last_waiting_->next_ : first_waiting_) = &waiter;
    last_waiting_ = &waiter;
    ++waiting_count_;
    cells_.pending->add(1);
    return true;
}

void WorkerCluster::stop_waiting(Waiter& waiter) {
    if (!waiter.waiting_) return;
    (waiter.previous_ != nullptr ? waiter.previous_->next_ : first_waiting_) = waiter.next_;
    (waiter.next_ != nullptr ? waiter.next_->previous_ : last_waiting_) = waiter.previous_;
    waiter.previous_ = waiter.next_ = nullptr;
    waiter.waiting_ = false;
    --waiting_count_;
    if (waiter.for_connection_) --waiting_for_connection_;
    cells_.pending->add(-1);
}

bool WorkerCluster::no_endpoint() {
    if (list_.empty()) return true;
    if (health_seen_ != health_->version()) refresh_usable();
    return usable_count_ == 0;
}

void WorkerCluster::release_waiting() {
    const Ref<WorkerCluster> self(this);
    // Then all come back to the list in their order, or are refused; the next time there is nobody left to tell.
    const bool tell = waiting_for_connection_ != 0 && no_endpoint();
    // Who goes on may come back to the end of the list: nobody is looked at twice.
    for (std::size_t left = waiting_count_; left != 0 && first_waiting_ != nullptr; --left) {
        if (!tell && (no_endpoint() || !connection_available())) return;
        Waiter& waiter = *first_waiting_;
        stop_waiting(waiter);
        waiter.on_may_start();
    }
}

void WorkerCluster::on_timeout(Instant) {
    const uv::Loop::Event event(loop_);
    release_waiting();
}

PooledConnection& WorkerCluster::connection(const Ref<Endpoint>& endpoint, Duration idle_max) {
    if (endpoint->idle != nullptr && idle_max != Duration(0) &&
        (idle_max == Duration::max() || loop_.now() - endpoint->idle->idle_since() <= idle_max)) {
        auto& connection = static_cast<PooledConnection&>(*endpoint->idle);
        unlink(*endpoint, connection);
        return connection;
    }
    // A fresh one, admitted on the strength of an idle one: that one goes.
    if (connections_max_ != 0 && open_ >= connections_max_ && endpoint->idle != nullptr)
        endpoint->idle->abandon();
    auto* connection = new PooledConnection(loop_, *this, limits_, scratch_);
    connection->endpoint = endpoint;
    connection->cluster = Ref<WorkerCluster>(this);
    connection->set_idle_timeout(settings_.idle_timeout);
    ++endpoint->connections;
    ++open_;
    cells_.connections->add(1);
    connection->open(endpoint->address.address, settings_.connect_timeout);
    return *connection;
}

void WorkerCluster::begin(Endpoint& endpoint) {
    ++endpoint.requests;
    cells_.in_flight->add(1);
    if (endpoint.index != Endpoint::kRemoved) ++loads_[endpoint.index].in_flight;
}

void WorkerCluster::end(Endpoint& endpoint, Duration latency, Instant now, bool failed) {
    cells_.in_flight->add(-1);
    if (failed) ++endpoint.failures;
    if (endpoint.index == Endpoint::kRemoved) return;
    auto& load = loads_[endpoint.index];
    if (load.in_flight > 0) --load.in_flight;
    if (first_waiting_ != nullptr && settings_.limits.max_requests != 0) [[unlikely]]
        release_soon();
    // With one endpoint there is nothing to compare.
    if (latency >= Duration(0) && list_.size() > 1) {
        load.latency_ewma_us = policy::ewma_update(
            load.latency_ewma_us, static_cast<double>(latency.count()) / 1000.0, now - endpoint.last_sample);
        endpoint.last_sample = now;
    }
}

void WorkerCluster::overtaken(Endpoint& endpoint, Duration elapsed, Instant now) {
    if (endpoint.index == Endpoint::kRemoved) return;
    auto& load = loads_[endpoint.index];
    load.latency_ewma_us =
        policy::ewma_overtaken(load.latency_ewma_us, static_cast<double>(elapsed.count()) / 1000.0);
    endpoint.last_sample = now;
}

void WorkerCluster::close_idle() {
    for (const Ref<Endpoint>& e : list_) {
        while (e->idle != nullptr)
            e->idle->abandon();
        retire_channels(*e);
    }
}

void WorkerCluster::unlink(Endpoint& endpoint, http::ClientConnection& connection) {
    if (connection.list_prev != nullptr) {
        connection.list_prev->list_next = connection.list_next;
    } else if (endpoint.idle == &connection) {
        endpoint.idle = connection.list_next;
    } else {
        return;  // not idle
    }
    if (connection.list_next != nullptr) connection.list_next->list_prev = connection.list_prev;
    connection.list_prev = connection.list_next = nullptr;
    --endpoint.idle_count;
    --total_idle_;
}

void WorkerCluster::on_connection_idle(http::ClientConnection& connection) {
    Endpoint& endpoint = *static_cast<PooledConnection&>(connection).endpoint;
    if (retired_ || endpoint.index == Endpoint::kRemoved) {
        connection.abandon();
        return;
    }
    connection.list_prev = nullptr;
    connection.list_next = endpoint.idle;
    if (endpoint.idle != nullptr) endpoint.idle->list_prev = &connection;
    endpoint.idle = &connection;
    ++endpoint.idle_count;
    ++total_idle_;
    if (first_waiting_ != nullptr) [[unlikely]]
        release_waiting();
}

void WorkerCluster::on_connection_gone(http::ClientConnection& connection) {
    Endpoint& endpoint = *static_cast<PooledConnection&>(connection).endpoint;
    unlink(endpoint, connection);
    --endpoint.connections;
    --open_;
    cells_.connections->add(-1);
    // Not from within the end of another exchange's connection.
    if (first_waiting_ != nullptr) [[unlikely]]
        loop_.schedule(*this, Duration(0));
}

void WorkerCluster::on_connection_closed(http::ClientConnection& connection) {
    delete static_cast<PooledConnection*>(&connection);
}

namespace {

std::string_view cookie_value(const http::RequestHead& request, std::string_view name) {
    for (const http::FieldRef& f : request.all()) {
        if (f.id != http::FieldId::kCookie) continue;
        std::string_view rest = request.value(f);
        while (!rest.empty()) {
            const std::size_t end = rest.find(';');
            const std::string_view pair = trim_ows(rest.substr(0, end));
            const std::size_t equals = pair.find('=');
            if (equals != std::string_view::npos && pair.substr(0, equals) == name)
                return pair.substr(equals + 1);
            if (end == std::string_view::npos) break;
            rest.remove_prefix(end + 1);
        }
    }
    return {};
}

}  // namespace

std::uint64_t request_hash(const config::HashKey& key, const http::RequestHead& request,
                           std::string_view peer_ip) {
    std::string_view value;
    switch (key.kind) {
        case config::HashKey::Kind::kHeader:
            value = request.value_of(key.name);
            break;
        case config::HashKey::Kind::kQuery:
            value = http::query_value(request.query(), key.name).value_or("");
            break;
        case config::HashKey::Kind::kCookie:
            value = cookie_value(request, key.name);
            break;
        case config::HashKey::Kind::kPath:
            value = request.path();
            break;
        case config::HashKey::Kind::kSource:
            value = peer_ip;
            break;
    }
    return value.empty() ? 0 : policy::key_hash(value);
}

}  // namespace outrider::proxy
