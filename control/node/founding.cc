#include "control/node/founding.h"

namespace outrider::node {

bool begins_founding(const Identity& identity, const LogReplay::State& state) {
    const raft::Configuration& founders = *identity.founders;
    // A cluster that was made of a backup begins with its snapshot, in that one's term.
    const raft::HardState begin{state.snapshot.term, raft::kNoNode};
    return founders.voter(identity.node) && founders.voters() > 1 && state.entries.empty() &&
           state.hard_state == begin && *state.snapshot.configuration == founders;
}

Founding::Founding(const raft::Configuration& founders, raft::NodeId self) : needed_(founders.voters() / 2) {
    for (const raft::Member& member : founders.members) {
        if (member.id != self) unasked_.insert(member.id);
    }
}

void Founding::taken_by(raft::NodeId peer) {
    unasked_.erase(peer);
    taken_by_.insert(peer);
}

void Founding::not_reached(raft::NodeId peer) {
    unasked_.erase(peer);
}

}  // namespace outrider::node
