// The production key space as a replicated state machine, with the hub of those who watch it at this node. Every entry that
// it applies is held against the Chronicle.
#pragma once

#include <memory>
#include <string>

#include "control/store/store.h"
#include "control/store/watch_hub.h"
#include "tests/raft/state_machine.h"
#include "tests/sim/chronicle.h"

namespace outrider::sim {

class StoreMachine : public raft::StateMachine {
  public:
    StoreMachine(std::uint32_t node, Chronicle& chronicle, store::WatchHub::Options options);

    // The result stands in command() and outcome(), until the next.
    std::string apply(const raft::Entry& entry) override;
    std::string query(std::string_view) const override { return {}; }
    std::string snapshot() const override;
    void restore(std::string_view snapshot) override;

    store::Store& store() { return *store_; }
    store::WatchHub& hub() { return hub_; }
    const store::Command& command() const { return command_; }
    const store::Response& response() const { return response_; }
    bool repeated() const { return repeated_; }

  private:
    const std::uint32_t node_;
    Chronicle& chronicle_;
    std::unique_ptr<store::Store> store_ = std::make_unique<store::Store>();
    store::WatchHub hub_;
    store::Command command_;
    store::Response response_;
    bool repeated_ = false;
};

}  // namespace outrider::sim
