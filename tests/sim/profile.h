// What one seed simulates: the cluster, its clocks, network and disks, and who harms it how often. Drawn from the seed, so
// that a thousand seeds are a thousand different bad days.
#pragma once

#include <cstdint>

#include "base/random.h"
#include "base/time.h"
#include "control/raft/options.h"

namespace outrider::sim {

struct Profile {
    std::uint64_t founders = 3;
    std::uint64_t members_max = 3;
    raft::Options options;
    Duration duration{};  // of the harm; then everything heals, and all that was begun must end

    // One node's clock is slow and the others' are fast; else each as it comes.
    bool one_slow_clock = false;
    double clock_rate_error =
        0;  // rates lie within 1 -/+ that; at most options.clock_uncertainty with lease reads

    Duration delay_min{}, delay_max{};
    double late = 0;  // probability of a delay of up to an election timeout
    double loss = 0, duplicate = 0;

    Duration sync_min{}, sync_max{};
    double sync_error = 0;  // per sync: the node stops

    std::uint64_t clients = 3;
    Duration think_max{};
    std::uint64_t read_percent = 50;
    std::size_t chunk_bytes = 64;

    // Harm: every so often one of these, by weight.
    Duration harm_every{};
    std::uint64_t partition = 0, one_way = 0, heal = 0, crash = 0, crash_all = 0, pause = 0, transfer = 0,
                  membership = 0, compact = 0, burst = 0, stall = 0;

    static Profile drawn(Random& random);
    // Three nodes with the timeouts of production and nothing that goes wrong: for the speed of the simulation.
    static Profile calm();
};

}  // namespace outrider::sim
