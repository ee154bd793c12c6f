// The command line of a simulator.
//
//   --seeds A..B     simulates each seed; the first that breaks a promise is printed, and ends it with 1
//   --seed N         one seed; with --trace every event of it
//   --seconds S      begins no seed after that time; how many were simulated is printed
//   --keep-going     prints every seed that breaks a promise, and goes on; in the end 1 if there was one
//   --calm           three nodes and nothing that goes wrong, for the speed
//   --twice          each seed a second time, which must be the same run
//   --bug N          with that deliberate error (sim_bite only: control/raft/bugs.h, control/store/bugs.h)
// Prints seeds a second and how much faster than real time virtual time went.
#pragma once

#include <functional>

#include "tests/sim/cluster.h"

namespace outrider::sim {

struct Mode {
    const char* name;  // how the command line selects it, when a program has several; else of the program
    std::function<Summary(std::uint64_t seed, bool calm, bool trace)> simulate;
};

int run(int argc, char** argv, const Mode& mode);

// The modes.
Summary simulate_lists(std::uint64_t seed, bool calm, bool trace);
Summary simulate_key_space(std::uint64_t seed, bool calm, bool trace);

}  // namespace outrider::sim
