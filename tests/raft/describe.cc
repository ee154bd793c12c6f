#include "tests/raft/describe.h"

namespace outrider::raft {
namespace {

std::string number(std::uint64_t value) {
    return std::to_string(value);
}
std::string place(LogIndex index, Term term) {
    return number(index.value) + "/" + number(term.value);
}

struct Describe {
    std::string operator()(const VoteRequest& m) const {
        return std::string(m.pre ? "pre_vote" : "vote") + (m.transfer ? " transfer" : "") +
               " last=" + place(m.last_index, m.last_term);
    }
    std::string operator()(const VoteResponse& m) const {
        return std::string(m.pre ? "pre_vote" : "vote") + (m.granted ? " granted" : " refused") +
               " asked=" + number(m.asked.value);
    }
    std::string operator()(const AppendRequest& m) const {
        std::string out = "append prev=" + place(m.prev_index, m.prev_term) + " entries=[";
        for (const Entry& entry : m.entries) {
            if (out.back() != '[') out += ", ";
            out += describe(entry);
        }
        return out + "] commit=" + number(m.commit.value);
    }
    std::string operator()(const AppendResponse& m) const {
        if (!m.rejected) return "appended up to " + number(m.index.value);
        return "append refused prev=" + number(m.index.value) + " hint=" + place(m.hint_index, m.hint_term);
    }
    std::string operator()(const Heartbeat& m) const {
        return "heartbeat round=" + number(m.round) + " commit=" + number(m.commit.value);
    }
    std::string operator()(const HeartbeatResponse& m) const { return "heard round=" + number(m.round); }
    std::string operator()(const SnapshotChunk& m) const {
        return "snapshot " + place(m.meta.index, m.meta.term) + " offset=" + number(m.offset) +
               " bytes=" + number(m.data ? m.data->size() : 0) + (m.last ? " last" : "");
    }
    std::string operator()(const SnapshotResponse& m) const {
        return "snapshot " + number(m.index.value) + " next=" + number(m.offset);
    }
    std::string operator()(const TimeoutNow&) const { return "timeout_now"; }
    std::string operator()(const ReadRequest& m) const { return "read " + number(m.context); }
    std::string operator()(const ReadResponse& m) const {
        return "read " + number(m.context) + (m.refused ? " refused" : " index=" + number(m.index.value));
    }
    std::string operator()(const StaleTerm&) const { return "stale_term"; }
};

}  // namespace

std::string describe(const Entry& entry) {
    std::string out = place(entry.index, entry.term);
    switch (entry.type) {
        case EntryType::kNoop:
            return out + " noop";
        case EntryType::kCommand:
            return out + " " + *entry.command.data;
        case EntryType::kConfiguration:
            return out + " members {" + describe(*entry.configuration) + "}";
    }
    return out;
}

std::string describe(const Configuration& configuration) {
    std::string out;
    for (const Member& member : configuration.members) {
        if (!out.empty()) out += " ";
        out += (member.voter ? "" : "learner:") + number(member.id.value);
    }
    return out;
}

std::string describe(const Message& message) {
    return number(message.from.value) + " -> " + number(message.to.value) +
           " term=" + number(message.term.value) + " " + std::visit(Describe{}, message.body);
}

}  // namespace outrider::raft
