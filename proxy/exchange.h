// One request through the proxy: routed, filtered, sent to an endpoint, its answer sent back.
//
// The meeting point of the two connections: it hears the client's side as a ServerExchange and the upstream's as a
// ClientHandler. Pooled by its worker.
//
// Invariants:
//   * at most one attempt is bound at a time; its connection is abandoned unless the response ended whole
//   * body bytes in either direction are written at once or their source is paused
//   * every exchange ends in exactly one access-log line and one count
#pragma once

#include <memory>
#include <string>

#include "base/arena.h"
#include "base/http/client_connection.h"
#include "base/http/server_connection.h"
#include "filters/filter.h"
#include "proxy/problem.h"
#include "proxy/upstream.h"

namespace outrider::proxy {

class Worker;
class Mirror;
struct WorkerSnapshot;

class Exchange final : public http::ServerExchange, private http::ClientHandler, private Timer {
  public:
    explicit Exchange(Worker& worker) : worker_(worker) {}

    // `listener` is of `snapshot`.
    void begin(const Ref<WorkerSnapshot>& snapshot, const ListenerEntry& listener);
    // Logs, counts, and makes ready for the pool.
    void end();

    Exchange* next_free = nullptr;

  private:
    // The client's side.
    void on_request() override;
    void on_request_body(std::span<const std::string_view> slices) override;
    void on_request_end(std::span<const http::Field> trailers) override;
    void on_bad_request(int status, const char* reason) override;
    void on_aborted(AbortReason reason) override;
    void on_response_blocked() override;
    void on_response_drained() override;
    std::size_t request_room() override;

    // The upstream's side.
    void on_connected() override;
    void on_response_head(http::ResponseHead& head) override;
    void on_response_body(std::span<const std::string_view> slices) override;
    void on_response_end(std::span<const http::Field> trailers) override;
    void on_failed(const http::ClientFailure& failure) override;
    void on_request_blocked() override;
    void on_request_drained() override;
    std::size_t response_room() override { return ServerExchange::response_room(); }

    void on_timeout(Instant now) override;

    void prepare_context();
    void choose_cluster();
    void start_attempt(bool fresh);
    void send_request();
    void write_upstream_head(http::HeadWriter& head);
    bool has_empty_body() const;
    std::string_view endpoint_id_for_host() const;
    void write_upstream_body(std::span<const std::string_view> slices, bool stable);
    void finish_upstream_request(std::span<const http::Field> trailers);
    void forward_informational(http::ResponseHead& head);
    void open_tunnel(http::ResponseHead& head);
    void end_attempt(Counter* outcome, bool failed);
    bool may_try_again(const http::ClientFailure& failure) const;
    void fail(Failure failure, std::string_view detail = {});
    void answer_problem(const Problem& problem, int status, std::string_view detail);
    void answer_locally(const filters::LocalResponse& response);
    void send_own(int status, std::string_view body);
    const RouteCells& cells() const;
    void clear();

    Worker& worker_;
    Ref<WorkerSnapshot> snapshot_;
    const ListenerEntry* listener_ = nullptr;
    const RouteEntry* route_ = nullptr;
    std::uint32_t choice_ = 0;
    filters::Context context_;
    Arena arena_;

    Ref<WorkerCluster> cluster_;
    Ref<Endpoint> endpoint_;
    PooledConnection* upstream_ = nullptr;
    Mirror* mirror_ = nullptr;  // while the request is being sent
    std::string held_body_;     // body bytes that came before the upstream was connected
    std::vector<http::Field> held_trailers_;
    Instant attempt_began_{};
    Duration upstream_time_{-1};  // until the response's head
    std::uint64_t key_hash_ = 0;
    std::uint32_t attempts_ = 0;
    bool head_sent_ = false;  // to the upstream
};

}  // namespace outrider::proxy
