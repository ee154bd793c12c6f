// Which endpoints of ONE cluster are out for a while because requests to them failed (passive ejection). Pure: the
// caller counts consecutive failures, tells when a count reaches threshold(), and arms a timer for next_return().
// One object for the whole process; not safe from two threads at once (callers lock).
//
// Invariants
//   * At most max_out() endpoints are out at once: floor(max_ejected_percent * n / 100), but one if there are
//     several endpoints and the per cent are above 0. The only endpoint is never ejected: that helps nobody. When
//     the set shrinks (or the limit does), those whose time is up first are due at once: next_return() is then in the
//     past. So a caller that gets a new set adds before it removes.
//   * The k-th ejection in a row lasts min(2^(k-1), kOutlierEjectionsMax) * ejection. Each whole `ejection` period
//     spent in the cluster takes one step off again; a refused ejection restarts that period.
//   * An endpoint that returns is on probation: threshold() is 1 until a success. It was out for a reason, and
//     another consecutive_failures requests need not find out that nothing has changed.
//   * Answers that arrive while an endpoint is out (requests that were under way) change nothing.
//   * Every ejection that the cap forbids is counted in refused().
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/time.h"

namespace outrider::policy {

inline constexpr std::uint32_t kOutlierEjectionsMax = 10;  // times `ejection`

struct OutlierLimits {
    std::uint32_t consecutive_failures = 5;        // at least 1
    Duration ejection = std::chrono::seconds(30);  // the first; above 0
    std::uint32_t max_ejected_percent = 50;        // 0 = never eject; to 100
};

// Small and dense, for arrays; used again after remove().
enum class OutlierHandle : std::uint32_t {};

class OutlierPolicy {
  public:
    explicit OutlierPolicy(OutlierLimits limits);

    OutlierHandle add();
    // Also of one that is out; the handle is invalid from here on.
    void remove(OutlierHandle handle);

    // How many failures in a row are reported by on_failure_streak().
    std::uint32_t threshold(OutlierHandle handle) const;

    // The caller counted threshold() failures in a row. True: it is out from now on. False: the cap forbids it, or
    // it is out already.
    bool on_failure_streak(OutlierHandle handle, Instant now);
    void on_success(OutlierHandle handle);

    // When return_due() has something to do; nothing while none is out. May lie in the past.
    std::optional<Instant> next_return() const;
    // Those whose time is up; they are in the cluster again and on probation.
    std::vector<OutlierHandle> return_due(Instant now);

    bool ejected(OutlierHandle handle) const;
    // Its end; nothing when it is not out. Instant::min() when it is due early (see above).
    std::optional<Instant> ejected_until(OutlierHandle handle) const;
    // Since add().
    std::uint64_t times_ejected(OutlierHandle handle) const;

    std::size_t size() const { return size_; }
    std::size_t ejected_count() const { return ejected_; }
    std::size_t max_out() const;
    std::uint64_t ejections() const { return ejections_; }
    std::uint64_t refused() const { return refused_; }

    // Ejections under way keep their end.
    void configure(OutlierLimits limits);

  private:
    struct Endpoint {
        bool used = false;
        bool ejected = false;
        bool probation = false;
        std::uint32_t level = 0;  // the next ejection lasts 2^level
        Instant until{};          // ejected only
        Instant well_since{};     // not ejected only: from here periods count that take off a step
        std::uint64_t times = 0;
    };

    void take_limits(OutlierLimits limits);
    Endpoint& at(OutlierHandle handle);
    const Endpoint& at(OutlierHandle handle) const;
    void forgive(Endpoint& endpoint, Instant now) const;
    void release_excess();

    OutlierLimits limits_;
    std::vector<Endpoint> endpoints_;
    std::vector<std::uint32_t> free_;
    std::size_t size_ = 0;
    std::size_t ejected_ = 0;
    std::uint64_t ejections_ = 0;
    std::uint64_t refused_ = 0;
};

// So few of a cluster's endpoints are usable that the checks are more likely wrong than the endpoints, or the few
// would be crushed: use all. True when usable / total < panic_percent / 100; never with 0 per cent.
bool panic(std::size_t usable, std::size_t total, std::uint32_t panic_percent);

}  // namespace outrider::policy
