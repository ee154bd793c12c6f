#include "tests/raft/invariants.h"

#include <algorithm>
#include <functional>
#include <string_view>

#include "control/raft/quorum.h"
#include "tests/raft/describe.h"

namespace outrider::raft {
namespace {

std::string text(std::uint64_t value) {
    return std::to_string(value);
}

std::uint64_t fingerprint(const Entry& entry) {
    std::uint64_t hash = static_cast<std::uint64_t>(entry.type);
    if (entry.command.data) {
        hash ^= std::hash<std::string_view>{}(*entry.command.data);
        hash ^= mix64(entry.command.client * 31 + entry.command.sequence);
    }
    if (entry.configuration) hash ^= std::hash<std::string>{}(describe(*entry.configuration));
    return hash;
}

}  // namespace

void Invariants::broken(const Core& core, const std::string& what) {
    if (!violation_) violation_ = "node " + text(core.id().value) + ": " + what;
}

void Invariants::started(const Core& core) {
    Known& known = nodes_[core.id().value];
    if (core.term() < known.spoken) {
        broken(core, "has spoken in term " + text(known.spoken.value) + " and restarts in term " +
                         text(core.term().value));
    }
    const auto granted = known.granted.find(core.term().value);
    if (granted != known.granted.end() && granted->second != core.vote()) {
        broken(core, "forgot over a restart its vote for " + text(granted->second.value) + " in term " +
                         text(core.term().value));
    }
    known.term = core.term();
    known.commit = core.commit_index();
    known.applied = core.applied_index();
}

void Invariants::sent(const Message& message) {
    Known& known = nodes_[message.from.value];
    known.spoken = std::max(known.spoken, message.term);
    const auto* vote = std::get_if<VoteResponse>(&message.body);
    if (vote == nullptr || vote->pre || !vote->granted) return;
    const auto [at, first] = known.granted.emplace(vote->asked.value, message.to);
    if (!first && at->second != message.to && !violation_) {
        violation_ = "node " + text(message.from.value) + ": voted for " + text(at->second.value) +
                     " and for " + text(message.to.value) + " in term " + text(vote->asked.value);
    }
}

void Invariants::stepped(const Core& core, const Effects& effects) {
    Known& known = nodes_[core.id().value];
    check_term(core, known);
    for (const Entry& entry : effects.append) {
        check_append(core, entry);
    }
    if (effects.role && effects.role->role == Role::kLeader) check_leader(core);
    if (effects.install && core.log().last_index() > effects.install->index) {
        broken(core, "keeps entries behind the snapshot of " + text(effects.install->index.value));
    }
    check_apply(core, known, effects);
    if (core.commit_index() != known.commit) check_commit(core, known);
}

void Invariants::check_term(const Core& core, Known& known) {
    if (core.term() < known.term) {
        broken(core, "its term fell from " + text(known.term.value) + " to " + text(core.term().value));
    }
    if (core.role() == Role::kPreCandidate && core.term() != known.term) {
        broken(core, "a pre-vote raised its term to " + text(core.term().value));
    }
    known.term = core.term();
}

void Invariants::check_leader(const Core& core) {
    const auto [at, first] = leaders_.emplace(core.term().value, core.id());
    if (!first && at->second != core.id()) {
        broken(core, "leads term " + text(core.term().value) + " which " + text(at->second.value) + " leads");
    }
    // A node that slept may take up a term that others have left behind: it owes nothing to later ones.
    LogIndex last = committed();
    while (last > LogIndex{} && committed_in_[last.value - 1] >= core.term()) {
        last = last - 1;
    }
    if (last > core.log().base_index() && core.log().term(last) != committed_[last.value - 1]) {
        broken(core, "leads without the committed entry " + text(last.value) + "/" +
                         text(committed_[last.value - 1].value));
    }
}

void Invariants::check_append(const Core& core, const Entry& entry) {
    if (entry.index > core.log().last_index()) return;
    const bool own_change = core.role() == Role::kLeader && entry.type == EntryType::kConfiguration;
    if (own_change && core.log().term(core.commit_index()) != core.term()) {
        broken(core, "changes members before it has committed in its own term");
    }
    if (entries_.size() <= entry.index.value) entries_.resize(entry.index.value + 1);
    const Term previous = core.log().term(entry.index - 1).value_or(Term{});
    const std::uint64_t content = fingerprint(entry);
    for (const Seen& seen : entries_[entry.index.value]) {
        if (seen.term != entry.term) continue;
        if (seen.previous != previous || seen.fingerprint != content) {
            broken(core, "log matching: entry " + text(entry.index.value) + "/" + text(entry.term.value) +
                             " behind term " + text(previous.value) + " is another elsewhere, behind term " +
                             text(seen.previous.value));
        }
        return;
    }
    entries_[entry.index.value].push_back({entry.term, previous, content});
}

void Invariants::check_commit(const Core& core, Known& known) {
    const LogIndex now = core.commit_index();
    if (now < known.commit) broken(core, "its commit index fell to " + text(now.value));
    for (LogIndex index = known.commit + 1; index <= now; index = index + 1) {
        const auto term = core.log().term(index);
        if (!term) continue;  // within a snapshot
        if (committed_.size() < index.value) {
            if (committed_.size() + 1 != index.value) broken(core, "commits behind a gap");
            committed_.resize(index.value);
            committed_in_.resize(index.value, core.term());
            committed_[index.value - 1] = *term;
        } else if (committed_[index.value - 1] != *term) {
            broken(core, "commits " + text(index.value) + "/" + text(term->value) + " where " +
                             text(committed_[index.value - 1].value) + " is committed");
        }
    }
    if (core.role() == Role::kLeader && now > known.commit) {
        check_majority(core, now, *core.log().term(now));
        if (core.log().term(now) != core.term()) {
            broken(core, "commits " + text(now.value) + " of term " + text(core.log().term(now)->value) +
                             " by counting in term " + text(core.term().value));
        }
    }
    known.commit = now;
}

void Invariants::check_majority(const Core& core, LogIndex index, Term term) {
    const ConfigurationRef configuration = core.log().configuration();
    std::size_t holders = 0;
    for (const Member& member : configuration->members) {
        const Disk* disk = member.voter ? disk_of_(member.id) : nullptr;
        if (disk != nullptr && disk->holds(index, term)) ++holders;
    }
    if (holders < majority_of(configuration->voters())) {
        broken(core, "commits " + text(index.value) + "/" + text(term.value) + " which is durable on " +
                         text(holders) + " of " + text(configuration->voters()) + " voters");
    }
}

void Invariants::check_apply(const Core& core, Known& known, const Effects& effects) {
    if (effects.install) known.applied = effects.install->index;
    for (const Entry& entry : effects.apply) {
        if (entry.index != known.applied + 1)
            broken(core, "applies " + text(entry.index.value) + " out of order");
        known.applied = entry.index;
        const bool other = entry.index <= committed() && committed_[entry.index.value - 1] != entry.term;
        if (other) {
            broken(core, "applies " + text(entry.index.value) + " where term " +
                             text(committed_[entry.index.value - 1].value) + " is committed");
        }
    }
}

}  // namespace outrider::raft
