// What the clients of a simulation do, and whether what they saw is linearizable. With a StateMachine it is all that a
// simulation needs to know about what is replicated.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/random.h"
#include "tests/raft/state_machine.h"

namespace outrider::sim {

class Workload {
  public:
    struct Operation {
        bool write = false;   // a command; else a query
        std::string request;  // for StateMachine::apply (as command.data) or query
    };

    virtual ~Workload() = default;
    virtual std::unique_ptr<raft::StateMachine> machine() const = 0;

    // The history, in the order of true time. A client has one operation at a time; a write may be proposed several times
    // with the same client and sequence.
    virtual Operation begin(std::uint64_t client, Random& random) = 0;
    virtual void end(std::uint64_t client, const std::string& result) = 0;

    // The first thing that no sequential execution explains, as a sentence.
    virtual const std::optional<std::string>& violation() const = 0;
};

}  // namespace outrider::sim
