// A route's rate limit for the whole process: policy::RateTable behind a lock.
//
// All workers take from the same buckets, since a share for each would let a client have a worker's share only. The lock is
// held for some tens of nanoseconds; keys are spread over shards, so that workers seldom meet.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string_view>

#include "config/settings.h"
#include "filters/policy/rate_limit.h"

namespace outrider::filters {

class RateLimiter {
  public:
    // `seed` is secret: clients choose the keys, and must not be able to choose their hashes.
    RateLimiter(const config::RateLimitSettings& settings, std::uint64_t seed);

    // `key` is empty when the route has one bucket, and for requests without the key, which share one.
    policy::RateDecision take(std::string_view key, Instant now);

    struct Count {
        std::size_t keys = 0;          // buckets that are not full
        std::uint64_t overflowed = 0;  // requests that found the table full
    };
    Count count();

    const config::RateLimitSettings& settings() const { return settings_; }

  private:
    struct Shard {
        std::mutex mutex;
        std::unique_ptr<policy::RateTable> table;
        Instant latest{};  // workers' turns begin at different times; a bucket's time must not go back
    };
    static constexpr std::size_t kShards = 16;

    config::RateLimitSettings settings_;
    std::uint64_t seed_;
    std::size_t shard_count_;
    std::array<Shard, kShards> shards_;
};

}  // namespace outrider::filters
