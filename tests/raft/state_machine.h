// What is replicated, behind an interface: the simulator does not know what it simulates.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "control/raft/types.h"

namespace outrider::raft {

class StateMachine {
  public:
    virtual ~StateMachine() = default;
    // Deterministic. The result goes to the client that waits for the command, if it is still there.
    virtual std::string apply(const Entry& entry) = 0;
    virtual std::string query(std::string_view question) const = 0;
    virtual std::string snapshot() const = 0;
    virtual void restore(std::string_view snapshot) = 0;
};

}  // namespace outrider::raft
