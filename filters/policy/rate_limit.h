// Token buckets, one word each: the generic cell rate algorithm (ITU-T I.371, Annex A, the virtual scheduling form).
// Pure; not safe from two threads at once (callers lock or shard).
//
// A bucket holds up to `burst` tokens and gains `rate` of them a second. GCRA keeps neither a level nor a time of the
// last refill but only when the bucket will be full again ("theoretical arrival time", tat). In the past: full now.
//
// Exactness: time is counted in ticks of which one token takes exactly 2^k, with k so that a tick is 2 to 4 ns.
// Rounding to nanoseconds instead would make 700,000 a second 0.03 % wrong; here an error of at most 2^-51 is left.
// The time line lasts 292 years.
//
// Invariants
//   * In any span of t seconds a bucket allows at most burst + rate * t requests.
//   * A request that comes retry_after after a refusal is allowed if the bucket was not asked in between; one ns
//     earlier it is not.
//   * A refused request takes nothing.
//   * A clock that goes back costs a bucket its tokens at most, never more: no wait is longer than burst / rate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/time.h"

namespace outrider::policy {

struct RateDecision {
    bool allowed = false;
    std::uint64_t remaining = 0;  // whole tokens left: so many more would be allowed now
    Duration retry_after{0};      // until one is allowed; 0 when `allowed`
    Duration reset{0};            // until the bucket is full
};

// What a bucket is measured by. rate: tokens per second, kRateMin to kRateMax; burst: 1 to kRateBurstMax.
inline constexpr double kRateMin = 0.001;
inline constexpr double kRateMax = 1'000'000;
inline constexpr std::uint32_t kRateBurstMax = 1'000'000;

class RateScale {
  public:
    RateScale(double rate, std::uint32_t burst);

    // Rounded down; 0 before the time line's start.
    std::uint64_t ticks(Instant now) const;
    // To the first instant that has so many ticks; 0 when `now` has.
    Duration until(std::uint64_t ticks_then, Instant now) const;
    std::uint64_t token() const { return std::uint64_t{1} << token_bits_; }
    std::uint64_t burst() const { return std::uint64_t{burst_} << token_bits_; }
    unsigned token_bits() const { return token_bits_; }

  private:
    std::uint64_t ticks_per_ns_ = 0;  // times 2^64, below 2^63
    std::uint32_t burst_;
    unsigned token_bits_ = 0;
};

class RateBucket {
  public:
    RateDecision take(const RateScale& scale, Instant now);
    // As good as new.
    bool full(std::uint64_t now_ticks) const { return tat_ <= now_ticks; }

  private:
    std::uint64_t tat_ = 0;
};

// One bucket per key, all of one rate and burst, in at most kRateBytesPerKey * keys_max + 64 bytes, all taken at the
// start.
//
//   * A key is its 64-bit hash; two keys of one hash share a bucket. Clients choose their keys, so the hash must be
//     keyed with a secret of this process: whoever can compute it can aim at another's bucket, or make long chains.
//   * A key whose bucket is full is as good as absent and may be dropped: no decision changes by it. Each new key
//     makes a hand look at kRateSweepSlots slots and drop those; that is all the work there is, and no timer.
//   * With keys_max keys that are not full (or that the hand has not come to), new keys share one more bucket of the
//     same rate and burst: they are limited too strictly rather than not at all. Each such request is counted in
//     overflowed().
inline constexpr std::size_t kRateSweepSlots = 8;
inline constexpr std::size_t kRateBytesPerKey = 22;

class RateTable {
  public:
    RateTable(double rate, std::uint32_t burst, std::size_t keys_max);  // keys_max: at least 1

    RateDecision take(std::uint64_t key_hash, Instant now);

    // Keys in the table, at most keys_max; some of them may be full.
    std::size_t keys() const { return keys_; }
    // Requests that were judged by the shared bucket.
    std::uint64_t overflowed() const { return overflowed_; }
    std::size_t bytes() const { return slots_.capacity() * sizeof(Slot); }

  private:
    struct Slot {
        std::uint64_t hash = 0;  // 0 = empty
        RateBucket bucket;
    };

    std::size_t find(std::uint64_t hash) const;  // its slot or the empty one where it belongs
    void sweep(std::uint64_t now_ticks);
    void erase(std::size_t slot);
    std::size_t next(std::size_t slot) const { return slot + 1 == slots_.size() ? 0 : slot + 1; }

    RateScale scale_;
    std::size_t keys_max_;
    std::vector<Slot> slots_;  // linear probing, at most three quarters full
    std::size_t keys_ = 0;
    std::size_t hand_ = 0;
    RateBucket overflow_;
    std::uint64_t overflowed_ = 0;
};

}  // namespace outrider::policy
