#include "control/node/api_server.h"

#include <algorithm>
#include <utility>

#include <unistd.h>

#include "base/log.h"
#include "control/node/api_call.h"
#include "control/node/identity.h"

namespace outrider::node {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kPagesConnectionsMax = 256;

}  // namespace

// ---- connections ----------------------------------------------------------------------------------------------------

class ApiServer::Port final : public http::ServerHandler {
  public:
    Port(ApiServer& server, int fd, bool pages_only) : server_(server), pages_only_(pages_only) {
        limits_.header_timeout = 10s;
        limits_.idle_timeout = pages_only ? 60s : 300s;
        limits_.body_idle_timeout = kSlowReader;
        limits_.read_rate_min = 0;  // a watch may rest; what does not leave at all for kSlowReader is cut
        limits_.pipelined_max = 64;
        limits_.parser.body_bytes_max = 0;  // streams have no end; calls look at their own
        acceptor_ = new uv::Acceptor(server.loop_, fd, [this](int accepted) { serve(accepted); });
    }
    ~Port() { stop_listening(); }

    uv::SocketAddress address() const { return acceptor_->address(); }
    std::size_t size() const { return connections_.size(); }

    void stop_listening() {
        if (acceptor_ != nullptr) uv::Acceptor::close(std::exchange(acceptor_, nullptr));
    }
    void drain() {
        stop_listening();
        for (http::ServerConnection* connection : std::vector<http::ServerConnection*>(connections_))
            connection->drain();
    }
    void kill() {
        stop_listening();
        for (http::ServerConnection* connection : std::vector<http::ServerConnection*>(connections_))
            connection->kill(http::ServerExchange::AbortReason::kShutdown);
    }

  private:
    void serve(int fd) {
        const std::size_t most = pages_only_ ? kPagesConnectionsMax : server_.connections_max_;
        auto* connection = new http::ServerConnection(server_.loop_, *this, limits_, server_.scratch_);
        connections_.push_back(connection);
        const uv::Loop::Event event(server_.loop_);
        if (!connection->start(fd)) {
            connection->close();
            return;
        }
        if (connections_.size() > most) connection->refuse(503, "too many connections");
        if (server_.draining_) connection->drain();
    }
    http::ServerExchange* new_exchange(http::ServerConnection&) override {
        return new ApiCall(server_, pages_only_);
    }
    void release_exchange(http::ServerExchange* exchange) override {
        auto* call = static_cast<ApiCall*>(exchange);
        server_.count(call->response_status());
        delete call;
    }
    void on_connection_closed(http::ServerConnection& connection) override {
        std::erase(connections_, &connection);
        delete &connection;
        server_.connection_gone();
    }

    ApiServer& server_;
    const bool pages_only_;
    http::ServerLimits limits_;
    uv::Acceptor* acceptor_ = nullptr;
    std::vector<http::ServerConnection*> connections_;
};

ApiServer::ApiServer(uv::Loop& loop, Node& node, Registry& metrics, std::uint32_t connections_max)
    : loop_(loop),
      node_(node),
      metrics_(metrics),
      answers_(metrics.status_counters("control_requests_total", "Answers to clients of the API").at({}, 0)),
      connections_max_(connections_max) {
    node_.set_watch_sink(this);
}

ApiServer::~ApiServer() {
    node_.set_watch_sink(nullptr);
}

Result<void> ApiServer::listen(const config::HostPort& address, const char* key, bool pages_only) {
    const auto at = uv::SocketAddress::to_listen(address.host, address.port);
    if (!at) return Error{std::string(key) + ": " + at.error()};
    const auto fd = uv::open_listening_socket(*at, false);
    if (!fd) return Error{std::string(key) + ": " + fd.error()};
    ports_.push_back(std::make_unique<Port>(*this, *fd, pages_only));
    return {};
}

std::string ApiServer::address_text() const {
    return ports_.front()->address().text();
}

std::size_t ApiServer::connections() const {
    std::size_t all = 0;
    for (const auto& port : ports_)
        all += port->size();
    return all;
}

void ApiServer::drain(std::function<void()> done) {
    draining_ = true;
    drained_ = std::move(done);
    for (ApiCall* call : std::vector<ApiCall*>(streams_.begin(), streams_.end()))
        call->end_stream();
    for (auto& port : ports_)
        port->drain();
    connection_gone();
}

void ApiServer::kill() {
    draining_ = true;
    for (auto& port : ports_)
        port->kill();
}

void ApiServer::connection_gone() {
    if (draining_ && connections() == 0 && drained_) std::exchange(drained_, nullptr)();
}

api::Responder ApiServer::responder() const {
    return api::Responder(
        {node_.identity().cluster_id, node_.identity().node.value, node_.core().term().value});
}

std::vector<api::Member> ApiServer::members() const {
    std::vector<api::Member> out;
    for (const raft::Member& member : node_.members().members) {
        const MemberAddress address = parse_member_address(member.address);
        const bool own = member.id == node_.identity().node;
        if (own && node_.left()) continue;  // in a configuration that it is not sent any more
        const Peers::Status known = node_.peers().status(member.id);
        api::Member one;
        one.id = member.id.value;
        one.name = own ? node_.identity().name : known.api_address.empty() ? address.name : known.name;
        one.peer_urls.push_back("http://" + address.peer);
        const std::string& client = own ? node_.peers().self().api_address : known.api_address;
        if (!client.empty()) one.client_urls.push_back("http://" + client);
        one.learner = !member.voter;
        out.push_back(std::move(one));
    }
    return out;
}

// ---- watches --------------------------------------------------------------------------------------------------------

std::optional<store::WatchId> ApiServer::add_watch(ApiCall& call, std::int64_t watch_id,
                                                   store::WatchRequest request) {
    const auto id = node_.watches().add(node_.store(), std::move(request));
    if (id) watches_.emplace(id->value, Watch{&call, watch_id});
    node_.schedule_turn();
    return id;
}

void ApiServer::remove_watch(store::WatchId id) {
    watches_.erase(id.value);
    node_.watches().remove(id);
}

bool ApiServer::on_watch(store::WatchId id) {
    const auto it = watches_.find(id.value);
    if (it == watches_.end()) return true;
    const Watch watch = it->second;
    if (!watch.call->may_write()) {
        watch.call->stall(id);
        return false;
    }
    const store::WatchBatch batch = node_.watches().poll(node_.store(), id);
    if (batch.kind == store::WatchBatch::Kind::kCancelled) watches_.erase(it);
    watch.call->on_batch(watch.watch_id, id, batch);
    return true;
}

const std::string& ApiServer::batch_text(std::int64_t watch_id, const store::WatchBatch& batch) {
    const auto same_events = [&] {
        return std::equal(
            batch.events.begin(), batch.events.end(), batch_.events.begin(), batch_.events.end(),
            [](const auto& a, const auto& b) { return a.record == b.record && a.prev == b.prev; });
    };
    const std::uint64_t applied = node_.store().applied_index();
    const bool same = batch_applied_ == applied && batch_watch_id_ == watch_id && batch_.kind == batch.kind &&
                      batch.kind == store::WatchBatch::Kind::kEvents && batch_.revision == batch.revision &&
                      batch_.fragment == batch.fragment && same_events();
    if (!same) {
        batch_text_ = responder().watch_batch(watch_id, batch);
        batch_watch_id_ = watch_id;
        batch_ = batch;
        batch_applied_ = applied;
    }
    return batch_text_;
}

}  // namespace outrider::node
