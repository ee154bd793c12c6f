// What runs on a simulated cluster: the state machine that is replicated, what surrounds it on each node, and its clients,
// with the check of what they saw. A Cluster knows no more of it than this.
//
// Calls from within a step of a node (applied, read, read_refused) must not step a node themselves: they answer clients,
// set timers, or wait for settled().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "control/raft/types.h"
#include "tests/raft/state_machine.h"

namespace outrider::sim {

class Cluster;

class Application {
  public:
    // A timer that it has set with Cluster::wake_at, or a message of Cluster::carry.
    struct Timer {
        std::uint16_t kind = 0;
        std::uint32_t who = 0;
        std::uint64_t what = 0;
    };

    virtual ~Application() = default;

    // Once, before anything happens; no node is up.
    virtual void begin(Cluster& cluster) = 0;
    // For a node that starts, with what was durable coming by StateMachine::restore.
    virtual std::unique_ptr<raft::StateMachine> machine(std::uint32_t node) = 0;
    virtual void crashed(std::uint32_t node) = 0;
    virtual void timer(const Timer& timer) = 0;

    virtual void applied(std::uint32_t node, const raft::Entry& entry, const std::string& result) = 0;
    virtual void read(std::uint32_t node, std::uint64_t context) = 0;  // a BeginRead: may be answered now
    virtual void read_refused(std::uint32_t node, std::uint64_t context) = 0;
    // After every step of a node.
    virtual void settled(std::uint32_t node) = 0;

    // A command that changes nothing: it makes a log long.
    virtual raft::Command idle_command() const = 0;

    // The harm is over: nothing new is begun. When all that was begun has ended the simulation ends.
    virtual void healed() = 0;
    virtual bool idle() const = 0;
    virtual std::string waiting_for() const = 0;  // when idle() comes too late

    // The first promise that was broken, as a sentence.
    virtual const std::optional<std::string>& violation() const = 0;
    virtual std::uint64_t operations() const = 0;
};

}  // namespace outrider::sim
