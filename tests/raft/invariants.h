// What must hold after every step of any node (thesis figure 3.2, and what it rests on). It sees everything at once, as no
// node can. Every check costs O(what changed).
//
//   * Election safety: one leader in a term.
//   * Votes: one in a term by a node, and remembered over a restart; so is the term that a node has spoken in.
//   * Terms rise; a pre-vote raises none.
//   * Log matching: entries of one index and term are the same, and follow one of the same term.
//   * Leader completeness: a new leader has every entry that was committed in an earlier term.
//   * State machine safety: nodes agree on the committed entry at each index; they apply all of them in order.
//   * A leader commits what a majority of the voters in force has on its disks, up to an entry of its own term (3.6.2).
//   * A leader appends a configuration only after it has committed in its own term.
//   * Nothing of the log survives the installation of a snapshot.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "control/raft/core.h"
#include "tests/raft/disk.h"

namespace outrider::raft {

class Invariants {
  public:
    // The disk of a node; null when there is none of that name.
    using DiskOf = std::function<const Disk*(NodeId)>;
    explicit Invariants(DiskOf disk_of) : disk_of_(std::move(disk_of)) {}

    void started(const Core& core);
    void stepped(const Core& core, const Effects& effects);
    // It leaves the node.
    void sent(const Message& message);

    // The first that was broken, as a sentence.
    const std::optional<std::string>& violation() const { return violation_; }
    LogIndex committed() const { return {committed_.size()}; }
    std::uint64_t leaders() const { return leaders_.size(); }

  private:
    struct Known {  // about a node
        Term term;
        LogIndex commit;
        LogIndex applied;
        Term spoken;                                        // in messages that left
        std::unordered_map<std::uint64_t, NodeId> granted;  // by term, in messages that left
    };
    struct Seen {  // an entry
        Term term;
        Term previous;
        std::uint64_t fingerprint = 0;
    };

    void broken(const Core& core, const std::string& what);
    void check_term(const Core& core, Known& known);
    void check_leader(const Core& core);
    void check_append(const Core& core, const Entry& entry);
    void check_commit(const Core& core, Known& known);
    void check_apply(const Core& core, Known& known, const Effects& effects);
    void check_majority(const Core& core, LogIndex index, Term term);

    DiskOf disk_of_;
    std::optional<std::string> violation_;
    std::unordered_map<std::uint64_t, Known> nodes_;
    std::unordered_map<std::uint64_t, NodeId> leaders_;  // by term
    std::vector<std::vector<Seen>> entries_;             // by index
    std::vector<Term> committed_;                        // by index - 1
    std::vector<Term> committed_in_;  // the committing leader's term, by index - 1; never falls
};

}  // namespace outrider::raft
