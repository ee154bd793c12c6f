// The two things the load generator does: load for a while, or hold connections in one state.
#pragma once

#include <string>

#include "bench/load_options.h"

namespace outrider::bench {

// Closed loop, open loop, fixed count. Prints the result; the process's exit code.
int run_load(const LoadOptions& options);
// Idle, waiting, dripping connections; blocks until standard input closes.
int run_hold(const LoadOptions& options);

// The bytes of a request for `path`.
std::string make_request(const LoadOptions& options, const std::string& path);

}  // namespace outrider::bench
