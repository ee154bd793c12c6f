// When a node that begins with an empty log may take part in consensus. Pure.
//
// Its log may be empty because it has never run, or because its data is lost; it cannot tell, and the others can, as far as they
// have met it (control/node/known_logs.h). So, before it votes, acknowledges or asks for a vote for the first time,
//   * each other founder has been asked: it has taken this node, or could not be reached; and
//   * so many have taken it that they are a majority together with it.
// One that has met another log of it refuses instead, and so does one that takes part in another cluster (it may have been restored,
// or founded by a longer list, since); this node ends. The first start of a cluster needs no more nodes than
// any election does, and waits for one that is missing as long as one attempt to reach it takes.
//
// What is left: an emptied node takes part again when a majority, itself included, consists of nodes that never met it with
// its old log, and none of those that did can be reached when it starts. A write that only the others hold can be lost then. For three
// nodes: one that had never been there when the second was emptied, and the third is away. When one that knows better comes back,
// it still refuses the emptied node, and that ends.
#pragma once

#include <cstddef>
#include <set>

#include "control/node/log_records.h"
#include "control/raft/types.h"

namespace outrider::node {

// Nothing was voted or acknowledged by this node as far as its log says, and others may know better.
bool begins_founding(const Identity& identity, const LogReplay::State& state);

class Founding {
  public:
    Founding(const raft::Configuration& founders, raft::NodeId self);

    // It has seen this node's greeting and does not mind it. Also one that is no founder counts: it is a member by what it knows.
    void taken_by(raft::NodeId peer);
    // An attempt to greet it has failed.
    void not_reached(raft::NodeId peer);

    bool done() const { return unasked_.empty() && taken_by_.size() >= needed_; }

  private:
    std::set<raft::NodeId> unasked_;
    std::set<raft::NodeId> taken_by_;
    std::size_t needed_;
};

}  // namespace outrider::node
