// Load balancing: which endpoint of a cluster takes the next request. Pure: no clock, no sockets;
// the same endpoints, loads and random seed give the same choices.
//
// A balancer is built once per endpoint set and worker and thrown away when the set changes. pick()
// never allocates. It is not safe from two threads at once.
//
// Common rules
//   * weight 0 means: in the set, but never picked. (An SRV record's weight 0 means "seldom", RFC
//   2782;
//     whoever makes endpoints from SRV records must turn it into 1.)
//   * pick() returns an index into the vector the balancer was made from, and only one with
//   usable(i).
//   * pick() returns nothing exactly when no endpoint has both a weight and usable(i).
//   * An unusable endpoint's share is spread over the others by weight, never heaped on its
//   neighbour;
//     ring hash spreads it as the ring does, and maglev by key, so that equal keys stay together.
//
// Cost of pick() with everything usable, whatever the number of endpoints: some nanoseconds.
//
// Round robin      Weighted and smooth: turns are laid out beforehand, endpoint i's turns evenly
// 1/weight
//                  apart in virtual time (as earliest deadline first does), so that 5:1:1 never
//                  sends five in a row and then two. The first turn is random so that workers do
//                  not march in step.
// Least request    Power of two choices (Mitzenmacher 2001): two different endpoints drawn in
// proportion
//                  to weight; the one of lower cost() wins, the first when they tie.
// Ring hash        Ketama: kRingPointsPerWeight points per unit of weight on a circle of 64-bit
// hashes; a
//                  request goes to the first point at or after its own hash. Removing an endpoint
//                  moves only its own keys. All point counts are halved together until they fit
//                  kRingPointsMax.
// Maglev           Eisenbud et al., "Maglev" (NSDI 2016), section 3.4, with weights by frequency of
// turns.
//                  Evener than a ring and one memory access per pick; removing an endpoint also
//                  moves a few per cent of the others' keys. The table's size steps up at
//                  kMaglevSmallEndpoints and kMaglevLargeEndpoints: a set that grows over such a
//                  step is shuffled once.
// Ring and table depend on ids and weights only, not on the order of the endpoints, so every worker
// and every sidecar maps alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "base/time.h"
#include "filters/policy/usable.h"

namespace outrider::policy {

// What one worker knows of an endpoint's load. Maintained by the caller.
struct EndpointLoad {
    std::uint32_t in_flight = 0;
    double latency_ewma_us = 0;  // from ewma_update(); 0 = no sample yet
};

struct BalancerEndpoint {
    std::string id;  // stable identity, "ip:port"
    std::uint32_t weight = 1;
    friend bool operator==(const BalancerEndpoint&, const BalancerEndpoint&) = default;
};

enum class BalancerKind : std::uint8_t { kRoundRobin, kLeastRequest, kRingHash, kMaglev };

class Balancer {
  public:
    Balancer() = default;
    Balancer(const Balancer&) = delete;
    Balancer& operator=(const Balancer&) = delete;
    virtual ~Balancer() = default;

    // `hash` is the request's key hash (key_hash()), for the hashing balancers; 0 = the request has
    // no key, and then they choose at random. `load` has one entry per endpoint; only least request
    // reads it, the others accept an empty one.
    virtual std::optional<std::size_t> pick(std::uint64_t hash, const std::vector<EndpointLoad>& load,
                                            Usable usable, Random& random) = 0;
};

std::unique_ptr<Balancer> make_balancer(BalancerKind kind, const std::vector<BalancerEndpoint>& endpoints);

// The hash of a request's key for the hashing balancers: XXH3, 64 bits, never 0. Not for anything
// an attacker must not predict.
std::uint64_t key_hash(std::string_view key);

// Least request
// ---------------------------------------------------------------------------------------

// Latencies below this are alike: at loopback and rack distances their differences are noise.
inline constexpr double kLatencyFloorUs = 1000;

// One draw in this many skips the comparison, so that an endpoint that was slow once still gets the
// request that shows it has recovered (its average moves only with samples).
inline constexpr std::uint64_t kExploreOneIn = 64;

// cost = (in_flight / relative_weight + 1) * max(latency_ewma, kLatencyFloorUs)
//
// relative_weight is the weight divided by the mean weight, so with equal weights this is the usual
// peak EWMA cost (in_flight + 1) * latency. The 1 is not divided: idle endpoints of equal latency
// then tie, and the draw in proportion to weight decides; with weights 1:9 the light one still gets
// its tenth. An endpoint without a sample is judged on in_flight alone: it borrows the other's
// latency. Neither a flood towards a new endpoint nor a boycott of it follows.
double least_request_cost(const EndpointLoad& endpoint, const EndpointLoad& other, double relative_weight);

// A latency average with peak sensitivity (Finagle's and Linkerd's peak EWMA): a sample above the
// average replaces it at once, a lower one pulls it down with weight 1 - exp(-dt / kEwmaDecay),
// where dt is the time since the previous sample. old_us == 0 takes the sample. Units:
// microseconds. Never returns 0 or less.
inline constexpr Duration kEwmaDecay = std::chrono::seconds(10);
double ewma_update(double old_us, double sample_us, Duration dt);

// The average when an attempt was given up after elapsed_us because a later one was quicker (a hedge): its latency is not known,
// only that it is longer. Doubles the average, up to kOvertakenMax times what elapsed: otherwise an endpoint whose every
// attempt is overtaken would look like one that answers within the hedge's wait, and idle besides. Never lowers it.
inline constexpr double kOvertakenMax = 16;
double ewma_overtaken(double old_us, double elapsed_us);

// Bounds
// ----------------------------------------------------------------------------------------------

inline constexpr std::size_t kScheduleTurnsMax = 65536;  // round robin: finer weights are rounded
inline constexpr std::size_t kRingPointsPerWeight = 160;
inline constexpr std::size_t kRingPointsMax = 262144;  // about 5 MiB; an endpoint keeps at least one point
inline constexpr std::size_t kMaglevSmallEndpoints = 16;
inline constexpr std::size_t kMaglevLargeEndpoints = 6553;
inline constexpr std::size_t kMaglevTableSmall = 4093;  // primes: section 3.4 needs skips coprime to M
inline constexpr std::size_t kMaglevTable = 65537;
inline constexpr std::size_t kMaglevTableLarge = 655373;

}  // namespace outrider::policy
