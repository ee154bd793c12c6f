// What really happened to a simulated key space: the history of the log as the first node to apply each entry made it, kept
// whole and simple, beside the stores, which forget, compress and restore theirs. All that nodes and clients see is held
// against it.
//
//   * Nodes: whoever applies an entry gets the answer and the changes that the first one got, and from time to time its whole
//     state, as a snapshot, is equal byte by byte.
//   * Sessions: each numbered command takes effect once.
//   * Clients: every answer names a revision. A linear order that respects real time exists if and only if
//       - a change's revision holds exactly what the client asked for, and lies above `known()` when the client began;
//       - what a read saw is the state at its revision, which lies not below `known()` when a linearizable one began
//     where known() is the highest revision that anybody had been told by then. A serializable read may be late, never wrong.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "control/store/store.h"

namespace outrider::sim {

class Chronicle {
  public:
    // A version of a key; version 0: it was deleted.
    struct Change {
        store::KeyValue kv;
        std::uint32_t sub = 0;
    };

    void applied(std::uint32_t node, std::uint64_t index, const store::Command& command,
                 const store::Store::Applied& applied, store::Store& store);
    void restored(std::uint32_t node, store::Store& store);

    store::Revision revision() const { return revision_; }
    store::Revision compacted() const { return compacted_; }
    store::Revision known() const { return known_; }
    void learn(store::Revision revision) { known_ = std::max(known_, revision); }

    const std::vector<Change>& changes() const { return changes_; }
    // Those of one revision.
    std::span<const Change> changes(store::Revision revision) const;
    // The version that a reader at `revision` sees; nullptr when the key is not there.
    const store::KeyValue* at(const std::string& key, store::Revision revision) const;
    std::vector<store::KeyValue> range(const store::KeyRange& range, store::Revision revision) const;

    void broken(const std::string& sentence) {
        if (!violation_) violation_ = sentence;
    }
    const std::optional<std::string>& violation() const { return violation_; }

  private:
    void first(const store::Command& command, const store::Store::Applied& applied, store::Store& store);
    void compare_state(std::uint32_t node, std::uint64_t index, store::Store& store);

    std::vector<std::uint64_t>
        seen_;  // by index: a digest of the answer and the changes; 0: nobody has applied it
    std::vector<std::uint64_t> states_;  // by index / kStateEvery: the snapshot's digest
    std::vector<Change> changes_;
    std::map<std::string, std::vector<std::size_t>, std::less<>> keys_;  // places in changes_
    std::set<std::pair<std::uint64_t, std::uint64_t>> effective_;        // session and sequence
    store::Revision revision_{1};
    store::Revision compacted_;
    store::Revision known_{1};
    std::optional<std::string> violation_;
};

}  // namespace outrider::sim
