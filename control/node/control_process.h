// `outrider control`: one node of the quorum as a process. Opens the data, listens, runs until a signal, ends in order.
#pragma once

#include <string>

#include "config/control_settings.h"

namespace outrider::node {

// Returns the process's exit code, or ends it with one (docs/control.md, "Exit codes"). Problems of the start go to stderr.
int run_control(const config::ControlNodeSettings& settings);

}  // namespace outrider::node
