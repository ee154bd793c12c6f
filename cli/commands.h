// The subcommands of the one binary. Each returns the process's exit code: 0 done, 1 failed with the reason on stderr.
#pragma once

#include <string>
#include <vector>

#include "base/time.h"

namespace outrider::cli {

int run_sidecar(const std::string& config_path);
// One node of the control plane's quorum.
int run_control(const std::string& config_path);

// Prints OK, or every error as file:line:col: key: reason. Opens no socket. Takes a sidecar's file or a control-plane node's.
int validate(const std::string& config_path);

// Where the admin endpoint is: given outright, or taken from a configuration file; the default when both are empty.
struct AdminTarget {
    std::string address;  // host:port
    std::string config_path;
};
// 0 when /ready answers 200.
int ready(const AdminTarget& target, Duration timeout);
// Asks for a drain; with `wait`, returns when the sidecar's admin endpoint is gone, or fails after `wait`.
int drain(const AdminTarget& target, Duration timeout, Duration wait);
// Polls /ready until it answers 200, then becomes `command`.
int wait_and_exec(const AdminTarget& target, Duration timeout, const std::vector<std::string>& command);

}  // namespace outrider::cli
