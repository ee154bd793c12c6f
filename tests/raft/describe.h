// Messages and effects as one line of text each, for scripts and traces.
#pragma once

#include <string>

#include "control/raft/effects.h"

namespace outrider::raft {

std::string describe(const Message& message);  // "1 -> 2 append term=1 prev=0/0 entries=[1/1 noop] commit=0"
std::string describe(const Entry& entry);      // "index/term what"
std::string describe(const Configuration& configuration);  // "1 2 3 learner:4"

}  // namespace outrider::raft
