// Latencies in buckets whose width grows with the value: any quantile within 0.4% and no allocation
// while recording.
//
// Below 256 a bucket is one nanosecond wide. Above, every power of two is cut in 128 buckets, and a
// quantile is the middle of its bucket.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace outrider::bench {

class Histogram {
  public:
    void record(std::uint64_t ns) {
        ++buckets_[index_of(ns)];
        ++count_;
        sum_ += static_cast<double>(ns);
        max_ = std::max(max_, ns);
    }

    std::uint64_t count() const { return count_; }
    std::uint64_t max() const { return max_; }
    double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

    // The value below which the fraction q of all values lies; 0 when empty.
    double quantile(double q) const {
        if (count_ == 0) return 0;
        const auto rank = std::min(count_ - 1, static_cast<std::uint64_t>(q * static_cast<double>(count_)));
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < buckets_.size(); ++i) {
            seen += buckets_[i];
            if (seen > rank) return std::min(middle_of(i), static_cast<double>(max_));
        }
        return static_cast<double>(max_);
    }

  private:
    static constexpr unsigned kBits = 7;
    static constexpr std::size_t kPerDoubling = std::size_t{1} << kBits;
    static constexpr std::size_t kBuckets = (64 - kBits + 1) * kPerDoubling;

    // v >> shift keeps kBits + 1 significant bits, so it lies in [kPerDoubling, 2 * kPerDoubling).
    static std::size_t index_of(std::uint64_t v) {
        if (v < 2 * kPerDoubling) return static_cast<std::size_t>(v);
        const auto shift = static_cast<unsigned>(std::bit_width(v)) - kBits - 1;
        return shift * kPerDoubling + static_cast<std::size_t>(v >> shift);
    }
    static double middle_of(std::size_t index) {
        if (index < 2 * kPerDoubling) return static_cast<double>(index);
        const std::size_t shift = index / kPerDoubling - 1;
        const auto low = static_cast<std::uint64_t>(index - shift * kPerDoubling) << shift;
        return static_cast<double>(low) + static_cast<double>(std::uint64_t{1} << shift) / 2;
    }

    std::vector<std::uint64_t> buckets_ = std::vector<std::uint64_t>(kBuckets);
    std::uint64_t count_ = 0;
    std::uint64_t max_ = 0;
    double sum_ = 0;
};

}  // namespace outrider::bench
