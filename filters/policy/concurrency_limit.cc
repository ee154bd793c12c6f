#include "filters/policy/concurrency_limit.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/random.h"

namespace outrider::policy {
namespace {

constexpr Duration kSlotSlack = std::chrono::milliseconds(50);  // later than that the other workers are done
constexpr double kMeasureShare = 0.25;                          // of the limit
constexpr double kMeasureBaselines = 20;                        // a measurement's least length
constexpr double kMeasureSettle = 0.25;                         // of its length: the queue empties
constexpr std::uint32_t kMeasureLeast = 10;                     // answers, or nothing is learnt
constexpr double kRiseMax = 2;
constexpr double kHealed = 0.25;

double nanos(Duration d) {
    return static_cast<double>(d.count());
}
Duration duration(double ns) {
    return Duration(static_cast<Duration::rep>(ns));
}

}  // namespace

ConcurrencyLimit::ConcurrencyLimit(ConcurrencyLimits limits, std::uint64_t seed)
    : limits_(limits), seed_(seed), limit_(kStart) {
    configure(limits);
}

void ConcurrencyLimit::configure(ConcurrencyLimits limits) {
    require(limits.min > 0, "a concurrency limit's min is above 0");
    require(limits.min <= limits.max, "a concurrency limit's min is not above its max");
    limits_ = limits;
    limit_ = std::clamp(limit_, limits.min, limits.max);
}

bool ConcurrencyLimit::try_acquire(Instant now) {
    on_time(now);
    if (in_flight_ >= limit()) {
        ++window_.refused;
        return false;
    }
    ++in_flight_;
    window_.in_flight_most = std::max(window_.in_flight_most, in_flight_);
    return true;
}

void ConcurrencyLimit::release(Instant now, Duration latency, Outcome outcome) {
    require(in_flight_ > 0, "a release follows an acquire");
    on_time(now);
    --in_flight_;
    if (outcome == Outcome::kIgnored) return;
    double value = std::max(nanos(latency), 1.0);
    if (baseline_ > 0) value = std::min(value, kOutlierTimes * baseline_);
    if (measure_.active) {
        if (outcome == Outcome::kSample && now - latency >= measure_.count_from) measure_.latency.add(value);
        return;
    }
    if (now < window_.start) return;
    if (outcome == Outcome::kDropped) {
        ++window_.drops;
    } else {
        window_.latency.add(value);
    }
    const std::uint32_t answers = window_.latency.count + window_.drops;
    const Duration length = now - window_.start;
    const bool full = answers >= kWindowSamples && length >= kWindowMin;
    const bool slow = answers >= kWindowSlowSamples && length >= kWindowSlow;
    if (full || slow) close_window(now);
}

std::uint32_t ConcurrencyLimit::limit() const {
    const double limit = measure_.active ? measure_.low : limit_;
    return static_cast<std::uint32_t>(std::max(limit, 1.0));
}

Duration ConcurrencyLimit::retry_after() const {
    const Duration wait = duration(2 * std::max(baseline_, last_mean_));
    return std::clamp<Duration>(wait, std::chrono::milliseconds(100), std::chrono::seconds(10));
}

void ConcurrencyLimit::Mean::add(double value) {
    sum += value;
    ++count;
}

// Everything that happens because time has passed.
void ConcurrencyLimit::on_time(Instant now) {
    if (in_flight_ == 0 && now - last_event_ > kIdle) {
        restart_window(now);
        epoch_ = {};
        shedding_ = 0;
    }
    last_event_ = now;
    if (measure_.active && now >= measure_.end &&
        (measure_.latency.count >= kMeasureSamples || now >= measure_.give_up)) {
        end_measure(now);
    }
    if (now < slot_) return;
    const bool in_time = now - slot_ < kSlotSlack;
    slot_ = slot_after(now);
    if (in_time && shedding_ > 0) start_measure(now, true);
}

void ConcurrencyLimit::close_window(Instant now) {
    const double mean = window_.latency.count > 0 ? window_.latency.value() : last_mean_;
    if (window_.latency.count > 0) learn(mean);
    const double gradient = this->gradient();
    const double before = limit_;
    const bool refused = window_.refused > 0;
    const bool late = window_.latency.count > 0 && mean > kTolerance * baseline_;
    last_mean_ = mean;
    if (2.0 * window_.in_flight_most >= limit_) {
        if (gradient < 1) slow_start_ = false;
        const double room = gradient > kGradientMin ? std::max(1.0, std::sqrt(limit_) / 2) : 0;
        limit_ = std::clamp(slow_start_ && refused ? 2 * limit_ : gradient * limit_ + room, limits_.min,
                            limits_.max);
    }
    restart_window(limit_ < before ? now + std::min(duration(mean), kWindowSlow) : now);
    if (!refused && shedding_ > 0) --shedding_;
    if (!refused || !late) return;
    shedding_ = std::min(shedding_ + 1, kSheddingWindows);
    if (shedding_ == kSheddingWindows && now >= early_from_) start_measure(now, false);
}

double ConcurrencyLimit::gradient() const {
    double gradient = 1;
    if (window_.latency.count > 0) gradient = std::min(1.0, kTolerance * baseline_ / window_.latency.value());
    const double answers = window_.latency.count + window_.drops;
    gradient = std::min(gradient, 1 - window_.drops / answers);
    return std::max(gradient, kGradientMin);
}

// A window's mean.
void ConcurrencyLimit::learn(double mean) {
    if (baseline_ == 0 || mean < kHealed * baseline_) {
        baseline_ = mean;
        baseline_provisional_ = true;
        epoch_ = {};
    }
    epoch_.sum += window_.latency.sum;
    epoch_.count += window_.latency.count;
    if (epoch_.count < kEpochSamples) return;
    if (baseline_provisional_ || epoch_.value() < baseline_) baseline_ = epoch_.value();
    baseline_provisional_ = false;
    epoch_ = {};
}

void ConcurrencyLimit::start_measure(Instant now, bool may_rise) {
    const double least = std::max(nanos(kMeasureMin), kMeasureBaselines * baseline_);
    const Duration length = duration(std::min(least, nanos(kMeasureMax) / 2));
    measure_ = Measure{.active = true,
                       .may_rise = may_rise,
                       .count_from = now + duration(kMeasureSettle * nanos(length)),
                       .end = now + length,
                       .give_up = now + kMeasureMax,
                       .low = std::max(limits_.min, kMeasureShare * limit_),
                       .latency = {}};
    early_from_ = now + kMeasureEarlyPeriod;
}

void ConcurrencyLimit::end_measure(Instant now) {
    measure_.active = false;
    restart_window(now);
    epoch_ = {};
    if (measure_.latency.count < kMeasureLeast) return;
    const double before = baseline_;
    const double measured = std::min(measure_.latency.value(), kRiseMax * baseline_);
    if (measured > baseline_ && !measure_.may_rise) return;
    baseline_ = measured;
    baseline_provisional_ = false;
    limit_ = std::clamp(limit_ * std::clamp(baseline_ / before, kGradientMin, 1.0), limits_.min, limits_.max);
}

void ConcurrencyLimit::restart_window(Instant start) {
    window_ = Window{};
    window_.start = start;
    window_.in_flight_most = in_flight_;
}

// Slot k is somewhere in the first half of the k-th period of the time line: at a time of its own each, so that it
// keeps step with nothing that comes every so often.
Instant ConcurrencyLimit::slot_after(Instant now) const {
    for (Duration::rep k = now.time_since_epoch() / kMeasurePeriod;; ++k) {
        const auto half = static_cast<std::uint64_t>(kMeasurePeriod.count() / 2);
        const std::uint64_t jitter =
            scale64(mix64(seed_ + static_cast<std::uint64_t>(k) * 0x9e3779b97f4a7c15ULL), half);
        const Instant slot{k * kMeasurePeriod + Duration(static_cast<Duration::rep>(jitter))};
        if (slot > now) return slot;
    }
}

}  // namespace outrider::policy
