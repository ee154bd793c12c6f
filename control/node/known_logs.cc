#include "control/node/known_logs.h"

#include <utility>

#include "base/check.h"
#include "control/node/frame.h"
#include "control/node/wire.h"

namespace outrider::node {

KnownLogs::Verdict KnownLogs::judge(raft::NodeId node, std::uint64_t log) const {
    if (log == 0) return Verdict::kUntold;
    const std::uint64_t met = of(node);
    if (met == 0) return Verdict::kNew;
    return met == log ? Verdict::kKnown : Verdict::kAnother;
}

std::uint64_t KnownLogs::of(raft::NodeId node) const {
    const auto it = logs_.find(node);
    return it == logs_.end() ? 0 : it->second.log;
}

std::uint32_t KnownLogs::knowledge_of(raft::NodeId node) const {
    const auto it = logs_.find(node);
    return it == logs_.end() ? 0 : it->second.knowledge;
}

bool KnownLogs::learn(raft::NodeId node, std::uint32_t knowledge) {
    const auto it = logs_.find(node);
    return it != logs_.end() && std::exchange(it->second.knowledge, knowledge) != knowledge;
}

void KnownLogs::remember(raft::NodeId node, std::uint64_t log) {
    require(judge(node, log) == Verdict::kNew, "a member's log is remembered once");
    logs_.emplace(node, Known{.log = log});
}

bool KnownLogs::forget_others(const raft::Configuration& members) {
    return std::erase_if(logs_, [&](const auto& known) { return members.find(known.first) == nullptr; }) != 0;
}

std::string encode(const KnownLogs& logs) {
    proto::KnownLogs out;
    out.set_format(kKnownLogsFormat);
    for (const auto& [node, known] : logs.logs_) {
        proto::KnownLog& entry = *out.add_logs();
        entry.set_node_id(node.value);
        entry.set_log_id(known.log);
        entry.set_knows(known.knowledge);
    }
    std::string bytes;
    append_frame(out.SerializeAsString(), bytes);
    return bytes;
}

Result<KnownLogs> parse_known_logs(std::string_view bytes) {
    FrameReader reader(kKnownLogsBytesMax);
    reader.add(bytes);
    const auto payload = reader.next();
    if (!payload || !*payload || (*payload)->size() + kPeerFrameHeaderBytes != bytes.size())
        return Error{"its length or its check is wrong"};
    proto::KnownLogs in;
    if (!in.ParseFromArray((*payload)->data(), static_cast<int>((*payload)->size())))
        return Error{"its bytes are malformed"};
    if (in.format() > kKnownLogsFormat)
        return Error{"it is of format " + std::to_string(in.format()) + ", and this outrider reads up to " +
                     std::to_string(kKnownLogsFormat) + ": start it with the newer outrider that wrote it"};
    KnownLogs out;
    for (const proto::KnownLog& known : in.logs()) {
        if (out.judge({known.node_id()}, known.log_id()) != KnownLogs::Verdict::kNew)
            return Error{"it names a member twice, or without a log"};
        out.remember({known.node_id()}, known.log_id());
        out.learn({known.node_id()}, known.knows());
    }
    return out;
}

}  // namespace outrider::node
