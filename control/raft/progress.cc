#include "control/raft/progress.h"

#include <algorithm>

namespace outrider::raft {

bool Progress::ready(const Options& options) const {
    switch (state_) {
        case State::kProbe:
            return !probe_sent_;
        case State::kReplicate:
            return inflight_.size() < options.inflight_messages_max &&
                   inflight_bytes_ < options.inflight_bytes_max.value;
        case State::kSnapshot:
            return false;
    }
    return false;
}

void Progress::sent(LogIndex last, std::uint64_t bytes, std::uint64_t round) {
    if (state_ == State::kProbe) {
        probe_sent_ = true;
        probe_round_ = round;
        return;
    }
    if (last < next_) return;
    next_ = last + 1;
    inflight_.push_back({last, bytes, round});
    inflight_bytes_ += bytes;
}

bool Progress::accepted(LogIndex match, LogIndex base) {
    const bool news = match > match_;
    match_ = std::max(match_, match);
    next_ = std::max(next_, match_ + 1);
    free_inflight(match);
    // From `base` on it needs entries only, though the snapshot that is under way be newer than the one that brought it there.
    const bool past_snapshot =
        state_ == State::kSnapshot && (match_ >= snapshot_->meta.index || match_ >= base);
    const bool caught_up = state_ == State::kProbe || past_snapshot;
    if (caught_up) {
        state_ = State::kReplicate;
        next_ = match_ + 1;
        snapshot_.reset();
        probe_sent_ = false;
    }
    return news || caught_up;
}

bool Progress::rejected(LogIndex rejected, LogIndex agrees_at_most) {
    if (state_ == State::kSnapshot) return false;
    // An old answer; or the peer has lost what it had promised. Then nothing helps it, and what is tried again waits for a
    // heartbeat (resume): at once it would be refused at once, as fast as the network is.
    if (rejected <= match_) return false;
    if (state_ == State::kReplicate) {
        become_probe();
        next_ = std::max(std::min(rejected, agrees_at_most + 1), match_ + 1);
        return true;
    }
    if (next_ != rejected + 1) return false;
    next_ = std::max(std::min(rejected, agrees_at_most + 1), match_ + 1);
    probe_sent_ = false;
    return true;
}

void Progress::resume(std::uint64_t round, const Options& options) {
    if (round > probe_round_) probe_sent_ = false;
    const bool full = inflight_.size() >= options.inflight_messages_max ||
                      inflight_bytes_ >= options.inflight_bytes_max.value;
    if (state_ == State::kReplicate && full && round > inflight_.front().round)
        free_inflight(inflight_.front().last);
}

void Progress::send_snapshot(const SnapshotMeta& meta) {
    become_probe();
    state_ = State::kSnapshot;
    snapshot_ = Transfer{.meta = meta};
}

void Progress::acknowledged(std::uint64_t round, Instant sent_at) {
    if (round <= acknowledged_round_) return;
    acknowledged_round_ = round;
    acknowledged_at_ = sent_at;
}

void Progress::become_probe() {
    state_ = State::kProbe;
    probe_sent_ = false;
    inflight_.clear();
    inflight_bytes_ = 0;
    snapshot_.reset();
}

void Progress::free_inflight(LogIndex up_to) {
    while (!inflight_.empty() && inflight_.front().last <= up_to) {
        inflight_bytes_ -= inflight_.front().bytes;
        inflight_.pop_front();
    }
}

}  // namespace outrider::raft
