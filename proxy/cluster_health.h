// What the whole process knows of a cluster's endpoints: active verdicts and passive ejection.
//
// The one thing that workers share and change (apart from the connection counts): an endpoint that fails must be out for all
// of them after `consecutive_failures`, not after that many for each worker. What an exchange does here is a load of an atomic
// in the good case; the lock is for what changes a verdict.
//
// Invariants:
//   * an endpoint is usable when no check says it is unhealthy and it is not ejected
//   * version() grows with each change of usability, after it (release): a worker compares one number for a pick
//   * on_changed is called after the change, from whichever thread made it, without the lock
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "config/settings.h"
#include "filters/policy/outlier.h"

namespace outrider::proxy {

class EndpointHealth {
  public:
    bool usable() const { return bits_.load(std::memory_order_relaxed) == 0; }
    bool unhealthy() const { return (bits_.load(std::memory_order_relaxed) & kUnhealthy) != 0; }
    bool ejected() const { return (bits_.load(std::memory_order_relaxed) & kEjected) != 0; }

  private:
    friend class ClusterHealth;
    static constexpr std::uint8_t kUnhealthy = 1;
    static constexpr std::uint8_t kEjected = 2;

    std::atomic<std::uint8_t> bits_{0};
    std::atomic<std::uint32_t> streak_{0};  // failures in a row
    std::atomic<bool> probation_{false};    // back from an ejection, and no answer yet
    // Under the cluster's lock.
    std::string id_;
    policy::OutlierHandle outlier_{};
    std::string unhealthy_reason_;
    std::string ejected_reason_;
    WallTime checked_since_{};  // when the checks' verdict last changed
    WallTime ejected_since_{};
    bool removed_ = false;
};

struct EndpointVerdict {
    std::string id;
    const char* state = "healthy";  // healthy | unhealthy | ejected
    std::string reason;             // empty when healthy
    WallTime since{};               // 0: since it was first seen
    std::uint64_t ejections = 0;
    bool usable = true;
};

class ClusterHealth {
  public:
    ClusterHealth(std::string name, std::function<void(const std::string& cluster)> on_changed);

    // --- main thread
    void configure(const config::ClusterSettings& settings);
    // The endpoints there are now; those that stay keep their state.
    std::vector<std::shared_ptr<EndpointHealth>> set_members(const std::vector<std::string>& ids);
    void set_checked(EndpointHealth& endpoint, bool healthy, std::string reason, WallTime wall);
    // Ejections that are over end; when the next one does.
    std::optional<Instant> end_ejections(Instant now);
    std::vector<EndpointVerdict> verdicts() const;
    std::uint64_t ejections() const { return ejections_.load(std::memory_order_relaxed); }
    std::uint64_t ejections_refused() const { return refused_.load(std::memory_order_relaxed); }

    // --- any thread
    std::uint64_t version() const { return version_.load(std::memory_order_acquire); }
    void on_success(EndpointHealth& endpoint) {
        if (endpoint.streak_.load(std::memory_order_relaxed) != 0)
            endpoint.streak_.store(0, std::memory_order_relaxed);
        if (endpoint.probation_.load(std::memory_order_relaxed)) [[unlikely]]
            end_probation(endpoint);
    }
    // `reason`: what went wrong, in a few words.
    void on_failure(EndpointHealth& endpoint, std::string_view reason, Instant now, WallTime wall) {
        const std::uint32_t threshold = threshold_.load(std::memory_order_relaxed);
        if (threshold == 0) return;  // no outlier detection
        const std::uint32_t streak = endpoint.streak_.fetch_add(1, std::memory_order_relaxed) + 1;
        if (streak >= threshold || endpoint.probation_.load(std::memory_order_relaxed))
            eject(endpoint, streak, reason, now, wall);
    }

  private:
    void eject(EndpointHealth& endpoint, std::uint32_t streak, std::string_view reason, Instant now,
               WallTime wall);
    void end_probation(EndpointHealth& endpoint);

    const std::string name_;
    const std::function<void(const std::string&)> on_changed_;
    std::atomic<std::uint64_t> version_{1};
    std::atomic<std::uint32_t> threshold_{0};
    std::atomic<std::uint64_t> ejections_{0};
    std::atomic<std::uint64_t> refused_{0};

    mutable std::mutex mutex_;
    policy::OutlierPolicy outlier_;
    bool checked_ = false;  // by active checks
    std::vector<std::shared_ptr<EndpointHealth>> members_;
};

}  // namespace outrider::proxy
