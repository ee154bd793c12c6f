// Deliberate errors of the key space, to prove that the simulator finds them; as control/raft/bugs.h.
#pragma once

namespace outrider::store {

enum class Bug : int {
    kNone = 0,
    kCompactionTakesBoundary = 101,  // history loses the compacted revision, where a watch may still begin
    kWatchRepeatsRevision = 102,     // a watcher that has caught up goes on at the revision, not behind it
    kWatchJumpsCompaction = 103,     // a watcher that compaction has overtaken goes on behind the gap
    kWatchForgetsFragment = 104,     // a revision in fragments begins anew with each
    kProgressWhileBehind = 105,      // progress is told to a watcher that has not got everything yet
    kRestoreUnnoticed = 106,         // a snapshot replaces the store, and watchers do not hear what it holds
    kSnapshotWithoutSessions = 107,
    kRetryTakesEffect = 108,        // a command that comes again is carried out again
    kSnapshotLosesLeaseKeys = 109,  // a restored lease does not know its keys
    kCompactionDropsVisible = 110,  // also the version that a reader at the compacted revision sees
    kLeaderKeepsDeadlines = 111,    // a leader that was one before goes on with the deadlines of then
    kExpiredIsRenewed = 112,        // a keepalive renews a lease whose revocation is on its way
    kRestoredHistoryByKey = 113,    // history from a snapshot stands in the order of the keys
    kFutureWatchStartsNow = 114,    // a watch from a revision to come gets what lies before it
    kExpiryTakesNextGrant = 115,    // the end of one grant revokes the next of the same id
    // What the shell around the store owes, and clients; tests/sim's make these errors.
    kKeepAliveUnconfirmed = 151,    // whoever believes to lead answers a keepalive, without asking a majority
    kReadWithoutIndex = 152,        // a linearizable read is answered from what happens to be applied
    kHolderCountsFromAnswer = 153,  // a holder counts its lease from the answer instead of the question
    kResumesAtRevision = 154,       // a watch that reconnects asks from its last revision, not behind it
};

#if defined(OUTRIDER_BUGS)
extern int active_bug;
inline bool bug(Bug which) {
    return active_bug == static_cast<int>(which);
}
#else
constexpr bool bug(Bug) {
    return false;
}
#endif

}  // namespace outrider::store
