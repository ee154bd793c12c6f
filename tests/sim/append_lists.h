// A few keys, each a list to which clients append and which they read. A list is kept as its length and a hash over its
// elements, so a result tells exactly which prefix was seen, in 16 bytes.
//
// That makes the check for linearizability exact and O(1) an operation, where registers need a search (Wing and Gong 1993):
// an append's result is its place in the order of the key's appends, a read's the place up to which it saw. A linear order
// that respects real time exists if and only if
//   * one place has one append, and all results of one place have the same hash;
//   * an append's place is behind that of every operation of the key that ended before it began;
//   * a read's place is not before that of any operation of the key that ended before it began.
// Keys are checked one by one: linearizability is local (Herlihy and Wing 1990).
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/random.h"
#include "tests/raft/state_machine.h"

namespace outrider::sim {

class AppendLists {
  public:
    struct Operation {
        bool write = false;   // a command; else a query
        std::string request;  // for StateMachine::apply (as command.data) or query
    };
    explicit AppendLists(std::uint64_t read_percent) : read_percent_(read_percent) {}

    static std::unique_ptr<raft::StateMachine> machine();

    // The history, in the order of true time. A client has one operation at a time; a write may be proposed several times
    // with the same client and sequence.
    Operation begin(std::uint64_t client, Random& random);
    void end(std::uint64_t client, const std::string& result);
    // The first thing that no sequential execution explains, as a sentence.
    const std::optional<std::string>& violation() const { return violation_; }

    static constexpr std::uint64_t kKeys = 3;

  private:
    struct Running {
        bool write = false;
        std::uint64_t key = 0;
        std::uint64_t floor = 0;  // the highest place of what had ended when it began
    };
    struct Place {
        std::uint64_t hash = 0;
        bool appended = false;  // an append has claimed it
    };
    struct Key {
        std::uint64_t ended = 0;  // the highest place of what has ended
        std::vector<Place> places;
    };
    void broken(const Running& operation, std::uint64_t place, const std::string& what);

    std::uint64_t read_percent_;
    std::unordered_map<std::uint64_t, Running> running_;
    std::array<Key, kKeys> keys_;
    std::uint64_t values_ = 0;
    std::optional<std::string> violation_;
};

}  // namespace outrider::sim
