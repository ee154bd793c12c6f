// How many extra attempts a route may make: a share of its recent requests, with a small floor for quiet
// routes. Without it, three attempts each treble the load on an upstream at the moment it can bear it least;
// with a ratio of 0.2 an outage of every endpoint costs the upstream 1.2 times the incoming load, whatever
// the attempts limit. After linkerd's and Finagle's retry budget; a sliding window here instead of their
// expiring deposits, so that the bound can be written down and checked. Hedges are extra attempts and are
// counted by the same budget.
//
// Guarantees, for any arrivals. An extra attempt is granted at t only if one of these holds, itself included:
//   ratio   granted in (t - 1 s, t]  <=  ratio * requests in (t - 1 s, t]
//   floor   granted in (t - 1 s, t]  <=  ceil(min_per_second), and a token is there
// Tokens come at min_per_second, and at most max(1, min_per_second) are kept. They make a fraction true on
// average (1.5 a second is one or two in any second and three in two); the window keeps saved tokens from
// doubling a second. Each attempt counts for both, so a second holds the larger of the two, not their sum.
// Windows that end at a granted attempt can be laid side by side from the last attempt backwards; so for any
// interval from a to b
//   granted in [a, b]  <=  ratio * requests in (a - 1 s, b]  +  floor
//   floor               =  max(1, min_per_second) + min_per_second * (b - a), or 0 when min_per_second is 0
// The 1 s before `a` is needed: a failure comes after its request.
//
// The window is a ring of 20 ms buckets, rounded to the safe side: requests are counted over 0.98 to 1 s,
// granted attempts over 1 to 1.02 s. So under an even load about 0.97 of the ratio is granted, never more
// than all of it. What is counted is the grant. If the caller waits before the attempt, the bounds hold for
// attempts made when the window is widened by that wait. A grant that is not used (the client left meanwhile)
// is not given back.
//
// O(1) amortised (a call passes at most 64 buckets), no allocation, about 600 bytes. A pause of more than a
// window clears it. A `now` before an earlier one is taken as that earlier one. Not for two threads at once:
// each worker has its own, with the whole ratio and its share of min_per_second.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "base/time.h"

namespace outrider::policy {

class RetryBudget {
  public:
    // ratio: 0 (floor only) and more. min_per_second: 0 (ratio only) and more, fractions included. Negative
    // is 0.
    RetryBudget(double ratio, double min_per_second);

    // New limits, from the next call on. What was counted stays, so a reload grants nothing twice; tokens
    // above the new maximum are dropped, missing ones come with time.
    void configure(double ratio, double min_per_second);

    // Once for each request that is offered to the upstream, at its first attempt.
    void on_request(Instant now);
    // True: make one extra attempt, it is counted. False: nothing changed.
    bool try_retry(Instant now);
    // Counts an extra attempt that was granted elsewhere, whatever the limits say.
    void count_retry(Instant now);
    // A floor that several budgets share (a process's workers). Told of each extra attempt (`granted`), and asked for those
    // that this budget refuses; so the floor adds nothing where the ratio allows as much.
    void set_floor(std::function<bool(Instant now, bool granted)> floor) { floor_ = std::move(floor); }

    // As try_retry counts them.
    std::uint64_t requests_in_window(Instant now);
    std::uint64_t retries_in_window(Instant now);

  private:
    struct Bucket {
        std::uint32_t requests = 0;
        std::uint32_t retries = 0;
    };
    static constexpr std::size_t kRing = 64;  // power of two, more than the 51 buckets in use

    Bucket& bucket(std::int64_t slot) { return ring_[static_cast<std::uint64_t>(slot) % kRing]; }
    void advance(Instant now);

    bool try_own(Instant now);

    std::function<bool(Instant, bool)> floor_;
    double ratio_ = 0;
    double min_per_second_ = 0;
    double tokens_ = 0;
    bool started_ = false;
    Instant latest_{};
    std::int64_t slot_ = 0;       // of latest_
    std::uint64_t requests_ = 0;  // sums over their windows
    std::uint64_t retries_ = 0;
    std::array<Bucket, kRing> ring_{};
};

}  // namespace outrider::policy
