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

    // Of the key space only.
    std::uint64_t watchers = 0;
    std::uint64_t holders = 0;  // of leases
    bool holders_at_home =
        false;  // each asks one node only, as a process asks its sidecar, and waits longer for it
    Duration home_silence{};  // at least so long between what a holder at home asks; each has another home
    std::uint64_t value_bytes = 0;
    std::uint64_t compact_per_mille = 0;  // of the writes
    double answer_loss = 0;  // probability that an answer, or a watch's batch, is lost with its connection
    Duration watch_break{};  // at most so long a watch is not disconnected
    double watch_slow = 0;   // probability that a watcher takes no more for a while
    Duration progress_every{};
    std::size_t batch_bytes = 0, scan_max = 0;  // of the watch hub
    bool sessions_age = false;                  // hours go by at once, so that sessions are forgotten

    // Harm: every so often one of these, by weight.
    Duration harm_every{};
    Duration pause_min{}, pause_max{};
    bool pause_leaders = false;
    // one_way is a link of the leader in both directions, and both ends notice; it is followers that crash.
    bool cut_links = false;
    std::uint64_t partition = 0, one_way = 0, heal = 0, crash = 0, crash_all = 0, pause = 0, transfer = 0,
                  membership = 0, compact = 0, burst = 0, stall = 0, reset = 0;

    static Profile drawn(Random& random);
    // The same for a key space.
    static Profile drawn_key_space(Random& random);
    // Three nodes with the timeouts of production and nothing that goes wrong: for the speed of the simulation.
    static Profile calm();
};

}  // namespace outrider::sim
