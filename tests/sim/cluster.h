// A whole cluster of the production core on virtual time, in one thread, every choice drawn from one seed: the same seed is
// the same run, event by event.
//
//   network   each message is lost, delayed (so also reordered), repeated, or stopped by a partition, also one-way; connections
//             close when the process at their end dies, which the other end is told, and by themselves with all that is on them
//   disks     a sync takes time and may fail, which stops its node; a crash loses what was not synced, but for a
//             prefix that may end in the middle of a write
//   clocks    each node's runs at its own rate
//   nodes     crash, restart, pause (everything for them waits), join, leave
//   clients   are the Application's, as is what is replicated
//
// After every step of a node the invariants of consensus are checked, and those of the application. When the harm is over,
// everything that was begun must end.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "tests/raft/invariants.h"
#include "tests/raft/shell.h"
#include "tests/sim/application.h"
#include "tests/sim/profile.h"

namespace outrider::sim {

struct Summary {
    std::optional<std::string> violation;
    Instant ended{};  // in virtual time
    std::uint64_t events = 0, steps = 0, messages = 0, operations = 0, crashes = 0, leaders = 0, commits = 0;
    std::uint64_t changes = 0, installs = 0;
    std::uint64_t lost_leaders = 0;  // followers that were told so, truly or not
    std::uint64_t digest = 0;        // of every event: equal runs have equal digests
};

class Cluster : public raft::Shell::World {
  public:
    Cluster(std::uint64_t seed, Profile profile, Application& application, bool trace);
    ~Cluster() override;
    Summary run();

    // ---- for the Application ----

    Instant now() const { return now_; }
    Random& random() { return random_; }
    const Profile& profile() const { return profile_; }
    bool harming() const { return harming_; }
    bool tracing() const { return trace_; }
    std::uint32_t nodes_max() const { return static_cast<std::uint32_t>(nodes_.size() - 1); }
    Duration between(Duration low, Duration high);

    bool up(std::uint32_t node) const { return nodes_[node].shell != nullptr; }
    bool paused(std::uint32_t node) const { return nodes_[node].paused_until > now_; }
    bool answers(std::uint32_t node) const { return up(node) && !paused(node); }
    Instant paused_until(std::uint32_t node) const { return nodes_[node].paused_until; }
    // Rises with every crash: what was under way for the node is void.
    std::uint32_t epoch(std::uint32_t node) const { return nodes_[node].epoch; }
    // Any that is up; the first when none is.
    std::uint32_t some_node();
    raft::StateMachine& machine(std::uint32_t node) { return nodes_[node].shell->machine(); }
    const raft::Core& core(std::uint32_t node) const { return nodes_[node].shell->core(); }
    // One that is up. What became of a proposal.
    raft::Outcome step(std::uint32_t node, raft::Event event);

    // On the node's own clock, and back.
    Instant local(std::uint32_t node) const { return local(nodes_[node], now_); }
    Instant global(std::uint32_t node, Instant at) const { return global(nodes_[node], at); }

    void wake_at(Instant at, Application::Timer timer);
    // A message between nodes: it meets the fate of all others, and arrives as the timer or not at all.
    void carry(std::uint32_t from, std::uint32_t to, Application::Timer timer);

    void note(std::uint32_t node, const std::string& what);

  private:
    enum class Kind : std::uint8_t { kDeliver, kTick, kSynced, kApplication, kHarm, kRestart, kClosed };
    struct Event {
        Instant at;
        std::uint64_t order = 0;  // among those of one instant
        std::uint64_t what =
            0;  // a message's slot, a write, the other end of a connection, or the application's
        std::uint32_t who = 0;    // a node's index, or the application's
        std::uint32_t epoch = 0;  // of the node, or the kind of the application's timer
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
        Instant hears_from{};          // peers, after a pause: clients' sockets may be read before theirs
        Instant stalled_until{};       // its disk: no sync ends before
        std::optional<Instant> armed;  // for a Tick
        bool syncing = false;
    };

    // simulation.cc
    void push(Instant at, Kind kind, std::uint32_t who, std::uint64_t what, std::uint32_t epoch = 0);
    bool next(Event& event);
    void handle(const Event& event);
    Instant local(const Node& node, Instant at) const;
    Instant global(const Node& node, Instant at) const;
    std::uint32_t index(const raft::Shell& shell) const {
        return static_cast<std::uint32_t>(shell.core().id().value);
    }
    void start(std::uint32_t node);
    void crash(std::uint32_t node);
    void settle(std::uint32_t node);
    void deliver(const Event& event);
    void tell_closed(std::uint32_t node, std::uint32_t peer);
    void closed(const Event& event);
    void synced(const Event& event);
    void heal_all();
    void check();
    void check_leases(const raft::Core& leader);
    // When a message that leaves now arrives; nothing when it does not.
    std::optional<Instant> arrival(std::uint64_t from, std::uint32_t to);

    // Shell::World
    void send(raft::Message message) override;
    void stepped(raft::Shell& shell, const raft::Effects& effects) override;
    void applied(raft::Shell& shell, const raft::Entry& entry, std::string result) override;
    void read(raft::Shell& shell, std::uint64_t context) override;
    void read_refused(raft::Shell& shell, std::uint64_t context) override;

    // harm.cc
    void harm();
    void partition();
    void one_way();
    void pause();
    void stall();
    void reset();
    void reset_link(std::uint32_t a, std::uint32_t b);
    void transfer();
    void burst();
    void change_membership();
    std::vector<std::uint32_t> running() const;
    std::optional<std::uint32_t> some_leader();
    std::uint32_t some_follower();
    std::uint32_t victim();

    const Profile profile_;
    Application& application_;
    const bool trace_;
    Random random_;
    Instant now_{};
    std::vector<Event> events_;  // a heap
    std::uint64_t order_ = 0;
    std::vector<raft::Message> messages_;  // under way, by slot
    std::vector<std::uint64_t> free_slots_;
    std::vector<Node> nodes_;                 // by id; 0 is none
    std::vector<std::vector<bool>> blocked_;  // from, to
    bool harming_ = true;
    raft::Invariants invariants_;
    Summary summary_;
};

}  // namespace outrider::sim
