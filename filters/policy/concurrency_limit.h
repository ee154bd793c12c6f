// How many requests of a route may be in flight, found from their latency. Pure: the caller tells when requests
// start and end. One per route and worker; not safe from two threads at once.
//
// Why: an upstream that gets more than it can do answers everything late, and late answers are work for nothing. What
// is over the limit is refused at once, so that what is admitted is answered in time.
//
// Sources: Netflix's concurrency-limits (Gradient2Limit: gradient, tolerance, no growth that is not used) and Envoy's
// adaptive concurrency filter (the latency without a queue is measured again at a low limit). Little's law links
// them: with a limit L on a server that serves c at once, latency is L / c times the baseline.
//
// A window ends after kWindowSamples answers and kWindowMin, or kWindowSlow and kWindowSlowSamples. Then
//     gradient = clamp(kTolerance * baseline / mean latency, kGradientMin, 1), and not above 1 - share of drops
//     limit    = gradient * limit + max(1, sqrt(limit) / 2)       (without the last term at kGradientMin)
// so a full server is held at about 1.5 c + sqrt(c): always busy, with latency at about twice the baseline.
//
// Rules, each against a way in which such limits fail
//   * A window in which less than half the limit was used moves nothing: idle or light traffic is no evidence. So the
//     limit ends near twice the peak of what is needed, and stays there through the night.
//   * Until the first gradient below 1 the limit doubles with each window that refused something (slow start).
//   * After a cut the next window starts one mean latency later: answers to what was admitted before the cut would
//     ask for the same cut again.
//   * Each latency counts at most kOutlierTimes baselines: one stuck request is not an overload. The gradient is at
//     its least long before that.
//   * The baseline is the least mean of an epoch of kEpochSamples answers: not the least latency (with varying
//     latencies that is a fluke) nor a long average (under a lasting overload it drifts until overload looks normal).
//     A window below a quarter of it is a service that has healed, and is believed at once.
//   * So it could only fall. It rises by measurement: for kMeasureMin or more only a quarter of the limit is admitted,
//     and the mean latency of what was admitted then, after the queue had time to empty, is the new baseline, but at
//     most twice the old. It is made only if one of the last windows refused for latency: otherwise it would not be
//     worth what it sheds.
//   * Measurements have slots, one each kMeasurePeriod, at times that follow from the seed. The workers of a process
//     are given the SAME seed: if they measured in turn, each would see the queue that the others keep up, take it for
//     the service, and the baseline would creep up. (Simulated, 4 workers at twice the capacity: 5.0 ms
//     after 90 minutes with one seed, 20 ms after 30 minutes with four.) Other processes have other seeds, so for
//     one of many clients of an upstream the effect remains: this limit belongs in front of an instance.
//   * kSheddingWindows windows that refused for latency start a measurement without a slot, at most one in
//     kMeasureEarlyPeriod, which may only lower the baseline: it may have been learnt under overload.
//
// What to expect (the test simulates servers of 4 to 200 places at a service time of 5 ms, equal, exponential and
// mixed, at 2 and 4 times what they can do): the p99 of what is admitted stays below 3 times the p99 at half load,
// the server works at above 0.9 of its capacity, and a second after the overload next to nothing is refused. A
// service that gets 100 times slower is cut to min; it is back two seconds after it has healed and what it had begun
// slowly is done. One that is slower by a factor f for good is believed after log2(f) slots. With very few places and
// latencies that differ twentyfold up to 2 % can be refused at half load: those places do fill up. The workers'
// limits need not be alike; their sum is what is held.
//
// Invariants
//   * limit() is at least 1 and otherwise in [min, max], rounded down; a measurement does not go below min either.
//   * in_flight() is what was acquired and not yet released; it can exceed limit() after a cut or in a measurement.
//   * baseline() rises only by a measurement in a slot, and then to at most twice its value (and once at the end of
//     its first epoch, until when it is provisional).
#pragma once

#include <cstdint>

#include "base/time.h"

namespace outrider::policy {

// Shares of one worker, so fractions are allowed. 0 < min <= max.
struct ConcurrencyLimits {
    double min = 4;
    double max = 512;
};

class ConcurrencyLimit {
  public:
    // Starts at kStart, or what of [min, max] is nearest. `seed`: the same for a route's limits in all workers of a
    // process, another in every process.
    ConcurrencyLimit(ConcurrencyLimits limits, std::uint64_t seed);

    static constexpr double kStart = 16;
    static constexpr double kTolerance = 1.5;
    static constexpr double kGradientMin = 0.5;
    static constexpr double kOutlierTimes = 8;
    static constexpr std::uint32_t kSheddingWindows = 3;
    static constexpr std::uint32_t kWindowSamples = 40;
    static constexpr Duration kWindowMin = std::chrono::milliseconds(20);
    static constexpr std::uint32_t kWindowSlowSamples = 5;
    static constexpr Duration kWindowSlow = std::chrono::milliseconds(500);
    static constexpr std::uint32_t kEpochSamples = 500;
    static constexpr Duration kIdle = std::chrono::seconds(1);  // nothing in flight: a new window
    static constexpr Duration kMeasurePeriod = std::chrono::seconds(30);
    static constexpr Duration kMeasureEarlyPeriod = std::chrono::seconds(10);
    static constexpr Duration kMeasureMin = std::chrono::milliseconds(100);
    static constexpr Duration kMeasureMax = std::chrono::seconds(5);  // given up then without kMeasureSamples
    static constexpr std::uint32_t kMeasureSamples = 50;

    // False: refuse the request. True: a release() must follow.
    bool try_acquire(Instant now);

    enum class Outcome : std::uint8_t {
        kSample,   // answered: the latency counts
        kDropped,  // timed out, or the upstream said that it is overloaded
        kIgnored,  // canceled, or failed too fast to say anything
    };
    // latency: since try_acquire(); read for kSample only.
    void release(Instant now, Duration latency, Outcome outcome);

    std::uint32_t limit() const;  // what try_acquire() compares with; low during a measurement
    std::uint32_t in_flight() const { return in_flight_; }
    bool measuring() const { return measure_.active; }
    // The mean latency without a queue; 0 until something was measured.
    Duration baseline() const { return Duration(static_cast<Duration::rep>(baseline_)); }
    // For a refused request: when those in flight now are about done. Between 100 ms and 10 s.
    Duration retry_after() const;

    void configure(ConcurrencyLimits limits);

  private:
    struct Mean {
        double sum = 0;  // ns
        std::uint32_t count = 0;
        void add(double value);
        double value() const { return sum / count; }
    };
    struct Window {
        Instant start{};  // in the future after a cut
        Mean latency;
        std::uint32_t drops = 0;
        std::uint32_t in_flight_most = 0;
        std::uint32_t refused = 0;
    };
    struct Measure {
        bool active = false;
        bool may_rise = false;
        Instant count_from{};  // requests admitted from here on count
        Instant end{};
        Instant give_up{};
        double low = 0;
        Mean latency;
    };

    void on_time(Instant now);
    void close_window(Instant now);
    double gradient() const;
    void learn(double mean);
    void start_measure(Instant now, bool may_rise);
    void end_measure(Instant now);
    void restart_window(Instant start);
    Instant slot_after(Instant now) const;

    ConcurrencyLimits limits_;
    std::uint64_t seed_;
    double limit_;
    bool slow_start_ = true;
    std::uint32_t in_flight_ = 0;
    double baseline_ = 0;               // ns
    bool baseline_provisional_ = true;  // of less than an epoch
    double last_mean_ = 0;              // ns
    Window window_;
    Mean epoch_;
    Measure measure_;
    // Windows that refused for latency, less those that refused nothing; up to kSheddingWindows.
    std::uint32_t shedding_ = 0;
    Instant slot_{};        // the next one
    Instant early_from_{};  // no early measurement before
    Instant last_event_{};
};

}  // namespace outrider::policy
