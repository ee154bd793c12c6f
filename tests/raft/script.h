// Runs a script of consensus: commands, and what happens (the form of cockroachdb/datadriven). Time stands still but for the
// commands that say otherwise; messages lie in one queue until `deliver`; disks sync at once unless held.
//
//   nodes N [lease|single]   a new cluster of 1..N; lease: reads by lease, clock uncertainty 10 %; single: one entry a message
//   node N                   one more, not a member yet
//   timeout N                time goes on to N's deadline, and only N is told
//   beat N                   the same, for a leader's heartbeat, then delivers everything
//   pass 500ms               time goes on, and nobody is told
//   deliver [A->B]           every message (between those two), and what follows from them
//   lose [A->B]              messages in the queue are lost
//   repeat A->B WORD         the last message from A to B that was delivered and had WORD in it comes again
//   partition A B | C        nothing passes between the groups; heal ends it
//   propose N TEXT…          one command each
//   read N CONTEXT
//   gone N LEADER            N's connection to the leader was closed by its end
//   transfer N TO / add-learner N NODE / promote N NODE / remove N NODE
//   hold N / sync N          N's disk waits / has synced, and syncs at once again
//   crash N / restart N      what is not synced is lost
//   compact N [KEEP]         a snapshot of what N has applied; KEEP entries before it stay
//   status [N]               role, term, log, commit, members
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/raft/invariants.h"
#include "tests/raft/shell.h"

namespace outrider::raft {

class Script : public Shell::World {
  public:
    Script();
    // The output of one command, a line for each thing that happened.
    std::string run(const std::string& command);

  private:
    struct Node {
        std::unique_ptr<Disk> disk;
        std::unique_ptr<Shell> shell;  // null while crashed
        bool held = false;
        std::uint64_t starts = 0;
    };
    using Words = std::vector<std::string>;

    void send(Message message) override;
    void stepped(Shell& shell, const Effects& effects) override;
    void applied(Shell& shell, const Entry& entry, std::string result) override;
    void read(Shell& shell, std::uint64_t context) override;
    void read_refused(Shell& shell, std::uint64_t context) override;

    Invariants::DiskOf disks();
    void add(NodeId id, ConfigurationRef founders);
    void start(NodeId id);
    Shell& shell(const std::string& word);
    void step(const std::string& node, Event event);
    void settle();  // disks that are not held sync
    void timeout(const std::string& node);
    bool selected(const Message& message, const Words& words) const;
    void deliver(const Words& words);
    void partition(const Words& words);
    void request(const Words& words);
    void status(const Words& words);
    void say(const std::string& line) { out_ += line + "\n"; }

    Options options_;
    Instant now_{Duration(std::chrono::seconds(100))};
    std::map<NodeId, Node> nodes_;
    std::deque<Message> queue_;
    std::vector<Message> delivered_;
    std::map<NodeId, int> group_;
    Invariants invariants_;
    std::string out_;
};

}  // namespace outrider::raft
