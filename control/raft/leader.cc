// What a leader does for its peers: appends, heartbeats, snapshots, and counting their answers.
#include <algorithm>
#include <utility>

#include "control/raft/bugs.h"
#include "control/raft/core.h"
#include "control/raft/quorum.h"

namespace outrider::raft {

void Core::lead(const Tick&) {
    const auto contact = quorum_contact();
    if (contact && now_ >= *contact + options_.election_timeout) {
        become_follower(hard_state_.term, kNoNode);  // thesis 6.2
        return;
    }
    if (transfer_ && now_ >= transfer_->until) transfer_.reset();
    if (now_ >= heartbeat_due_) broadcast_heartbeat();
}

// After the log's configuration may have changed.
void Core::follow_configuration(LogIndex next_of_new_peers) {
    configuration_ = log_.configuration();
    follow_role();
    if (role_ != Role::kLeader) return;
    std::vector<Progress> peers;
    for (const Member& member : configuration_->members) {
        if (member.id == id_) continue;
        Progress* known = peer(member.id);
        if (known != nullptr) {
            peers.push_back(std::move(*known));
        } else {
            peers.emplace_back(member.id, next_of_new_peers, now_);
        }
    }
    peers_ = std::move(peers);
    if (transfer_ && !configuration_->voter(transfer_->to)) transfer_.reset();
}

const Progress* Core::peer(NodeId id) const {
    for (const Progress& peer : peers_) {
        if (peer.id() == id) return &peer;
    }
    return nullptr;
}

Progress* Core::peer(NodeId id) {
    return const_cast<Progress*>(std::as_const(*this).peer(id));
}

Entry Core::next_entry(EntryType type) const {
    Entry entry;
    entry.term = term();
    entry.index = log_.last_index() + 1;
    entry.type = type;
    return entry;
}

void Core::append_own(Entry entry) {
    uncommitted_bytes_ += entry.bytes();
    append(std::move(entry));
}

void Core::broadcast_append() {
    for (Progress& peer : peers_) {
        send_appends(peer, false);
    }
}

// As much as may be in flight; `empty_too`: at least one append, if any may be sent at all.
void Core::send_appends(Progress& peer, bool empty_too) {
    while (send_append(peer, empty_too)) {
        empty_too = false;
    }
}

// True when another may follow.
bool Core::send_append(Progress& peer, bool empty_too) {
    if (!peer.ready(options_)) return false;
    if (!empty_too && peer.next() > log_.last_index()) return false;
    const LogIndex prev = peer.next() - 1;
    const auto prev_term = log_.term(prev);
    if (!prev_term) {
        peer.send_snapshot(log_.snapshot());
        send_chunk(peer);
        return false;
    }
    auto entries = log_.batch(peer.next(), options_.message_entries_max, options_.message_bytes_max.value);
    std::uint64_t bytes = 0;
    for (const Entry& entry : entries) {
        bytes += entry.bytes();
    }
    const LogIndex last = prev + entries.size();
    const bool more = last < log_.last_index() && peer.state() == Progress::State::kReplicate;
    send(peer.id(), AppendRequest{prev, *prev_term, std::move(entries), commit_});
    peer.sent(last, bytes, round_);
    peer.commit_sent = commit_;
    return more;
}

void Core::send_chunk(Progress& peer) {
    peer.snapshot()->round = round_;
    send(peer.id(), SnapshotChunk{.meta = peer.snapshot()->meta, .offset = peer.snapshot()->offset});
}

// The chunk, or the answer to it, was lost. A newer snapshot would begin at 0, and a transfer that takes longer than it takes
// to make one would never end: it is turned to only when the shell seems to have the old one no more.
void Core::resend_chunk(Progress& peer) {
    Progress::Transfer& transfer = *peer.snapshot();
    if (transfer.again && transfer.meta.index < log_.snapshot().index) {
        peer.send_snapshot(log_.snapshot());
    } else {
        transfer.again = true;
    }
    send_chunk(peer);
}

// Also begins the round that confirms the reads that have been waiting.
void Core::broadcast_heartbeat() {
    heartbeat_due_ = now_ + options_.heartbeat;
    ++round_;
    if (committed_in_term() || bug(Bug::kReadBeforeTermCommit)) {
        for (PendingRead& read : reads_waiting_) {
            read.round = round_;
            read.index = commit_;
            reads_confirming_.push_back(read);
        }
        reads_waiting_.clear();
    }
    for (const Progress& peer : peers_) {
        send(peer.id(), Heartbeat{std::min(peer.match(), commit_), round_, now_});
    }
    release_reads();
}

// An entry is committed when a majority has it durably and it is of this term; those before it follow (3.6.2).
void Core::count_commits() {
    Quorum quorum(majority());
    const LogIndex own = bug(Bug::kLeaderCountsUnpersisted) ? log_.last_index() : log_.durable_index();
    if (voter()) quorum.add(own.value);
    for (const Progress& peer : peers_) {
        if (configuration().voter(peer.id()) || bug(Bug::kLearnerCounted)) quorum.add(peer.match().value);
    }
    const LogIndex reached{quorum.reached()};
    if (reached <= commit_ || reached > log_.last_index()) return;
    if (log_.term(reached) != term() && !bug(Bug::kCommitOldTerm)) return;
    advance_commit(reached);
    if (!voter() && log_.configuration_index() <= commit_) {
        leave();
        return;
    }
    for (Progress& peer : peers_) {
        const bool news = peer.state() == Progress::State::kReplicate && peer.commit_sent < commit_;
        send_appends(peer, news);
    }
    confirm_reads();
}

// When a majority, this leader included, was last heard. Nothing when it needs nobody else.
std::optional<Instant> Core::quorum_contact() const {
    const auto number = [](Instant at) { return static_cast<std::uint64_t>(at.time_since_epoch().count()); };
    if (voter() && majority() == 1) return std::nullopt;
    Quorum quorum(majority());
    if (voter()) quorum.add(number(now_));
    for (const Progress& peer : peers_) {
        if (configuration().voter(peer.id())) quorum.add(number(peer.last_contact()));
    }
    return Instant(Duration(static_cast<std::int64_t>(quorum.reached())));
}

void Core::on_body(const Message& message, const AppendResponse& response) {
    Progress* from = peer(message.from);
    if (from == nullptr || response.index > log_.last_index()) return;
    from->heard(now_);
    if (response.rejected) {
        // Of this log's entries none behind the hint with a later term can be in a log that ends so.
        const LogIndex guess = log_.last_with_term_at_most(response.hint_index, response.hint_term);
        if (from->rejected(response.index, guess)) send_appends(*from, true);
        return;
    }
    if (from->accepted(response.index, log_.base_index())) {
        count_commits();
        from = peer(message.from);  // count_commits() may have ended the leadership
        if (from == nullptr) return;
        try_transfer();
    }
    send_appends(*from, false);
}

void Core::on_body(const Message& message, const HeartbeatResponse& response) {
    Progress* from = peer(message.from);
    if (from == nullptr || response.round > round_) return;
    from->heard(now_);
    from->acknowledged(response.round, response.sent_at);
    from->resume(response.round, options_);
    if (auto& transfer = from->snapshot()) {
        if (response.round > transfer->round) resend_chunk(*from);
    } else {
        // Nothing says that an append was lost; an empty one behind it gets it refused.
        const bool behind = from->state() == Progress::State::kProbe || from->match() < log_.last_index();
        send_appends(*from, behind);
    }
    release_reads();
}

void Core::on_body(const Message& message, const SnapshotResponse& response) {
    Progress* from = peer(message.from);
    if (from == nullptr) return;
    from->heard(now_);
    auto& transfer = from->snapshot();
    if (!transfer || transfer->meta.index != response.index) return;
    transfer->again = false;
    if (transfer->offset == response.offset) return;
    transfer->offset = response.offset;
    send_chunk(*from);
}

}  // namespace outrider::raft
