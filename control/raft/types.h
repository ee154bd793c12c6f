// The values that consensus is about: terms, indexes, nodes, log entries, configurations, snapshots.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace outrider::raft {

// A generation of leadership: at most one leader each. 0: before the first election.
struct Term {
    std::uint64_t value = 0;
    friend constexpr auto operator<=>(const Term&, const Term&) = default;
};

// The place of an entry in the log, from 1 on. 0: before the first.
struct LogIndex {
    std::uint64_t value = 0;
    friend constexpr auto operator<=>(const LogIndex&, const LogIndex&) = default;
    friend constexpr LogIndex operator+(LogIndex index, std::uint64_t n) { return {index.value + n}; }
    friend constexpr LogIndex operator-(LogIndex index, std::uint64_t n) { return {index.value - n}; }
};

// Names a node for ever: a node that lost its disk joins under a new one, since its votes are forgotten. 0: none.
struct NodeId {
    std::uint64_t value = 0;
    friend constexpr auto operator<=>(const NodeId&, const NodeId&) = default;
};
inline constexpr NodeId kNoNode{};

struct Member {
    NodeId id{};
    bool voter = false;     // else a learner: it receives the log and counts nowhere
    std::string address{};  // opaque to consensus
    friend bool operator==(const Member&, const Member&) = default;
};

// In one configuration.
inline constexpr std::size_t kMembersMax = 32;

// Who takes part. Sorted by id, no id twice, at most kMembersMax.
struct Configuration {
    std::vector<Member> members;

    const Member* find(NodeId id) const;
    bool voter(NodeId id) const;
    std::size_t voters() const;
    friend bool operator==(const Configuration&, const Configuration&) = default;
};
using ConfigurationRef = std::shared_ptr<const Configuration>;  // never null

enum class EntryType : std::uint8_t {
    kNoop = 0,           // a leader's first: commits what earlier terms have left (thesis 6.4 step 1)
    kCommand = 1,        // for the state machine
    kConfiguration = 2,  // takes effect when appended (thesis 4.1)
};

// Handed in by a client and given back at apply; opaque to consensus. The state machine uses client and sequence to let
// a command that arrives twice take effect once (thesis 6.3).
struct Command {
    std::uint64_t client = 0;
    std::uint64_t sequence = 0;
    std::shared_ptr<const std::string> data{};  // never null
};

struct Entry {
    Term term{};
    LogIndex index{};
    EntryType type = EntryType::kNoop;
    Command command{};                                     // kCommand; its data is null otherwise
    std::shared_ptr<const Configuration> configuration{};  // kConfiguration; else null

    // What it counts against the limits in bytes: its data, or an estimate, and 64 for the frame.
    std::uint64_t bytes() const;
};

// What must survive a crash beside the log (thesis figure 3.1).
struct HardState {
    Term term{};
    NodeId vote{};  // in this term
    friend bool operator==(const HardState&, const HardState&) = default;
};

// What a snapshot replaces: every entry up to `index`. Index 0 is the empty state with which a cluster is founded; its
// configuration is that of the founders, equal on all of them, and empty on a node that will be added.
struct SnapshotMeta {
    LogIndex index{};
    Term term{};
    std::shared_ptr<const Configuration> configuration{};
};

}  // namespace outrider::raft
