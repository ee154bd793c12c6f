// The ledger on a socket: HTTP/1.1 by base/http on one loop, with settable latency and failures.
//
// A request takes effect when it has come whole; the latency passes between the effect and the answer, as it does in
// a service whose answer is lost. Only /healthz and /control are answered at once and never fail.
//
// Beside what LedgerApi serves:
//   any  /echo, /echo/…   method, target, fields, body and trailers as they came, as JSON
//   GET  /bytes/N         N bytes with Content-Length, produced as fast as the client takes them
//   GET  /chunked/N       the same, chunked
//
// Bounds: a request's body by ServerOptions::body_bytes_max (413); requests that wait for their answer by connections
// times the pipelining limit.
#pragma once

#include <functional>
#include <memory>
#include <unordered_set>
#include <vector>

#include "base/http/server_connection.h"
#include "base/random.h"
#include "base/result.h"
#include "base/uv/acceptor.h"
#include "base/uv/loop.h"
#include "demo/ledger_api.h"

namespace outrider::demo {

class LedgerExchange;

struct ServerOptions {
    std::uint64_t body_bytes_max = 1024 * 1024;
    Duration header_timeout = std::chrono::seconds(10);
    Duration idle_timeout = std::chrono::seconds(75);  // longer than a proxy in front keeps its connections
    Duration body_idle_timeout = std::chrono::seconds(30);
    bool log_requests = true;
};

// Lives on its loop's thread, and dies after the loop has stopped and before it is destroyed.
class LedgerServer final : public http::ServerHandler {
  public:
    LedgerServer(uv::Loop& loop, LedgerApi& api, const ServerOptions& options, std::uint64_t random_seed);
    ~LedgerServer();

    // Where it listens then; port 0 lets the kernel choose.
    Result<uv::SocketAddress> listen(const uv::SocketAddress& address);

    // Stops accepting; calls `done` once every connection has ended after its answers.
    void drain(std::function<void()> done);
    // Cuts whatever is left; drain()'s `done` follows.
    void kill();

  private:
    friend class LedgerExchange;

    void accept(int fd);
    void tell_when_idle();
    http::ServerExchange* new_exchange(http::ServerConnection& connection) override;
    void release_exchange(http::ServerExchange* released) override;
    void on_connection_closed(http::ServerConnection& connection) override;
    bool draining() const { return done_ != nullptr; }

    // For the exchanges.
    bool draws_failure();
    void release_hanging();
    std::string_view date();

    uv::Loop& loop_;
    LedgerApi& api_;
    ServerOptions options_;
    http::ServerLimits limits_;
    http::ParserScratch scratch_;
    Random random_;
    uv::Acceptor* acceptor_ = nullptr;
    std::unordered_set<http::ServerConnection*> connections_;
    std::unordered_set<LedgerExchange*> hanging_;
    std::vector<std::unique_ptr<LedgerExchange>> free_exchanges_;
    std::function<void()> done_;
    std::string date_;
    std::int64_t date_second_ = -1;
};

}  // namespace outrider::demo
