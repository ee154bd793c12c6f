// What a node takes from the leader: appends, heartbeats, snapshots.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "control/raft/bugs.h"
#include "control/raft/core.h"

namespace outrider::raft {

// The sender leads this term: admit() has compared terms, and there is one leader in a term.
void Core::hear(NodeId leader) {
    if (role_ == Role::kPreCandidate || role_ == Role::kCandidate || leader_ != leader) {
        become_follower(hard_state_.term, leader);
    }
    leader_heard_ = now_;
    led_ = term();
    leader_gone_ = false;
    reset_election_deadline();
}

bool Core::well_formed(const Message& message, const AppendRequest& request) const {
    LogIndex index = request.prev_index;
    Term at = request.prev_term;
    for (const Entry& entry : request.entries) {
        if (entry.index != index + 1 || entry.term < at || entry.term > message.term) return false;
        if ((entry.type == EntryType::kCommand) != (entry.command.data != nullptr)) return false;
        if ((entry.type == EntryType::kConfiguration) != (entry.configuration != nullptr)) return false;
        index = entry.index;
        at = entry.term;
    }
    return request.prev_term <= message.term;
}

void Core::on_body(const Message& message, AppendRequest& request) {
    if (role_ == Role::kLeader || !well_formed(message, request)) return;
    hear(message.from);
    // What is committed agrees already (leader completeness); the window may no longer hold it.
    std::size_t skip = 0;
    if (request.prev_index < commit_) {
        skip = std::min<std::uint64_t>(request.entries.size(), commit_.value - request.prev_index.value);
    }
    const LogIndex prev = request.prev_index + skip;
    if (prev > commit_) {
        const Term prev_term = skip > 0 ? request.entries[skip - 1].term : request.prev_term;
        const bool matches =
            bug(Bug::kAppendWithoutPrevTerm) ? prev <= log_.last_index() : log_.matches(prev, prev_term);
        if (!matches) {
            const LogIndex hint = log_.last_with_term_at_most(prev, prev_term);
            send(message.from,
                 AppendResponse{true, request.prev_index, hint, log_.term(hint).value_or(Term{})});
            return;
        }
    }
    take_entries(request, skip);
    const LogIndex last = prev + (request.entries.size() - skip);
    agreed_ = std::max({agreed_, last, commit_});
    advance_commit(std::min(request.commit, last));
    answer_append(false);
}

// Those behind `skip`; what the log has already is left alone, since an append may be old (3.5).
void Core::take_entries(AppendRequest& request, std::size_t skip) {
    std::size_t i = skip;
    if (bug(Bug::kTruncateOnStaleAppend)) {
        const LogIndex end = request.prev_index + i;
        if (end < log_.last_index() && end >= log_.base_index()) {
            log_.truncate_after(end);
            effects_.truncate_after = end;
            commit_ = std::min(commit_, end);
        }
    }
    while (i < request.entries.size() && log_.matches(request.entries[i].index, request.entries[i].term)) {
        ++i;
    }
    if (i == request.entries.size()) return;
    const LogIndex after = request.entries[i].index - 1;
    if (after < log_.last_index()) {
        require(bug(Bug::kAppendWithoutPrevTerm) || after >= commit_, "a committed entry is never replaced");
        log_.truncate_after(after);
        effects_.truncate_after = after;
        agreed_ = std::min(agreed_, after);
        follow_configuration(log_.last_index());
    }
    for (; i < request.entries.size(); ++i) {
        append(std::move(request.entries[i]));
    }
}

// Promises no more than what is durable; the rest when Persisted comes.
void Core::answer_append(bool partly_too) {
    const LogIndex durable = bug(Bug::kAckBeforePersist) ? log_.last_index() : log_.durable_index();
    if (leader_ == kNoNode || leader_ == id_) return;
    const LogIndex index = std::min(agreed_, durable);
    answer_owed_ = index < agreed_;
    if (!answer_owed_ || (partly_too && index >= commit_)) send(leader_, AppendResponse{.index = index});
}

void Core::on_body(const Message& message, const Heartbeat& heartbeat) {
    if (role_ == Role::kLeader) return;
    hear(message.from);
    // This node has acknowledged that much in this term, perhaps before a restart.
    advance_commit(std::min(heartbeat.commit, log_.last_index()));
    send(message.from, HeartbeatResponse{heartbeat.round, heartbeat.sent_at});
}

void Core::on_body(const Message& message, const SnapshotChunk& chunk) {
    if (role_ == Role::kLeader || chunk.meta.configuration == nullptr || chunk.data == nullptr) return;
    hear(message.from);
    const LogIndex index = chunk.meta.index;
    if (index <= commit_ || log_.matches(index, chunk.meta.term)) {
        // It has all of that. The log and what lies behind it stays (thesis 5.1, figure 5.3 step 6).
        receiving_.reset();
        agreed_ = std::max(agreed_, std::max(index, commit_));
        advance_commit(index);
        answer_append(false);
        // While the disk works: so that the leader does not take its snapshot for gone.
        if (answer_owed_) send(message.from, SnapshotResponse{index, chunk.offset});
        return;
    }
    if (chunk.offset == 0) receiving_ = Receiving{chunk.meta, 0};
    const bool known =
        receiving_ && receiving_->meta.index == index && receiving_->meta.term == chunk.meta.term;
    if (!known) {
        send(message.from, SnapshotResponse{index, 0});
        return;
    }
    if (receiving_->offset == chunk.offset) {
        receiving_->offset += chunk.data->size();
        effects_.chunk = StoreChunk{chunk.meta, chunk.offset, chunk.data};
        if (chunk.last) {
            install(chunk.meta);
            return;
        }
    }
    send(message.from, SnapshotResponse{index, receiving_->offset});
}

void Core::install(const SnapshotMeta& meta) {
    receiving_.reset();
    effects_.install = meta;
    log_.reset(meta);
    commit_ = meta.index;
    applied_ = meta.index;
    agreed_ = meta.index;
    answer_owed_ = true;  // when it is durable
    follow_configuration(log_.last_index());
}

void Core::on_body(const Message&, const ReadResponse& response) {
    if (response.refused) {
        effects_.reads_refused.push_back(response.context);
    } else {
        effects_.reads.push_back({response.context, response.index});
    }
}

}  // namespace outrider::raft
