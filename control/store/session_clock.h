// How much older the sessions of clients have become: the leader's own knowledge, told to all members by a command
// (SessionsAgeRequest).
//
// It runs on the leader's monotonic clock, so nobody's wall clock ends a session. What goes by while nobody leads, or while the
// leader stands still, is not counted: a session lives longer then, and its client had no chance to use it.
//
// Invariant: what is told while one node leads is never more than the time that has gone by there.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

#include "base/time.h"

namespace outrider::store {

class SessionClock {
  public:
    static constexpr Duration kInterval = std::chrono::minutes(1);

    // This member leads now.
    void lead(Instant now) { told_ = now; }
    void step_down() { told_.reset(); }

    // Milliseconds to be told, when it is time.
    std::optional<std::int64_t> tick(Instant now) {
        if (!told_ || now - *told_ < kInterval) return std::nullopt;
        const Duration passed = std::min(now - *told_, 2 * kInterval);
        told_ = now;
        return std::chrono::duration_cast<std::chrono::milliseconds>(passed).count();
    }

  private:
    std::optional<Instant> told_;
};

}  // namespace outrider::store
