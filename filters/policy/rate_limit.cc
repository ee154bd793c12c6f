#include "filters/policy/rate_limit.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/random.h"

namespace outrider::policy {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr double kNanosPerSecond = 1e9;

std::uint64_t nanos(Instant now) {
    return static_cast<std::uint64_t>(std::max<Duration::rep>(0, now.time_since_epoch().count()));
}

}  // namespace

RateScale::RateScale(double rate, std::uint32_t burst) : burst_(burst) {
    require(rate >= kRateMin && rate <= kRateMax, "a rate is from kRateMin to kRateMax");
    require(burst > 0, "a burst is at least 1");
    require(burst <= kRateBurstMax, "a burst is at most kRateBurstMax");
    while (std::ldexp(rate, static_cast<int>(token_bits_) + 1) <= kNanosPerSecond / 2) {
        ++token_bits_;
    }
    // Ticks per second are now in (2^27, 2^29): 2^24 of them are a number of 53 bits, so at most the last bit of
    // `rate` is lost.
    const auto ticks_per_second =
        static_cast<std::uint64_t>(std::ldexp(rate, static_cast<int>(token_bits_) + 24));
    const Wide ratio = (static_cast<Wide>(ticks_per_second) << 40) / 1'000'000'000;
    // Up, and by that last bit too: a token must be there when a rate like 0.3, which no double holds
    // exactly, says so, not a tick later.
    ticks_per_ns_ = static_cast<std::uint64_t>(ratio + (ratio >> 52) + 1);
}

std::uint64_t RateScale::ticks(Instant now) const {
    return scale64(nanos(now), ticks_per_ns_);
}

Duration RateScale::until(std::uint64_t ticks_then, Instant now) const {
    const Wide scaled = static_cast<Wide>(ticks_then) << 64;
    const auto then = static_cast<std::uint64_t>((scaled + ticks_per_ns_ - 1) / ticks_per_ns_);
    const std::uint64_t start = nanos(now);
    return Duration(then > start ? static_cast<Duration::rep>(then - start) : 0);
}

RateDecision RateBucket::take(const RateScale& scale, Instant now) {
    const std::uint64_t ticks = scale.ticks(now);
    // Beyond ticks + burst() it can be only when the clock went back.
    const std::uint64_t tat = std::clamp(tat_, ticks, ticks + scale.burst());
    RateDecision decision;
    decision.allowed = tat + scale.token() <= ticks + scale.burst();
    tat_ = decision.allowed ? tat + scale.token() : tat;
    decision.remaining = (ticks + scale.burst() - tat_) >> scale.token_bits();
    decision.reset = scale.until(tat_, now);
    if (!decision.allowed) decision.retry_after = scale.until(tat_ + scale.token() - scale.burst(), now);
    return decision;
}

RateTable::RateTable(double rate, std::uint32_t burst, std::size_t keys_max)
    : scale_(rate, burst), keys_max_(keys_max) {
    require(keys_max > 0, "a table of rates has room for a key");
    static_assert(sizeof(Slot) * 4 / 3 <= kRateBytesPerKey);
    slots_.resize(keys_max + keys_max / 3 + 1);
}

RateDecision RateTable::take(std::uint64_t key_hash, Instant now) {
    if (key_hash == 0) key_hash = 1;
    std::size_t slot = find(key_hash);
    if (slots_[slot].hash == 0) {
        sweep(scale_.ticks(now));
        if (keys_ == keys_max_) {
            ++overflowed_;
            return overflow_.take(scale_, now);
        }
        slot = find(key_hash);  // the sweep may have moved its place
        slots_[slot] = Slot{.hash = key_hash, .bucket = {}};
        ++keys_;
    }
    return slots_[slot].bucket.take(scale_, now);
}

std::size_t RateTable::find(std::uint64_t hash) const {
    std::size_t slot = scale64(hash, slots_.size());
    while (slots_[slot].hash != 0 && slots_[slot].hash != hash) {
        slot = next(slot);
    }
    return slot;
}

void RateTable::sweep(std::uint64_t now_ticks) {
    for (std::size_t i = 0; i < kRateSweepSlots; ++i) {
        if (slots_[hand_].hash != 0 && slots_[hand_].bucket.full(now_ticks)) {
            erase(hand_);  // another may have moved here: the hand stays
        } else {
            hand_ = next(hand_);
        }
    }
}

// Backward shift: what follows moves up, as long as that does not bring it before its own place (Knuth, TAOCP
// volume 3, section 6.4, algorithm R). No tombstones, so lookups do not slow down over months.
void RateTable::erase(std::size_t slot) {
    --keys_;
    std::size_t hole = slot;
    for (std::size_t i = next(hole); slots_[i].hash != 0; i = next(i)) {
        const std::size_t home = scale64(slots_[i].hash, slots_.size());
        const bool stays = hole < i ? (hole < home && home <= i) : (hole < home || home <= i);
        if (stays) continue;
        slots_[hole] = slots_[i];
        hole = i;
    }
    slots_[hole] = Slot{};
}

}  // namespace outrider::policy
