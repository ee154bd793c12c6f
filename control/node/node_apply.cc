// Committed entries into the key space, and what follows from them: answers, watches, leases, snapshots.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "control/api/command.h"
#include "control/node/identity.h"
#include "control/node/node.h"

namespace outrider::node {
namespace {

constexpr std::size_t kExpiredAtOnce = 1000;
constexpr Duration kSnapshotAgainAfter = std::chrono::seconds(30);

}  // namespace

void Node::apply(std::vector<raft::Entry>& entries) {
    const Instant begun = uv::read_clock();
    for (raft::Entry& entry : entries) {
        if (failed_) return;
        bytes_since_snapshot_ += entry.bytes();
        if (leads() && !lease_leading_ && entry.term == core_->term()) {
            lease_leading_ = true;
            lease_clock_.lead(loop_.now(), store_->leases(), settings_.election_timeout);
            session_clock_.lead(loop_.now());
        }
        switch (entry.type) {
            case raft::EntryType::kCommand:
                apply_command(entry);
                break;
            case raft::EntryType::kNoop:
                store_->skip(entry.index.value);
                refuse_sent_before(entry.term);
                break;
            case raft::EntryType::kConfiguration:
                store_->skip(entry.index.value);
                apply_configuration(entry);
                break;
        }
    }
    if (metrics_.apply_seconds != nullptr) metrics_.apply_seconds->observe(uv::read_clock() - begun);
    if (metrics_.applied != nullptr) metrics_.applied->add(entries.size());
    answer_reads();
    answer_members();
    consider_snapshot();
}

void Node::apply_command(raft::Entry& entry) {
    std::optional<RequestTable::Entry> waiting;
    if (entry.command.client == client_id_ && entry.command.sequence != 0)
        waiting = requests_.take(entry.command.sequence);
    store::Command decoded;
    if (!waiting) {
        auto command = api::decode_command(*entry.command.data);
        if (!command) {
            fail("entry " + std::to_string(entry.index.value) + ": " + command.error() +
                 ". Upgrade this node to the version of the others");
            return;
        }
        decoded = std::move(*command);
    }
    const store::Command& command = waiting ? waiting->command : decoded;
    // Watchers that are only a moment behind have theirs before history goes.
    if (std::holds_alternative<store::CompactRequest>(command.request)) pump_watches();
    const store::Store::Applied applied = store_->apply(entry.index.value, command);
    hub_.applied(applied.events);
    // A repeated answer speaks of another time: the lease that it grants may be gone, the one that it revokes granted anew.
    if (lease_leading_ && !applied.repeated) follow_leases(command, applied.response);
    if (waiting) waiting->request->on_applied(applied.response);
}

void Node::follow_leases(const store::Command& command, const store::Response& response) {
    if (response.status != store::Status::kOk) return;
    if (const auto* revoke = std::get_if<store::LeaseRevokeRequest>(&command.request)) {
        lease_clock_.revoked(revoke->id);
    } else if (const auto* grant = std::get_if<store::LeaseGrantResponse>(&response.body)) {
        lease_clock_.granted(loop_.now(), grant->id, grant->ttl_seconds);
    }
}

// A later leader has begun: what was sent to one before it and is not in the log by now was lost, or comes too late to be
// waited for.
void Node::refuse_sent_before(raft::Term term) {
    for (const std::uint64_t sequence : requests_.sent_before(term)) {
        RequestTable::Entry* entry = requests_.find(sequence);
        if (entry == nullptr) continue;
        if (entry->kind == Kind::kLease) {
            if (lease_answers_.contains(sequence)) continue;
            park(sequence, *entry);  // asking again is harmless
        } else {
            refuse(sequence, api::kLeaderChanged);
        }
    }
}

void Node::apply_configuration(const raft::Entry& entry) {
    answer_members();  // before a later leader's no-op refuses those that wait
    const bool member = entry.configuration->find(identity_.node) != nullptr;
    if (member_ && !member) leave();
    member_ = member;
    if (entry.index >= core_->log().configuration_index()) peers_->forget_others(*entry.configuration);
}

// ---- watches and leases ---------------------------------------------------------------------------------------------

void Node::pump_watches() {
    if (sink_ == nullptr) return;
    // A watcher that is far behind puts itself on the list again: the others and the loop get their turns in between.
    for (std::size_t left = hub_.size() + 1; left > 0; --left) {
        const auto id = hub_.next_ready();
        if (!id) return;
        sink_->on_watch(*id);
    }
    schedule_turn();
}

void Node::expire_leases() {
    if (!lease_leading_) return;
    for (const store::LeaseId id : lease_clock_.expired(loop_.now(), kExpiredAtOnce))
        propose_own(store_->expiry(id));
}

// Not while a member may not be able to read it: sessions may be older than that member, or than its version.
void Node::age_sessions() {
    if (!leads() || without_sessions() != nullptr) return;
    const auto millis = session_clock_.tick(loop_.now());
    if (millis && !store_->sessions().all().empty()) propose_own(store::SessionsAgeRequest{*millis});
}

// A command that nobody waits for.
template <typename Request>
void Node::propose_own(const Request& request) {
    store::Command command;
    command.request = request;
    proposals_.push_back(
        {{0, 0, std::make_shared<const std::string>(api::encode_command(command))}, raft::kNoNode});
    schedule_turn();
}

// ---- snapshots ------------------------------------------------------------------------------------------------------

void Node::consider_snapshot() {
    const raft::LogIndex applied{store_->applied_index()};
    const std::uint64_t entries = applied.value - core_->log().snapshot().index.value;
    const bool many = entries >= settings_.snapshot_entries;
    const bool large = bytes_since_snapshot_ >= std::max(kSnapshotBytes, store_->bytes());
    if ((!many && !large) || storage_->saving() || entries == 0) return;
    if (store_->collecting() || loop_.now() < no_snapshot_before_) return;  // walk_on() asks again
    bytes_since_snapshot_ = 0;
    storage_->save(*store_, applied_meta());
}

raft::SnapshotMeta Node::applied_meta() const {
    const raft::LogIndex applied{store_->applied_index()};
    return {applied, core_->log().term(applied).value_or(raft::Term{}),
            core_->log().configuration_at(applied)};
}

void Node::on_saved(const std::optional<raft::SnapshotMeta>& meta) {
    schedule_turn();  // what has waited for it
    if (!meta) no_snapshot_before_ = loop_.now() + kSnapshotAgainAfter;
    if (!meta || failed_ || closed_) return;
    if (meta->index <= core_->log().snapshot().index) return;
    const raft::LogIndex kept = first_kept(meta->index);
    log_info("snapshot at entry {}; the log begins at {}", meta->index.value, kept.value);
    storage_->compact(*meta, kept);
    step(raft::Compact{meta->index, kept});
}

// The slowest follower's next entry, within a limit: a follower that needs more gets the snapshot.
raft::LogIndex Node::first_kept(raft::LogIndex snapshot) const {
    const raft::Log& log = core_->log();
    const raft::LogIndex wanted = std::min(core_->low_water_mark(), snapshot) + 1;
    raft::LogIndex kept = snapshot + 1;
    std::uint64_t entries = 0;
    std::uint64_t bytes = 0;
    while (kept > log.first_index()) {
        const std::uint64_t next = log.bytes(kept - 1);
        const bool tail = entries < settings_.snapshot_entries / kTailShare && bytes + next <= kTailBytes;
        const bool slow =
            kept > wanted && entries < settings_.snapshot_entries && bytes + next <= kSnapshotBytes;
        if (!tail && !slow) break;
        ++entries;
        bytes += next;
        kept = kept - 1;
    }
    return kept;
}

void Node::on_installed(const raft::SnapshotMeta& meta, std::unique_ptr<store::Store> store) {
    if (failed_ || closed_) return;
    log_info("the leader's snapshot at entry {} is installed", meta.index.value);
    restart_walks();
    const store::Revision seen = store_->revision();
    store_ = std::move(store);
    bytes_since_snapshot_ = 0;
    hub_.restored(seen, *store_);
    member_ = meta.configuration->find(identity_.node) != nullptr;
    if (meta.index >= core_->log().configuration_index()) peers_->forget_others(*meta.configuration);
    // Whether what was sent to a leader is in there cannot be told; an entry's index does not tell, it may be another leader's.
    refuse_sent_before(raft::Term{core_->term().value + 1});
    answer_reads();
    schedule_turn();
}

}  // namespace outrider::node
