// Deliberate errors, to prove that the simulator finds them. OUTRIDER_BUGS is defined only where tests/sim builds the cores
// with all of them inside (sim_raft_bugs, sim_store_bugs), each behind a switch; in every other build bug() is constant and false.
#pragma once

namespace outrider::raft {

enum class Bug : int {
    kNone = 0,
    kCommitOldTerm = 1,             // an entry of an earlier term is committed by counting (thesis 3.6.2)
    kVoteNotPersisted = 2,          // a vote is answered and not written
    kAckBeforePersist = 3,          // a follower answers before its disk
    kTwoVotes = 4,                  // a vote does not exclude another in the same term
    kReadWithoutRound = 5,          // ReadIndex without heartbeats
    kLeaseIgnoresClock = 6,         // the lease lasts a whole election timeout by the leader's clock
    kAppendWithoutPrevTerm = 7,     // the entry before is looked for by index only
    kTruncateOnStaleAppend = 8,     // what lies behind an append's entries is cut, also committed entries
    kChangeCountsOldMajority = 9,   // the new members are counted against the old majority
    kLeaderCountsUnpersisted = 10,  // a leader counts itself before its disk
    kSnapshotKeepsLog = 11,         // a conflicting log survives the snapshot
    kLearnerCounted = 12,           // learners count for commit and election
    kPreVoteRaisesTerm = 13,
    kChangeBeforeCommit = 14,    // a change before the leader has committed in its term (the published bug)
    kVoteAfterRestart = 15,      // a node forgets at a restart that it has heard a leader
    kLeaseAfterTransfer = 16,    // lease reads go on after TimeoutNow
    kReadBeforeTermCommit = 17,  // ReadIndex before the leader has committed in its term
    kVoteOfAnyTerm = 18,         // a late vote counts in whatever term its candidate is now
    kGoneMeansFree = 19,         // who is told that its leader is gone votes at once
};

#if defined(OUTRIDER_BUGS)
extern int active_bug;  // the number of one; 0: none
inline bool bug(Bug which) {
    return active_bug == static_cast<int>(which);
}
#else
constexpr bool bug(Bug) {
    return false;
}
#endif

}  // namespace outrider::raft
