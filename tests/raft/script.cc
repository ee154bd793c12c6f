#include "tests/raft/script.h"

#include <algorithm>
#include <sstream>
#include <utility>

#include "base/check.h"
#include "base/units.h"
#include "tests/raft/describe.h"

namespace outrider::raft {
namespace {

// Remembers every command.
class Lines : public StateMachine {
  public:
    std::string apply(const Entry& entry) override {
        lines_ += *entry.command.data + "\n";
        return {};
    }
    std::string query(std::string_view) const override { return lines_; }
    std::string snapshot() const override { return lines_; }
    void restore(std::string_view snapshot) override { lines_ = snapshot; }

  private:
    std::string lines_;
};

std::string name(NodeId id) {
    return std::to_string(id.value);
}

NodeId id_of(const std::string& word) {
    return {std::stoull(word)};
}

}  // namespace

Script::Script() : invariants_(disks()) {}

Invariants::DiskOf Script::disks() {
    return [this](NodeId id) -> const Disk* {
        const auto at = nodes_.find(id);
        return at == nodes_.end() ? nullptr : at->second.disk.get();
    };
}

std::string Script::run(const std::string& command) {
    out_.clear();
    std::istringstream in(command);
    Words words;
    for (std::string word; in >> word;) {
        words.push_back(word);
    }
    const std::string verb = words.front();
    if (verb == "nodes") {
        Configuration founders;
        for (std::uint64_t n = 1; n <= std::stoull(words[1]); ++n) {
            founders.members.push_back({{n}, true, ""});
        }
        nodes_.clear();
        queue_.clear();
        group_.clear();
        invariants_ = Invariants(disks());
        options_.lease_reads = words.back() == "lease";
        if (words.back() == "single") options_.message_entries_max = 1;
        options_.clock_uncertainty = 0.1;
        const auto shared = std::make_shared<const Configuration>(std::move(founders));
        for (const Member& member : shared->members) {
            add(member.id, shared);
        }
    } else if (verb == "node") {
        add(id_of(words[1]), std::make_shared<const Configuration>());
    } else if (verb == "timeout") {
        timeout(words[1]);
    } else if (verb == "beat") {
        timeout(words[1]);
        deliver({"deliver"});
    } else if (verb == "pass") {
        now_ += parse_duration(words[1]).value();
    } else if (verb == "deliver") {
        deliver(words);
    } else if (verb == "lose") {
        std::erase_if(queue_, [&](const Message& message) { return selected(message, words); });
    } else if (verb == "repeat") {
        const auto found = std::find_if(delivered_.rbegin(), delivered_.rend(), [&](const Message& message) {
            return selected(message, words) && describe(message).find(words[2]) != std::string::npos;
        });
        require(found != delivered_.rend(), "such a message was delivered");
        queue_.push_back(*found);
        deliver(words);
    } else if (verb == "partition" || verb == "heal") {
        partition(words);
    } else if (verb == "status") {
        status(words);
    } else {
        request(words);
    }
    if (invariants_.violation()) say("VIOLATION: " + *invariants_.violation());
    return out_;
}

void Script::add(NodeId id, ConfigurationRef founders) {
    nodes_[id].disk = std::make_unique<Disk>(std::move(founders));
    start(id);
}

void Script::start(NodeId id) {
    Node& node = nodes_.at(id);
    constexpr std::size_t kChunkBytes = 16;
    node.held = false;
    node.shell = std::make_unique<Shell>(*this, id, options_, id.value * 100 + node.starts++, *node.disk,
                                         std::make_unique<Lines>(), kChunkBytes, now_);
    invariants_.started(node.shell->core());
}

Shell& Script::shell(const std::string& word) {
    Node& node = nodes_.at(id_of(word));
    require(node.shell != nullptr, "the script talks to a node that runs");
    return *node.shell;
}

void Script::step(const std::string& node, Event event) {
    Shell& at = shell(node);
    at.step(now_, std::move(event));
    if (at.outcome && at.outcome->refusal != Refusal::kNone) {
        say(node + ": refused: " + to_string(at.outcome->refusal));
    }
    settle();
}

void Script::settle() {
    for (bool again = true; std::exchange(again, false);) {
        for (auto& [id, node] : nodes_) {
            if (node.shell == nullptr || node.held || !node.disk->pending()) continue;
            node.shell->synced(now_, node.disk->last_written());
            again = true;
        }
    }
}

void Script::timeout(const std::string& node) {
    const auto deadline = shell(node).core().next_deadline();
    if (!deadline) {
        say(node + ": waits for nothing");
        return;
    }
    now_ = std::max(now_, *deadline);
    step(node, Tick{});
}

// `word`: A->B, or nothing for all.
bool Script::selected(const Message& message, const Words& words) const {
    return words.size() < 2 || words[1] == name(message.from) + "->" + name(message.to);
}

void Script::deliver(const Words& words) {
    constexpr int kMessagesMax = 300;
    for (int i = 0; i < kMessagesMax; ++i) {
        const auto at = std::find_if(queue_.begin(), queue_.end(),
                                     [&](const Message& message) { return selected(message, words); });
        if (at == queue_.end()) return;
        Message message = std::move(*at);
        queue_.erase(at);
        const auto to = nodes_.find(message.to);
        const bool apart = group_[message.from] != group_[message.to];
        if (to == nodes_.end() || to->second.shell == nullptr || apart) {
            say(describe(message) + " (lost)");
            continue;
        }
        say(describe(message));
        delivered_.push_back(message);
        to->second.shell->step(now_, std::move(message));
        settle();
    }
    say("…and more");
}

void Script::partition(const Words& words) {
    group_.clear();
    int group = 0;
    for (std::size_t i = 1; i < words.size(); ++i) {
        if (words[i] == "|") {
            ++group;
        } else {
            group_[id_of(words[i])] = group;
        }
    }
}

void Script::request(const Words& words) {
    const std::string& verb = words[0];
    const std::string& node = words[1];
    using Kind = ChangeMembership::Kind;
    if (verb == "propose") {
        Propose propose;
        for (std::size_t i = 2; i < words.size(); ++i) {
            propose.commands.push_back({0, 0, std::make_shared<const std::string>(words[i])});
        }
        step(node, std::move(propose));
    } else if (verb == "read") {
        step(node, BeginRead{std::stoull(words[2])});
    } else if (verb == "gone") {
        step(node, LeaderGone{id_of(words[2])});
    } else if (verb == "transfer") {
        step(node, TransferLeadership{id_of(words[2])});
    } else if (verb == "add-learner") {
        step(node, ChangeMembership{Kind::kAddLearner, id_of(words[2]), ""});
    } else if (verb == "promote") {
        step(node, ChangeMembership{Kind::kPromote, id_of(words[2]), ""});
    } else if (verb == "remove") {
        step(node, ChangeMembership{Kind::kRemove, id_of(words[2]), ""});
    } else if (verb == "hold") {
        nodes_.at(id_of(node)).held = true;
    } else if (verb == "sync") {
        nodes_.at(id_of(node)).held = false;
        settle();
    } else if (verb == "crash") {
        nodes_.at(id_of(node)).shell.reset();
        nodes_.at(id_of(node)).disk->crash();
    } else if (verb == "restart") {
        start(id_of(node));
    } else if (verb == "compact") {
        shell(node).compact(now_, words.size() > 2 ? std::stoull(words[2]) : 0);
    } else {
        say("no such command: " + verb);
    }
}

void Script::status(const Words& words) {
    for (const auto& [id, node] : nodes_) {
        if (words.size() > 1 && words[1] != name(id)) continue;
        if (node.shell == nullptr) {
            say(name(id) + ": down");
            continue;
        }
        const Core& core = node.shell->core();
        std::string line = name(id) + ": " + to_string(core.role()) +
                           " term=" + std::to_string(core.term().value) + " leader=" + name(core.leader()) +
                           " commit=" + std::to_string(core.commit_index().value) +
                           " applied=" + std::to_string(core.applied_index().value) + " members {" +
                           describe(*core.log().configuration()) + "} log after " +
                           std::to_string(core.log().base_index().value) + ":";
        for (LogIndex i = core.log().first_index(); i <= core.log().last_index(); i = i + 1) {
            line += " " + std::to_string(i.value) + "/" + std::to_string(core.log().at(i).term.value);
        }
        say(line);
    }
}

void Script::send(Message message) {
    invariants_.sent(message);
    queue_.push_back(std::move(message));
}

void Script::stepped(Shell& shell, const Effects& effects) {
    invariants_.stepped(shell.core(), effects);
    const std::string who = name(shell.core().id());
    if (effects.install)
        say(who + ": installs the snapshot of " + std::to_string(effects.install->index.value));
    if (effects.truncate_after)
        say(who + ": truncates after " + std::to_string(effects.truncate_after->value));
    if (effects.role) {
        say(who + ": " + to_string(effects.role->role) + " in term " +
            std::to_string(effects.role->term.value) +
            (effects.role->leader == kNoNode ? "" : ", leader " + name(effects.role->leader)));
    }
    if (effects.configuration) say(who + ": members {" + describe(**effects.configuration) + "}");
}

void Script::applied(Shell& shell, const Entry& entry, std::string) {
    if (entry.type == EntryType::kNoop) return;
    say(name(shell.core().id()) + ": applies " + describe(entry));
}

void Script::read(Shell& shell, std::uint64_t context) {
    say(name(shell.core().id()) + ": answers read " + std::to_string(context));
}

void Script::read_refused(Shell& shell, std::uint64_t context) {
    say(name(shell.core().id()) + ": refuses read " + std::to_string(context));
}

}  // namespace outrider::raft
