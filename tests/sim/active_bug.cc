// The switch of the deliberate errors, in the programs that have them inside (bite.py).
namespace outrider::raft {
extern int active_bug;
int active_bug = 0;
}  // namespace outrider::raft

namespace outrider::store {
extern int active_bug;
int active_bug = 0;
}  // namespace outrider::store
