#include "filters/policy/health_detector.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/check.h"

namespace outrider::policy {
namespace {

void count(std::uint32_t& streak) {
    if (streak < std::numeric_limits<std::uint32_t>::max()) ++streak;
}

double in_intervals(Duration time, Duration interval) {
    return static_cast<double>(time.count()) / static_cast<double>(interval.count());
}

Duration uniform(Duration least, Duration most, Random& random) {
    const auto spread = static_cast<std::uint64_t>((most - least).count());
    return least + Duration(static_cast<Duration::rep>(random.below(spread + 1)));
}

}  // namespace

double phi_of_normal(double x) {
    // erfc() underflows near x = 38. From 20 on the asymptotic series is exact to 1e-5, in the logarithm.
    if (x < 20) return -std::log10(0.5 * std::erfc(x / std::numbers::sqrt2));
    const double density_log = -0.5 * x * x - 0.5 * std::log(2 * std::numbers::pi);
    return -(density_log - std::log(x) + std::log1p(-1 / (x * x))) / std::numbers::ln10;
}

HealthDetector::HealthDetector(HealthLimits limits) {
    take_limits(limits);
    restart_gaps();
}

HealthDetector::Step HealthDetector::on_success(Instant now) {
    if (heard_) add_gap(now - *heard_);
    heard_ = now;
    failures_ = 0;
    count(successes_);
    const bool first = !known_;
    const bool enough = healthy_ || successes_ >= limits_.healthy_after;
    if (first) {
        known_ = true;
        since_ = now;
    }
    const Step step{.changed = enough && !healthy_};
    if (step.changed) become(true, now);
    return step;
}

HealthDetector::Step HealthDetector::on_failure(Instant now) {
    successes_ = 0;
    count(failures_);
    if (!known_) {
        known_ = true;
        become(false, now);
        return {.changed = true};
    }
    if (!healthy_) {
        heard_.reset();
        return {};
    }
    if (limits_.phi) {
        if (!heard_) heard_ = now - limits_.interval;
        return on_time(now);
    }
    if (failures_ < limits_.unhealthy_after) return {};
    become(false, now);
    return {.changed = true};
}

std::optional<Instant> HealthDetector::next_change() const {
    if (!limits_.phi || !healthy_ || failures_ == 0 || !heard_) return std::nullopt;
    return suspicion_time();
}

HealthDetector::Step HealthDetector::on_time(Instant now) {
    const std::optional<Instant> due = next_change();
    if (!due || now < *due) return {};
    become(false, now);
    return {.changed = true};
}

double HealthDetector::phi(Instant now) const {
    if (!heard_) return 0;
    const double silence = in_intervals(now - *heard_, limits_.interval);
    return phi_of_normal((silence - mean_) / deviation_);
}

void HealthDetector::configure(HealthLimits limits) {
    const bool other_interval = limits.interval != limits_.interval;
    take_limits(limits);
    if (!other_interval) return;
    restart_gaps();
    heard_.reset();
}

void HealthDetector::take_limits(HealthLimits limits) {
    require(limits.interval > Duration(0), "a health check's interval is above 0");
    require(limits.unhealthy_after > 0, "unhealthy_after is at least 1");
    require(limits.healthy_after > 0, "healthy_after is at least 1");
    require(limits.phi_threshold > 0, "phi_threshold is above 0");
    require(limits.phi_threshold <= kPhiThresholdMax, "phi_threshold is at most kPhiThresholdMax");
    limits_ = limits;
    double low = -10;  // phi is practically 0 there, and above kPhiThresholdMax at the other end
    double high = 40;
    for (int i = 0; i < 60; ++i) {
        const double middle = (low + high) / 2;
        (phi_of_normal(middle) < limits_.phi_threshold ? low : high) = middle;
    }
    threshold_deviations_ = high;
}

void HealthDetector::restart_gaps() {
    gaps_[0] = static_cast<float>(1 - kPhiDeviationMin);
    gaps_[1] = static_cast<float>(1 + kPhiDeviationMin);
    gaps_size_ = 2;
    gaps_next_ = 2;
    mean_ = 1;
    deviation_ = kPhiDeviationMin;
}

void HealthDetector::add_gap(Duration gap) {
    gaps_[gaps_next_] = static_cast<float>(std::clamp(in_intervals(gap, limits_.interval), 0.0, kPhiGapMax));
    gaps_next_ = (gaps_next_ + 1) % kPhiWindow;
    gaps_size_ = std::min(gaps_size_ + 1, kPhiWindow);
    // From scratch each time: running sums would collect rounding errors over months, and a probe is seldom.
    double sum = 0;
    for (std::size_t i = 0; i < gaps_size_; ++i) {
        sum += static_cast<double>(gaps_[i]);
    }
    const auto n = static_cast<double>(gaps_size_);
    mean_ = sum / n;
    double squares = 0;
    for (std::size_t i = 0; i < gaps_size_; ++i) {
        const double off = static_cast<double>(gaps_[i]) - mean_;
        squares += off * off;
    }
    deviation_ = std::max(std::sqrt(squares / n), kPhiDeviationMin);
}

void HealthDetector::become(bool healthy, Instant now) {
    healthy_ = healthy;
    since_ = now;
    if (!healthy) heard_.reset();
}

Instant HealthDetector::suspicion_time() const {
    const double wait =
        (mean_ + threshold_deviations_ * deviation_) * static_cast<double>(limits_.interval.count());
    return *heard_ + Duration(static_cast<Duration::rep>(std::ceil(std::max(wait, 0.0))));
}

Duration probe_wait(Duration interval, Random& random) {
    return uniform(interval - interval / 5, interval, random);
}

Duration first_probe_wait(Duration interval, Random& random) {
    return uniform(Duration(0), std::min(interval, kFirstProbeWaitMax), random);
}

}  // namespace outrider::policy
