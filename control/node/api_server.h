// The client's side of a node: etcd v3's JSON API (control/api) on HTTP/1.1, and /health /ready /live /version /metrics.
//
// Every connection's requests are answered in order; what a request waits for is the node's (Node, Request). Streams (watch, lease
// keepalive) are ordinary requests whose answer goes on: one JSON object a line.
//
// Bounds: connections (one above is answered 503), bodies (control/api/requests.h), requests that wait (RequestTable), watchers
// (WatchHub). A watch whose client does not read costs one batch and its place in history; when nothing has left for
// kSlowReader its connection is cut. A client that hangs up while it is written to is one that has gone.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/http/server_connection.h"
#include "base/metrics.h"
#include "base/result.h"
#include "base/uv/acceptor.h"
#include "config/settings.h"
#include "control/api/responses.h"
#include "control/node/node.h"

namespace outrider::node {

inline constexpr Duration kSlowReader = std::chrono::seconds(30);

class ApiCall;

// Of all requests that are being received or wait for their answers: a slow client, or a cluster without a leader, must not take
// the memory of the node.
inline constexpr std::uint64_t kHeldBytesMax = std::uint64_t{256} << 20;
// Who holds no more than this is never refused for what others hold: keepalives and most writes.
inline constexpr std::uint64_t kHeldBytesFree = std::uint64_t{64} << 10;

class ApiServer final : private WatchSink {
  public:
    ApiServer(uv::Loop& loop, Node& node, Registry& metrics, std::uint32_t connections_max);
    ~ApiServer();
    ApiServer(const ApiServer&) = delete;
    ApiServer& operator=(const ApiServer&) = delete;

    // `pages_only`: no API, for [admin] listen.
    Result<void> listen(const config::HostPort& address, const char* key, bool pages_only);
    std::string address_text() const;

    // No new connections; what is being answered is, streams end. `done` when all are closed.
    void drain(std::function<void()> done);
    // At once.
    void kill();

    // ---- for its calls ----
    Node& node() { return node_; }
    api::Responder responder() const;
    Registry& metrics() { return metrics_; }
    void count(int status) { answers_.add(status); }
    // Nothing: there are too many.
    std::optional<store::WatchId> add_watch(ApiCall& call, std::int64_t watch_id,
                                            store::WatchRequest request);
    void remove_watch(store::WatchId id);
    bool draining() const { return draining_; }
    // Ended in good order when the server stops.
    void add_stream(ApiCall& call) { streams_.insert(&call); }
    void remove_stream(ApiCall& call) { streams_.erase(&call); }
    // The text of a batch; the last one made is kept, since many watch the same.
    const std::string& batch_text(std::int64_t watch_id, const store::WatchBatch& batch);
    // A call holds so many bytes of its request now, and held `before`. False: all together hold too many, and this one many.
    bool hold(std::uint64_t before, std::uint64_t now) {
        held_bytes_ += now - before;
        return held_bytes_ <= kHeldBytesMax || now <= kHeldBytesFree;
    }
    std::size_t connections() const;
    std::vector<api::Member> members() const;

  private:
    class Port;
    friend class Port;
    struct Watch {
        ApiCall* call;
        std::int64_t watch_id;
    };

    bool on_watch(store::WatchId id) override;
    void connection_gone();

    uv::Loop& loop_;
    Node& node_;
    Registry& metrics_;
    StatusCounters& answers_;
    const std::uint32_t connections_max_;
    http::ParserScratch scratch_;
    std::vector<std::unique_ptr<Port>> ports_;
    std::unordered_map<std::uint64_t, Watch> watches_;  // by the hub's id
    std::unordered_set<ApiCall*> streams_;
    std::uint64_t held_bytes_ = 0;
    bool draining_ = false;
    std::function<void()> drained_;

    std::string batch_text_;
    std::int64_t batch_watch_id_ = 0;
    store::WatchBatch batch_;
    std::uint64_t batch_applied_ = 0;  // records of the batch were valid then
};

}  // namespace outrider::node
