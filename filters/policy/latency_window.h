// The recent latency of a route, for hedging after a percentile of it. Pure: `now` comes in with each sample.
//
// A log-linear histogram (as HdrHistogram's: each doubling is cut into 16 equal buckets) in two generations
// of 10 s each. When one is full the older is dropped, so what is seen covers the last 10 to 20 s: long
// enough for a tail percentile of a slow route, short enough to follow a deploy.
//
//   * quantile() is the upper edge of the bucket that holds the quantile: never below it, and at most
//     1/16 above. Too high is the safe side for hedging.
//   * Samples below 50 us count as 50 us, those above 100 s as 100 s.
//   * Under kSamplesMin samples there is no quantile: a tail of a handful is noise.
//   * A quantile may be up to kCacheFor old, as long as the same one is asked.
//   * A `now` before an earlier one counts into the newest generation.
//
// record() is O(1): 1.3 KiB are cleared every 10 s. quantile() scans at most 336 buckets, and only once every
// kCacheFor. No allocation, less than 3 KiB. Not for two threads at once; const members fill the cache.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/time.h"

namespace outrider::policy {

class LatencyWindow {
  public:
    static constexpr std::uint64_t kSamplesMin = 50;
    static constexpr Duration kLeast = std::chrono::microseconds(50);
    static constexpr Duration kMost = std::chrono::seconds(100);
    static constexpr Duration kGeneration = std::chrono::seconds(10);
    static constexpr Duration kCacheFor = std::chrono::milliseconds(100);

    void record(Instant now, Duration latency);

    // The latency that a share q of the samples does not exceed; q from 0 to 1, outside it is clamped.
    std::optional<Duration> quantile(Instant now, double q) const;
    // In the generations that are seen at `now`.
    std::uint64_t samples(Instant now) const;

  private:
    // Bucket 0 ends at kLeast; the doublings 50 us to 100 us, … up to the one that holds 100 s follow.
    static constexpr std::size_t kBuckets = 336;
    struct Generation {
        std::uint64_t total = 0;
        std::array<std::uint32_t, kBuckets> buckets{};
    };
    struct Cache {
        bool filled = false;
        Instant at{};
        double q = 0;
        Duration value{};
    };

    static std::size_t bucket_of(Duration latency);
    static Duration upper_edge(std::size_t bucket);
    // Whether the newest and the older generation are still seen at `now`.
    bool newest_seen(Instant now) const;
    bool older_seen(Instant now) const;

    std::array<Generation, 2> generations_{};
    std::size_t newest_ = 0;
    std::int64_t number_ = 0;  // of the newest generation: its start is number_ * kGeneration
    mutable Cache cache_;
};

}  // namespace outrider::policy
