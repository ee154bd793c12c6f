#include "filters/policy/retry_budget.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace outrider::policy {
namespace {

using Slots = std::chrono::duration<std::int64_t, std::ratio<1, 50>>;  // 20 ms each
constexpr std::int64_t kSlotsPerSecond = 50;

// 0.29 * 100 is a little less than 29.
constexpr double kRounding = 1e-6;

double tokens_max(double per_second) {
    return per_second > 0 ? std::max(1.0, per_second) : 0.0;
}

// A clock that stands still for 2^32 calls must not wrap a bucket: its sum would never come back to 0.
void count(std::uint32_t& in_bucket, std::uint64_t& sum) {
    if (in_bucket == std::numeric_limits<std::uint32_t>::max()) return;
    ++in_bucket;
    ++sum;
}

}  // namespace

RetryBudget::RetryBudget(double ratio, double min_per_second) {
    configure(ratio, min_per_second);
    tokens_ = tokens_max(min_per_second_);
}

void RetryBudget::configure(double ratio, double min_per_second) {
    ratio_ = std::max(0.0, ratio);
    min_per_second_ = std::max(0.0, min_per_second);
    tokens_ = std::min(tokens_, tokens_max(min_per_second_));
}

void RetryBudget::advance(Instant now) {
    const std::int64_t slot = std::chrono::floor<Slots>(now.time_since_epoch()).count();
    if (!started_) {
        started_ = true;
        latest_ = now;
        slot_ = slot;
        return;
    }
    if (now <= latest_) return;
    tokens_ = std::min(tokens_max(min_per_second_), tokens_ + seconds_of(now - latest_) * min_per_second_);
    latest_ = now;
    if (slot - slot_ > kSlotsPerSecond) {
        ring_.fill({});
        requests_ = retries_ = 0;
        slot_ = slot;
        return;
    }
    while (slot_ < slot) {
        ++slot_;
        // Requests: only buckets that lie wholly within the last second. Retries: every bucket that touches
        // it.
        requests_ -= bucket(slot_ - kSlotsPerSecond).requests;
        retries_ -= bucket(slot_ - kSlotsPerSecond - 1).retries;
        bucket(slot_) = {};
    }
}

void RetryBudget::on_request(Instant now) {
    advance(now);
    count(bucket(slot_).requests, requests_);
}

bool RetryBudget::try_retry(Instant now) {
    const bool granted = try_own(now);
    if (!floor_) return granted;
    if (floor_(now, granted) && !granted) {
        count_retry(now);
        return true;
    }
    return granted;
}

void RetryBudget::count_retry(Instant now) {
    advance(now);
    tokens_ = std::max(0.0, tokens_ - 1);
    count(bucket(slot_).retries, retries_);
}

bool RetryBudget::try_own(Instant now) {
    advance(now);
    const auto granted = static_cast<double>(retries_ + 1);
    const bool ratio = granted <= ratio_ * static_cast<double>(requests_) + kRounding;
    const bool floor = granted <= std::ceil(min_per_second_) && tokens_ + kRounding >= 1;
    if (!ratio && !floor) return false;
    count_retry(now);
    return true;
}

std::uint64_t RetryBudget::requests_in_window(Instant now) {
    advance(now);
    return requests_;
}

std::uint64_t RetryBudget::retries_in_window(Instant now) {
    advance(now);
    return retries_;
}

}  // namespace outrider::policy
