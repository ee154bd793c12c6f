// Linearizable reads, from their coming to the answer of the leader. Pure.
//
// A question or its answer may be lost, so reads are asked about anew. The earlier question stays good all the same: the index in
// its answer was committed, in whatever term, by a leader that was one after the reads had come. So the first answer counts,
// however late it is; else nobody could read at a follower whose leader takes longer to answer than the follower waits.
//
// Invariants
//   * Each item is handed back once: by answered(), by refused(), or by ask_anew().
//   * A question is kept until it is answered or refused, or until all its items have been handed back (seen at ask_anew()).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/time.h"
#include "control/raft/types.h"
#include "control/store/types.h"

namespace outrider::node {

class ReadRounds {
  public:
    // A request of this node, or a lease that a follower asks about.
    struct Item {
        std::uint64_t sequence = 0;
        raft::NodeId from{};  // kNoNode: of this node
        store::LeaseId lease{};
        bool renew = false;
    };
    using Items = std::vector<Item>;

    // It waits for the next question.
    void add(Item item) { fresh_.push_back(item); }
    // Whether something waits for the next question.
    bool waiting();
    // All that waits is asked about under this number, which is never used twice.
    void ask(std::uint64_t context, Instant now);

    // Those that may be read now; none when they have been handed back before.
    Items answered(std::uint64_t context);
    // Those that no other question covers.
    Items refused(std::uint64_t context);
    // Those whose last question is at least so old wait for another one, and come back when they are not `good` for it.
    Items ask_anew(Instant now, Duration age, const std::function<bool(const Item&)>& good);

  private:
    struct Batch {    // came in one turn
        Items items;  // empty: handed back
        Instant asked;
        std::uint32_t questions = 0;  // that are open
        bool waits = false;           // for another
    };
    using Batches = std::vector<std::shared_ptr<Batch>>;

    Items fresh_;
    Batches again_;  // they wait
    std::unordered_map<std::uint64_t, Batches> questions_;
};

}  // namespace outrider::node
