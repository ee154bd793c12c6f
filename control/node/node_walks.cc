// What goes over the whole state: in pieces, one a turn, so that no request and no heartbeat waits for it.
//
// Walks keep history from being collected, and a snapshot needs a state that is collected: while there is something to collect, only
// what has begun goes on.
#include <utility>

#include "control/node/node.h"

namespace outrider::node {
namespace {

// About a millisecond each.
constexpr std::size_t kHashedATurn = 2000;
constexpr std::size_t kCollectedATurn = 2000;

}  // namespace

void Node::hash(OnHash done) {
    if (failed_ || closed_) {
        done(std::nullopt);
        return;
    }
    hash_waiting_.push_back(std::move(done));
    schedule_turn();
}

bool Node::backup(Storage::OnBackup done) {
    // Of what is in the log, a node that has just begun does not know what is committed: it may have applied nothing yet.
    if (!leader_known_ && core_->log().last_index() > core_->applied_index()) {
        done(nullptr, 0,
             "no leader has been heard since this node was started, so it does not know how much of its log "
             "is committed: ask a node that has been running, or start a majority");
        return true;
    }
    if (storage_->saving() || backup_waiting_ || failed_ || closed_) return false;
    backup_waiting_ = std::move(done);
    schedule_turn();
    return true;
}

// True: there is more to do at once.
bool Node::walk_on() {
    if (store_->collecting()) store_->collect(kCollectedATurn);
    if (!store_->collecting()) {
        // The backup first: a snapshot of the node's own is always due again when there is much to write.
        if (backup_waiting_ && !storage_->saving())
            storage_->save_backup(*store_, applied_meta(), std::exchange(backup_waiting_, nullptr));
        consider_snapshot();
        if (!hash_walk_ && !hash_waiting_.empty()) {
            hash_walk_ = std::make_unique<store::HashWalk>(*store_, store_->revision());
            hashing_ = std::exchange(hash_waiting_, {});
        }
    }
    if (hash_walk_ && !hash_walk_->next(kHashedATurn)) {
        const Hashed hashed{hash_walk_->revision(), static_cast<std::uint32_t>(hash_walk_->digest())};
        hash_walk_.reset();
        for (const OnHash& done : std::exchange(hashing_, {}))
            done(hashed);
    }
    // What waits for a snapshot goes on when that is saved.
    return hash_walk_ != nullptr || (!store_->held() && (store_->collecting() || !hash_waiting_.empty()));
}

// The state is about to be another.
void Node::restart_walks() {
    storage_->cancel_save();
    hash_walk_.reset();
    for (OnHash& done : hashing_)
        hash_waiting_.push_back(std::move(done));
    hashing_.clear();
}

void Node::end_walks() {
    restart_walks();
    if (backup_waiting_) std::exchange(backup_waiting_, nullptr)(nullptr, 0, {});
    for (const OnHash& done : std::exchange(hash_waiting_, {}))
        done(std::nullopt);
}

}  // namespace outrider::node
