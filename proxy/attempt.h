// One try of an exchange at one endpoint: a connection, the request on it, its response's head.
//
// An exchange has one, and a second one beside it while it hedges. The exchange decides what an outcome means; the attempt
// counts it, tells the endpoint's health, and ends.
//
// Invariants:
//   * active() from start() until the response ended whole, it failed, or it was given up; each ends with exactly one count
//   * per_try_timeout runs from the connecting, and again from the request's end, until the response's head
#pragma once

#include "base/http/client_connection.h"
#include "base/timer_wheel.h"
#include "proxy/upstream.h"

namespace outrider::proxy {

class Exchange;

class Attempt final : private http::ClientHandler, private Timer {
  public:
    explicit Attempt(Exchange& exchange) : exchange_(exchange) {}

    struct Options {
        http::ClientConnection::RequestOptions request;
        Duration per_try_timeout{};           // 0 = none
        Duration idle_max = Duration::max();  // of a kept connection; 0 = none
        bool may_ride = false;                // on a pipelined connection: whole, small, and safe to repeat
        policy::ChannelDepth::Class cls = 0;
    };
    // The exchange hears attempt_ready() at once, or when the connection stands.
    void start(const Ref<WorkerCluster>& cluster, const Ref<Endpoint>& endpoint, const Options& options);

    bool active() const { return upstream_ != nullptr || channel_ != nullptr; }
    bool head_sent() const { return head_sent_; }
    PooledConnection& stream() {
        return *upstream_;
    }  // of a tunnel, or a body that is still coming: these do not ride

    // The request, to either kind of connection; TcpStream's names.
    char* reserve(std::size_t size);
    void commit(std::size_t size);
    void write_copy(std::string_view data);
    void write_stable(std::string_view data);
    void request_begun();
    void request_finished();
    // The response.
    void pause_response();
    void resume_response();
    std::size_t request_room() const;

    void sending() { head_sent_ = true; }  // the request's head is being written
    void request_sent();                   // whole: from here on the endpoint is the one that is waited for
    const Ref<Endpoint>& endpoint() const { return endpoint_; }
    Instant began() const { return began_; }

    // The response ended whole. The connection is the pool's again.
    void succeeded();
    // Lets go of an attempt that runs. `outcome`: what it counts as.
    void give_up(Counter* outcome, bool failed);
    // The answer's status, as the endpoint's health sees it. Once, with its head. A good one counts when the attempt ends:
    // the answer may still break off.
    void judge_status(int status);
    // For the pool of exchanges.
    void clear();

  private:
    void on_connected() override;
    void on_response_head(http::ResponseHead& head) override;
    void on_response_body(std::span<const std::string_view> slices) override;
    void on_response_end(std::span<const http::Field> trailers) override;
    void on_failed(const http::ClientFailure& failure) override;
    void on_request_blocked() override;
    void on_request_drained() override;
    std::size_t response_room() override;
    void on_timeout(Instant now) override;
    void end(Counter* outcome, bool failed);
    bool ride(const Options& options);

    Exchange& exchange_;
    Ref<WorkerCluster> cluster_;
    Ref<Endpoint> endpoint_;
    PooledConnection* upstream_ = nullptr;  // or
    UpstreamChannel* channel_ = nullptr;
    http::PipelinedConnection::Id ride_ = 0;
    std::size_t reserved_at_ = 0;  // in the channel's outgoing()
    Instant sent_at_{};
    Instant began_{};
    Duration per_try_timeout_{};
    Duration latency_{-1};  // until the response's head
    bool head_sent_ = false;
    bool good_head_ = false;
    bool could_ride_ = false;  // and took a connection of its own
    bool was_paused_ = false;
    policy::ChannelDepth::Class cls_ = 0;
};

}  // namespace outrider::proxy
