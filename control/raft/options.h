// What may be set about consensus. All nodes of a cluster have the same election_timeout and clock_uncertainty.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "base/time.h"
#include "base/units.h"

namespace outrider::raft {

// How much of the log's end is kept where it is read at once; the rest, once applied, is in cold memory (base/cold_memory.h).
struct WarmLog {
    std::size_t entries = 2048;
    std::uint64_t bytes = std::uint64_t{1} << 20;
};

struct Options {
    // t: a follower that hears no leader campaigns after [t, 2t). Ten times a round trip with fsync is safe; shorter
    // finds a dead leader sooner and takes a slow one for dead sooner.
    Duration election_timeout = std::chrono::seconds(1);
    // At most half of election_timeout.
    Duration heartbeat = std::chrono::milliseconds(100);

    // Reads without a round of heartbeats while the leader holds a lease (thesis 6.4.1). Costs that linearizability
    // then rests on clocks: every node's clock must run at a rate within 1 -/+ clock_uncertainty of true time.
    bool lease_reads = false;
    double clock_uncertainty = 0.01;  // [0, 0.5)

    std::size_t message_entries_max = 1024;
    Bytes message_bytes_max{std::uint64_t{1} << 20};  // of entries; one entry may exceed it alone
    // To one peer, sent and not answered.
    std::size_t inflight_messages_max = 64;
    Bytes inflight_bytes_max{std::uint64_t{8} << 20};
    // A larger command is refused.
    Bytes command_bytes_max{std::uint64_t{3} << 19};
    // Appended by this leader and not committed; a command beyond it is refused.
    Bytes uncommitted_bytes_max{std::uint64_t{64} << 20};
    // Waiting for a round of heartbeats at the leader; further reads are refused.
    std::size_t reads_max = 4096;
    // A learner that lacks more entries is not promoted: it would cost availability (thesis 4.2.1).
    std::uint64_t promotion_lag_max = 1000;
    WarmLog warm;
};

// A sentence when the numbers contradict each other.
Result<void> validate(const Options& options);

}  // namespace outrider::raft
