// The smallest shell there can be around the core: it carries out effects on a Disk as control/raft/effects.h demands. The
// scripts and the simulator run it, and the quorum's real shell must do the same.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "control/raft/core.h"
#include "tests/raft/disk.h"
#include "tests/raft/state_machine.h"

namespace outrider::raft {

class Shell {
  public:
    // What happens around it. Called from within step() and synced().
    class World {
      public:
        virtual ~World() = default;
        virtual void send(Message message) = 0;
        virtual void stepped(Shell& shell, const Effects& effects) = 0;  // before anything is carried out
        virtual void applied(Shell& shell, const Entry& entry, std::string result) = 0;
        virtual void read(Shell& shell, std::uint64_t context) = 0;  // may be answered now
        virtual void read_refused(Shell& shell, std::uint64_t context) = 0;
    };

    Shell(World& world, NodeId id, Options options, std::uint64_t seed, Disk& disk,
          std::unique_ptr<StateMachine> machine, std::size_t chunk_bytes, Instant now);

    void step(Instant now, Event event);
    // The disk has synced everything up to `last`.
    void synced(Instant now, WriteId last);
    // Takes a snapshot of what is applied, keeps `keep` entries before it.
    void compact(Instant now, std::uint64_t keep);

    Core& core() { return core_; }
    const Core& core() const { return core_; }
    Disk& disk() { return disk_; }
    StateMachine& machine() { return *machine_; }
    std::optional<Outcome> outcome;  // of the last step

  private:
    struct Held {
        Message message;
        WriteId after;  // durable first
    };
    void carry_out(Effects effects);
    void post(Message message);
    void release_reads();

    World& world_;
    Disk& disk_;
    std::unique_ptr<StateMachine> machine_;
    const std::size_t chunk_bytes_;
    Core core_;
    WriteId hard_state_write_;  // the last that holds a hard state
    WriteId durable_;
    std::deque<Held> held_;
    std::optional<SnapshotMeta> installing_;
    WriteId install_write_;
    LogIndex machine_at_;
    std::vector<Read> reads_;
};

}  // namespace outrider::raft
