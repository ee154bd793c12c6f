#include "control/node/log_records.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"

namespace outrider::node {
namespace {

std::string bytes_of(const google::protobuf::Message& message) {
    std::string bytes;
    require(message.SerializeToString(&bytes), "a record is far below the 2 GiB that protobuf can write");
    return bytes;
}

template <typename Message>
bool parse(std::string_view payload, Message& out) {
    return payload.size() <= INT32_MAX &&
           out.ParseFromArray(payload.data(), static_cast<int>(payload.size()));
}

Error malformed(std::string_view what) {
    return Error{"a record of the log is no " + std::string(what) + ": its bytes are malformed"};
}

}  // namespace

std::string encode(const Identity& identity) {
    proto::Identity out;
    out.set_format(kDataFormat);
    out.set_cluster_id(identity.cluster_id);
    out.set_node_id(identity.node.value);
    out.set_name(identity.name);
    out.set_cluster(identity.cluster);
    to_proto(*identity.founders, *out.mutable_founders());
    return bytes_of(out);
}

std::string encode(const raft::HardState& state) {
    proto::HardState out;
    out.set_term(state.term.value);
    out.set_vote(state.vote.value);
    return bytes_of(out);
}

std::string encode_truncation(raft::LogIndex after) {
    proto::Truncation out;
    out.set_after(after.value);
    return bytes_of(out);
}

std::string encode(const raft::SnapshotMeta& snapshot, bool installed) {
    proto::SnapshotRecord out;
    to_proto(snapshot, *out.mutable_meta());
    out.set_installed(installed);
    return bytes_of(out);
}

void encode(const raft::Entry& entry, proto::Entry& scratch, std::string& out) {
    scratch.Clear();
    to_proto(entry, scratch);
    require(scratch.SerializeToString(&out), "an entry is far below the 2 GiB that protobuf can write");
}

Result<void> LogReplay::add(std::uint8_t type, std::string_view payload) {
    switch (static_cast<RecordType>(type)) {
        case RecordType::kIdentity:
            return add_identity(payload);
        case RecordType::kHardState: {
            proto::HardState in;
            if (!parse(payload, in)) return malformed("hard state");
            hard_state_ = {{in.term()}, {in.vote()}};
            return {};
        }
        case RecordType::kEntry:
            return add_entry(payload);
        case RecordType::kTruncation: {
            proto::Truncation in;
            if (!parse(payload, in)) return malformed("truncation");
            while (!entries_.empty() && entries_.back().index.value > in.after())
                entries_.pop_back();
            return {};
        }
        case RecordType::kSnapshot:
            return add_snapshot(payload);
    }
    return Error{"a record of the log is of type " + std::to_string(type) +
                 ", which this program does not know: the data was written by a newer outrider"};
}

Result<void> LogReplay::add_identity(std::string_view payload) {
    proto::Identity in;
    if (!parse(payload, in)) return malformed("identity");
    if (in.format() > kDataFormat)
        return Error{"the data is of format " + std::to_string(in.format()) +
                     ", and this outrider reads up to " + std::to_string(kDataFormat) +
                     ": start it with the newer outrider that wrote it"};
    auto founders = from_proto(in.founders());
    if (!founders) return Error{founders.error()};
    identity_ = Identity{in.cluster_id(), {in.node_id()}, in.name(), in.cluster(), std::move(*founders)};
    return {};
}

Result<void> LogReplay::add_entry(std::string_view payload) {
    if (!parse(payload, scratch_)) return malformed("entry");
    auto entry = from_proto(scratch_);
    if (!entry) return Error{entry.error()};
    while (!entries_.empty() && entries_.back().index >= entry->index)
        entries_.pop_back();
    if (!entries_.empty() && entries_.back().index + 1 != entry->index)
        return Error{"entries " + std::to_string(entries_.back().index.value + 1) + " to " +
                     std::to_string(entry->index.value - 1) + " are missing from the log"};
    if (!entries_.empty() && entries_.back().term > entry->term)
        return Error{"entry " + std::to_string(entry->index.value) +
                     " is of an earlier term than the one before it"};
    entries_.push_back(std::move(*entry));
    return {};
}

Result<void> LogReplay::add_snapshot(std::string_view payload) {
    proto::SnapshotRecord in;
    if (!parse(payload, in)) return malformed("snapshot's record");
    auto meta = from_proto(in.meta());
    if (!meta) return Error{meta.error()};
    if (in.installed()) entries_.clear();
    snapshot_ = std::move(*meta);
    return {};
}

Result<LogReplay::State> LogReplay::finish() {
    State out;
    if (!identity_) {
        if (!entries_.empty() || snapshot_ || hard_state_ != raft::HardState())
            return Error{"the log does not say whose it is"};
        return out;
    }
    out.snapshot = snapshot_ ? *snapshot_ : raft::SnapshotMeta{{}, {}, identity_->founders};
    while (!entries_.empty() && entries_.front().index <= out.snapshot.index)
        entries_.pop_front();
    if (!entries_.empty() && entries_.front().index != out.snapshot.index + 1)
        return Error{"entries " + std::to_string(out.snapshot.index.value + 1) + " to " +
                     std::to_string(entries_.front().index.value - 1) + " are missing from the log"};
    out.hard_state = hard_state_;
    const raft::Term last = entries_.empty() ? out.snapshot.term : entries_.back().term;
    if (out.hard_state.term < last) out.hard_state = {last, {}};  // a crash within the first write of a term
    out.entries.assign(std::make_move_iterator(entries_.begin()), std::make_move_iterator(entries_.end()));
    out.identity = std::move(identity_);
    return out;
}

}  // namespace outrider::node
