#include "filters/policy/latency_window.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace outrider::policy {
namespace {

constexpr std::size_t kPerDoubling = 16;
constexpr Duration kUnit = LatencyWindow::kLeast / kPerDoubling;  // the width of the finest buckets

std::int64_t generation_number(Instant now) {
    using Generations = std::chrono::duration<std::int64_t, std::ratio<10>>;
    static_assert(Generations(1) == LatencyWindow::kGeneration);
    return std::chrono::floor<Generations>(now.time_since_epoch()).count();
}

}  // namespace

std::size_t LatencyWindow::bucket_of(Duration latency) {
    const Duration bounded = std::clamp(latency, Duration::zero(), kMost);
    const auto units = static_cast<std::uint64_t>(bounded / kUnit);
    if (units < kPerDoubling) return 0;
    const auto doublings = static_cast<std::size_t>(std::bit_width(units / kPerDoubling)) - 1;
    return 1 + doublings * kPerDoubling + (units >> doublings) - kPerDoubling;
}

Duration LatencyWindow::upper_edge(std::size_t bucket) {
    if (bucket == 0) return kLeast;
    const std::size_t doublings = (bucket - 1) / kPerDoubling;
    const std::size_t units = kPerDoubling + (bucket - 1) % kPerDoubling + 1;
    return std::min(kMost, static_cast<Duration::rep>(units << doublings) * kUnit);
}

bool LatencyWindow::newest_seen(Instant now) const {
    return generation_number(now) <= number_ + 1;
}

bool LatencyWindow::older_seen(Instant now) const {
    return generation_number(now) <= number_;
}

void LatencyWindow::record(Instant now, Duration latency) {
    if (!older_seen(now)) {
        const bool keep = newest_seen(now);
        newest_ ^= 1;
        generations_[newest_] = {};
        if (!keep) generations_[newest_ ^ 1] = {};
        number_ = generation_number(now);
    }
    Generation& generation = generations_[newest_];
    ++generation.buckets[bucket_of(latency)];
    ++generation.total;
}

std::uint64_t LatencyWindow::samples(Instant now) const {
    return (newest_seen(now) ? generations_[newest_].total : 0) +
           (older_seen(now) ? generations_[newest_ ^ 1].total : 0);
}

std::optional<Duration> LatencyWindow::quantile(Instant now, double q) const {
    const std::uint64_t total = samples(now);
    if (total < kSamplesMin) return std::nullopt;
    if (cache_.filled && cache_.q == q && now >= cache_.at && now - cache_.at < kCacheFor)
        return cache_.value;

    const double share = q > 0 ? std::min(q, 1.0) : 0.0;
    // 0.07 * 100 is a little more than 7; that must not ask for the eighth.
    const double rank = std::max(1.0, std::ceil(share * static_cast<double>(total) - 1e-6));
    const bool older = older_seen(now);
    std::uint64_t below = 0;
    std::size_t bucket = 0;
    for (; bucket < kBuckets - 1; ++bucket) {
        below += generations_[newest_].buckets[bucket];
        if (older) below += generations_[newest_ ^ 1].buckets[bucket];
        if (static_cast<double>(below) >= rank) break;
    }
    cache_ = {.filled = true, .at = now, .q = q, .value = upper_edge(bucket)};
    return cache_.value;
}

}  // namespace outrider::policy
