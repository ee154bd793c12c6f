#include "filters/rate_limiter.h"

#include <algorithm>
#include <cmath>

#include <xxhash.h>

namespace outrider::filters {

RateLimiter::RateLimiter(const config::RateLimitSettings& settings, std::uint64_t seed)
    : settings_(settings), seed_(seed) {
    // One bucket needs one shard. Few keys are not split either: each shard has an overflow bucket of its own.
    shard_count_ = settings.key.kind == config::RateKeyKind::kNone || settings.max_keys < 1024 ? 1 : kShards;
    const std::uint32_t burst =
        settings.burst != 0 ? settings.burst : static_cast<std::uint32_t>(std::ceil(settings.rate));
    for (std::size_t i = 0; i < shard_count_; ++i) {
        shards_[i].table = std::make_unique<policy::RateTable>(
            settings.rate, burst, (settings.max_keys + shard_count_ - 1) / shard_count_);
    }
}

policy::RateDecision RateLimiter::take(std::string_view key, Instant now) {
    const std::uint64_t hash = key.empty() ? 0 : XXH3_64bits_withSeed(key.data(), key.size(), seed_);
    Shard& shard = shards_[hash % shard_count_];
    const std::lock_guard lock(shard.mutex);
    shard.latest = std::max(shard.latest, now);
    return shard.table->take(hash, shard.latest);
}

RateLimiter::Count RateLimiter::count() {
    Count out;
    for (std::size_t i = 0; i < shard_count_; ++i) {
        const std::lock_guard lock(shards_[i].mutex);
        out.keys += shards_[i].table->keys();
        out.overflowed += shards_[i].table->overflowed();
    }
    return out;
}

}  // namespace outrider::filters
