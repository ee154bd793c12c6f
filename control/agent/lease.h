// A lease that is kept: granted, renewed at a third of its time to live, and given back. The shell of lease_keeper.h, which says
// until when it may be believed.
//
// The id is ours, 63 random bits, so that a grant may be sent twice: "already exists" means that an earlier copy of it took
// effect.
//
// Invariants
//   * on_held() comes at most once, on_lost() at most once and last: when the server says so, or when expires() is reached by the
//     loop's clock, or when the server will never grant it. Then it is over, and whoever needs a lease makes another
//   * between the two held() holds, and the cluster does not let the lease expire before expires()
//   * callbacks come from the loop; they may destroy the lease; none after release() and the destructor
//   * the client outlives it. Destroyed, it is left to expire; release() gives it back
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "control/agent/client.h"
#include "control/agent/lease_keeper.h"
#include "control/store/types.h"

namespace outrider::agent {

struct LeaseOptions {
    std::int64_t ttl_seconds = 10;  // etcd's least is about 1.5 election timeouts; the server's word counts
};

class Lease final : private Timer {
  public:
    using OnHeld = std::function<void()>;
    using OnLost = std::function<void(const std::string& reason)>;

    Lease(Client& client, LeaseOptions options, OnHeld on_held, OnLost on_lost);
    ~Lease() override;

    store::LeaseId id() const { return id_; }
    bool held() const { return keeper_.has_value(); }
    Instant expires() const { return keeper_ ? keeper_->expires() : Instant::min(); }
    std::uint64_t renewals() const { return renewals_; }
    // Gives it back: its keys go at once. `done` with whether the cluster said so; it outlives this object.
    void release(std::function<void(bool)> done = {});

  private:
    void choose_id();
    void grant();
    void on_granted(Instant sent, const Reply<v3::LeaseGrantResponse>& reply);
    void renew();
    void on_renewed(Instant sent, const Reply<v3::LeaseKeepAliveResponse>& reply);
    void begin(Instant sent, Duration ttl);
    void rest(const std::string& reason);
    void forget(CallId id);
    void lose(const std::string& reason);
    void arm();
    void stop();
    void on_timeout(Instant now) override;

    Client& client_;
    const LeaseOptions options_;
    OnHeld on_held_;
    OnLost on_lost_;
    store::LeaseId id_;
    std::optional<LeaseKeeper> keeper_;
    Backoff backoff_;
    std::vector<CallId> calls_;
    std::string last_reason_;
    bool exists_ = false;  // granted, but with an answer that was lost: a renewal tells its time
    std::uint64_t renewals_ = 0;
};

}  // namespace outrider::agent
