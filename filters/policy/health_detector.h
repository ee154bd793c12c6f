// Is ONE endpoint fit for traffic, by its active probes? Pure: results and `now` come in, a verdict and the next
// moment at which it may change come out; the shell sends the probes and arms the timer.
//
// Invariants
//   * Before the first result the endpoint is unknown and counts as healthy: a process that has just started
//     must be able to serve before its first round of checks.
//   * The FIRST result decides at once, both ways. An endpoint that was never seen working has no credit to use
//     up, and one that works must not wait for healthy_after intervals (HAProxy takes a new server down on its first
//     failed check; Envoy's thresholds do not apply to a host's first check either).
//   * unhealthy -> healthy always takes healthy_after successes in a row.
//   * Step.changed is true exactly when healthy() differs from before the call.
//   * next_change() has a value only while healthy, by phi, and after a failure; on_time() at or after it makes the
//     endpoint unhealthy.
//
// Count: unhealthy_after failures in a row make it unhealthy.
//
// Phi: Hayashibara et al., "The phi accrual failure detector" (SRDS 2004).
//   phi(t) = -log10 P(a gap between two successes is longer than t), t = time since the last success, with gaps
//   taken as normal with the mean and standard deviation of the last kPhiWindow of them. Unhealthy when phi passes
//   phi_threshold: 8 = wrong once in 10^8 gaps if the model held.
//   * Gaps are kept in units of `interval`, each clamped to kPhiGapMax: one long sleep of this process must not
//     make the detector blind for a hundred probes.
//   * The deviation is never taken below kPhiDeviationMin (a quarter of the interval). With waits of 0.8 to 1.0
//     interval the threshold then reads as lost probes in a row: 1 = one, 8 = two, 16 = three. The tenth of the
//     interval that is often used would make even 16 fire on the first lost probe.
//   * The window starts with two gaps of 1 -/+ kPhiDeviationMin intervals (as Akka's detector does), so there is an
//     estimate before there are samples.
//   * Gaps of an outage are not samples: the first success after it starts a new gap.
//   * Silence without a failed probe is not evidence: then it was the checker that slept. (A connection refused is
//     only silence too; it is phi that says when it has lasted too long.)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/random.h"
#include "base/time.h"

namespace outrider::policy {

inline constexpr std::size_t kPhiWindow = 100;    // gaps
inline constexpr double kPhiGapMax = 4;           // intervals
inline constexpr double kPhiDeviationMin = 0.25;  // intervals
inline constexpr double kPhiThresholdMax = 300;   // beyond it no probability is left in a double

// Ranges are the caller's to keep (configuration does).
struct HealthLimits {
    bool phi = false;                             // else count
    std::uint32_t unhealthy_after = 3;            // failures in a row; at least 1; count only
    std::uint32_t healthy_after = 2;              // successes in a row; at least 1
    double phi_threshold = 8;                     // above 0, up to kPhiThresholdMax; phi only
    Duration interval = std::chrono::seconds(2);  // between probes; above 0
};

class HealthDetector {
  public:
    explicit HealthDetector(HealthLimits limits);

    struct Step {
        bool changed = false;
    };

    Step on_success(Instant now);
    Step on_failure(Instant now);

    // When suspicion passes the threshold if no probe succeeds until then; may lie in the past.
    std::optional<Instant> next_change() const;
    Step on_time(Instant now);

    bool healthy() const { return healthy_; }
    // At least one result has come.
    bool known() const { return known_; }
    // When healthy() last changed, or the first result if it never did; the epoch while unknown.
    Instant since() const { return since_; }

    // The suspicion level, 0 and up; 0 when there is nothing to measure from. For display; the verdict goes by
    // next_change(), which is the same formula solved for time. Finite for any `now`.
    double phi(Instant now) const;

    // Keeps the verdict and the streaks; the next result is judged by the new limits. Another interval
    // starts the gaps anew.
    void configure(HealthLimits limits);

  private:
    void take_limits(HealthLimits limits);
    void restart_gaps();
    void add_gap(Duration gap);
    void become(bool healthy, Instant now);
    Instant suspicion_time() const;

    HealthLimits limits_;
    double threshold_deviations_ = 0;  // how many deviations beyond the mean phi equals the threshold
    bool healthy_ = true;
    bool known_ = false;
    Instant since_{};
    std::uint32_t successes_ = 0;  // in a row
    std::uint32_t failures_ = 0;   // in a row

    std::optional<Instant> heard_;  // the last success that a gap is measured from
    std::array<float, kPhiWindow> gaps_{};
    std::size_t gaps_size_ = 0;
    std::size_t gaps_next_ = 0;
    double mean_ = 1;       // intervals
    double deviation_ = 1;  // intervals
};

// -log10 of the upper tail of the standard normal distribution at x. Finite and increasing for every finite x.
double phi_of_normal(double x);

// Uniform in [0.8, 1.0] of `interval`: a fleet that started together does not probe in step for long.
Duration probe_wait(Duration interval, Random& random);

// Before an endpoint's first probe: uniform in [0, min(interval, 100 ms)]. Short, because until then the endpoint
// gets traffic unchecked; not zero, because a cluster of hundreds must not be connected to in one loop turn.
inline constexpr Duration kFirstProbeWaitMax = std::chrono::milliseconds(100);
Duration first_probe_wait(Duration interval, Random& random);

}  // namespace outrider::policy
