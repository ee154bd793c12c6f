// A copy of a request to a shadow cluster. Its answer is read and thrown away; nothing of it can reach or delay the client.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/http/client_connection.h"
#include "proxy/upstream.h"

namespace outrider::proxy {

class Mirror;

// A worker's copies that are under way: how many there may be, and what must end with the worker.
class Mirrors {
  public:
    // A shadow that hangs holds a connection for each copy; above this copies are left out and counted as canceled.
    static constexpr std::uint32_t kMax = 256;
    bool full() const { return count_ >= kMax; }
    // Gives up those whose exchange is over. Exchanges end first.
    void give_up_all();

  private:
    friend class Mirror;
    Mirror* first_ = nullptr;
    std::uint32_t count_ = 0;
};

// Lives on its own after finish(): the client's exchange may end long before.
class Mirror final : private http::ClientHandler, private Timer {
  public:
    // What the shadow does not take at once is held up to this; a shadow that is further behind is given up.
    static constexpr std::size_t kHeldMax = 64 * 1024;

    // Starts sending, for at most `time`; null when the cluster has no endpoint or `mirrors` are full. The caller owns it until finish() or drop().
    static Mirror* start(Mirrors& mirrors, const Ref<WorkerCluster>& cluster, std::uint64_t hash,
                         std::string head, bool head_method, bool chunked, Duration time);
    void body(std::span<const std::string_view> slices);
    // The request is complete: the mirror deletes itself when the shadow has answered or failed.
    void finish();
    // The request broke off.
    void drop();

  private:
    friend class Mirrors;
    Mirror(Mirrors& mirrors, const Ref<WorkerCluster>& cluster, const Ref<Endpoint>& endpoint, bool chunked);
    ~Mirror();

    void on_connected() override;
    void on_response_head(http::ResponseHead&) override {}
    void on_response_body(std::span<const std::string_view>) override {}
    void on_response_end(std::span<const http::Field>) override;
    void on_failed(const http::ClientFailure&) override;
    void on_timeout(Instant now) override;

    void write(std::string_view data);
    void give_up();
    void over();

    Mirrors& mirrors_;
    Mirror* next_ = nullptr;
    Mirror* previous_ = nullptr;
    Ref<WorkerCluster> cluster_;
    Ref<Endpoint> endpoint_;
    PooledConnection* upstream_ = nullptr;
    std::string held_;
    bool chunked_ = false;
    bool complete_ = false;
    bool owned_ = true;
};

}  // namespace outrider::proxy
