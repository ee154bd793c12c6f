// A whole cluster of the production core on virtual time, in one thread, every choice drawn from one seed: the same seed is
// the same run, event by event.
//
//   network   each message is lost, delayed (so also reordered), repeated, or stopped by a partition, also one-way
//   disks     a sync takes time and may fail, which stops its node; a crash loses what was not synced, but for a
//             prefix that may end in the middle of a write
//   clocks    each node's runs at its own rate
//   nodes     crash, restart, pause (everything for them waits), join, leave
//   clients   one operation at a time each, at any node; they repeat what is not answered
//
// After every step of a node the invariants are checked, after every operation the history. When the harm is over, every
// operation that was begun must end.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "tests/raft/invariants.h"
#include "tests/raft/shell.h"
#include "tests/sim/profile.h"
#include "tests/sim/workload.h"

namespace outrider::sim {

struct Summary {
    std::optional<std::string> violation;
    Instant ended{};  // in virtual time
    std::uint64_t events = 0, steps = 0, messages = 0, operations = 0, crashes = 0, leaders = 0, commits = 0;
    std::uint64_t changes = 0, installs = 0;
    std::uint64_t digest = 0;  // of every event: equal runs have equal digests
};

class Simulation : public raft::Shell::World {
  public:
    Simulation(std::uint64_t seed, Profile profile, Workload& workload, bool trace);
    ~Simulation() override;
    Summary run();

  private:
    enum class Kind : std::uint8_t { kDeliver, kTick, kSynced, kClient, kClientTimeout, kHarm, kRestart };
    struct Event {
        Instant at;
        std::uint64_t order = 0;  // among those of one instant
        std::uint64_t what = 0;   // a message's slot, a write, an attempt
        std::uint32_t who = 0;    // a node's index or a client
        std::uint32_t epoch = 0;  // of the node
        Kind kind = Kind::kHarm;
    };
    struct Node {
        std::unique_ptr<raft::Disk> disk;    // null: no such node yet
        std::unique_ptr<raft::Shell> shell;  // null: down
        std::uint32_t epoch = 0;             // rises with every crash: what is under way for it is void
        std::uint64_t starts = 0;
        double rate = 1;
        Duration offset{};
        Instant paused_until{};
        std::optional<Instant> armed;  // for a Tick
        bool syncing = false;
    };
    struct Client {
        bool busy = false;
        Workload::Operation operation;
        std::uint64_t sequence = 0;
        std::uint64_t attempt = 0;  // unique among all clients; also the context of a read
        std::uint32_t node = 0;     // asked in this attempt
    };

    // simulation.cc
    void push(Instant at, Kind kind, std::uint32_t who, std::uint64_t what, std::uint32_t epoch = 0);
    bool next(Event& event);
    void handle(const Event& event);
    Duration between(Duration low, Duration high);
    Instant local(const Node& node, Instant at) const;
    Instant global(const Node& node, Instant at) const;
    std::uint32_t index(const raft::Shell& shell) const {
        return static_cast<std::uint32_t>(shell.core().id().value);
    }
    void start(std::uint32_t node);
    void crash(std::uint32_t node);
    void settle(std::uint32_t node);
    void step(std::uint32_t node, raft::Event event);
    void deliver(const Event& event);
    void synced(const Event& event);
    void heal_all();
    void check();
    void note(std::uint32_t node, const std::string& what);

    // Shell::World
    void send(raft::Message message) override;
    void stepped(raft::Shell& shell, const raft::Effects& effects) override;
    void applied(raft::Shell& shell, const raft::Entry& entry, std::string result) override;
    void read(raft::Shell& shell, std::uint64_t context) override;
    void read_refused(raft::Shell& shell, std::uint64_t context) override;

    // clients.cc
    void client(std::uint32_t client);
    void ask(std::uint32_t client);
    void ask_again(std::uint32_t client, std::optional<std::uint32_t> hint);
    void finish(std::uint32_t client, const std::string& result);
    std::uint32_t some_node();

    // harm.cc
    void harm();
    void partition();
    void one_way();
    void pause();
    void transfer();
    void burst();
    void change_membership();
    std::vector<std::uint32_t> running() const;
    std::optional<std::uint32_t> some_leader();
    std::uint32_t victim();

    const Profile profile_;
    Workload& workload_;
    const bool trace_;
    Random random_;
    Instant now_{};
    std::vector<Event> events_;  // a heap
    std::uint64_t order_ = 0;
    std::vector<raft::Message> messages_;  // under way, by slot
    std::vector<std::uint64_t> free_slots_;
    std::vector<Node> nodes_;  // by id; 0 is none
    std::vector<Client> clients_;
    std::vector<std::vector<bool>> blocked_;  // from, to
    std::uint64_t attempts_ = 0;
    bool harming_ = true;
    std::uint64_t busy_clients_ = 0;
    raft::Invariants invariants_;
    Summary summary_;
};

}  // namespace outrider::sim
