#include "control/node/wire.h"

#include <utility>

namespace outrider::node {
namespace {

using namespace raft;  // NOLINT: this file is about nothing else

struct BodyWriter {
    proto::RaftMessage& out;

    void operator()(const VoteRequest& in) const {
        auto& body = *out.mutable_vote_request();
        body.set_pre(in.pre);
        body.set_transfer(in.transfer);
        body.set_last_index(in.last_index.value);
        body.set_last_term(in.last_term.value);
    }
    void operator()(const VoteResponse& in) const {
        auto& body = *out.mutable_vote_response();
        body.set_pre(in.pre);
        body.set_granted(in.granted);
        body.set_asked(in.asked.value);
    }
    void operator()(const AppendRequest& in) const {
        auto& body = *out.mutable_append_request();
        body.set_prev_index(in.prev_index.value);
        body.set_prev_term(in.prev_term.value);
        body.set_commit(in.commit.value);
        for (const Entry& entry : in.entries)
            to_proto(entry, *body.add_entries());
    }
    void operator()(const AppendResponse& in) const {
        auto& body = *out.mutable_append_response();
        body.set_rejected(in.rejected);
        body.set_index(in.index.value);
        body.set_hint_index(in.hint_index.value);
        body.set_hint_term(in.hint_term.value);
    }
    void operator()(const Heartbeat& in) const {
        auto& body = *out.mutable_heartbeat();
        body.set_commit(in.commit.value);
        body.set_round(in.round);
        body.set_sent_at(in.sent_at.time_since_epoch().count());
    }
    void operator()(const HeartbeatResponse& in) const {
        auto& body = *out.mutable_heartbeat_response();
        body.set_round(in.round);
        body.set_sent_at(in.sent_at.time_since_epoch().count());
    }
    void operator()(const SnapshotChunk& in) const {
        auto& body = *out.mutable_snapshot_chunk();
        to_proto(in.meta, *body.mutable_meta());
        body.set_offset(in.offset);
        if (in.data != nullptr) body.set_data(*in.data);
        body.set_last(in.last);
    }
    void operator()(const SnapshotResponse& in) const {
        out.mutable_snapshot_response()->set_index(in.index.value);
        out.mutable_snapshot_response()->set_offset(in.offset);
    }
    void operator()(const TimeoutNow&) const { out.mutable_timeout_now(); }
    void operator()(const ReadRequest& in) const { out.mutable_read_request()->set_context(in.context); }
    void operator()(const ReadResponse& in) const {
        auto& body = *out.mutable_read_response();
        body.set_context(in.context);
        body.set_refused(in.refused);
        body.set_index(in.index.value);
    }
    void operator()(const StaleTerm&) const { out.mutable_stale_term(); }
};

Instant instant_of(std::int64_t nanoseconds) {
    return Instant(Duration(nanoseconds));
}

Result<Body> append_request(proto::AppendRequest& in) {
    AppendRequest out;
    out.prev_index = {in.prev_index()};
    out.prev_term = {in.prev_term()};
    out.commit = {in.commit()};
    out.entries.reserve(static_cast<std::size_t>(in.entries_size()));
    for (proto::Entry& entry : *in.mutable_entries()) {
        auto one = from_proto(entry);
        if (!one) return Error{one.error()};
        out.entries.push_back(std::move(*one));
    }
    return Body(std::move(out));
}

Result<Body> snapshot_chunk(proto::SnapshotChunk& in) {
    auto meta = from_proto(in.meta());
    if (!meta) return Error{meta.error()};
    SnapshotChunk out;
    out.meta = std::move(*meta);
    out.offset = in.offset();
    out.data = std::make_shared<const std::string>(std::move(*in.mutable_data()));
    out.last = in.last();
    return Body(std::move(out));
}

Result<Body> body_from(proto::RaftMessage& in) {
    switch (in.body_case()) {
        case proto::RaftMessage::kVoteRequest: {
            const auto& body = in.vote_request();
            return Body(VoteRequest{body.pre(), body.transfer(), {body.last_index()}, {body.last_term()}});
        }
        case proto::RaftMessage::kVoteResponse: {
            const auto& body = in.vote_response();
            return Body(VoteResponse{body.pre(), body.granted(), {body.asked()}});
        }
        case proto::RaftMessage::kAppendRequest:
            return append_request(*in.mutable_append_request());
        case proto::RaftMessage::kAppendResponse: {
            const auto& body = in.append_response();
            return Body(
                AppendResponse{body.rejected(), {body.index()}, {body.hint_index()}, {body.hint_term()}});
        }
        case proto::RaftMessage::kHeartbeat: {
            const auto& body = in.heartbeat();
            return Body(Heartbeat{{body.commit()}, body.round(), instant_of(body.sent_at())});
        }
        case proto::RaftMessage::kHeartbeatResponse: {
            const auto& body = in.heartbeat_response();
            return Body(HeartbeatResponse{body.round(), instant_of(body.sent_at())});
        }
        case proto::RaftMessage::kSnapshotChunk:
            return snapshot_chunk(*in.mutable_snapshot_chunk());
        case proto::RaftMessage::kSnapshotResponse:
            return Body(SnapshotResponse{{in.snapshot_response().index()}, in.snapshot_response().offset()});
        case proto::RaftMessage::kTimeoutNow:
            return Body(TimeoutNow{});
        case proto::RaftMessage::kReadRequest:
            return Body(ReadRequest{in.read_request().context()});
        case proto::RaftMessage::kReadResponse: {
            const auto& body = in.read_response();
            return Body(ReadResponse{body.context(), body.refused(), {body.index()}});
        }
        case proto::RaftMessage::kStaleTerm:
            return Body(StaleTerm{});
        case proto::RaftMessage::BODY_NOT_SET:
            break;
    }
    return Error{"a message of a kind that this program does not know"};
}

}  // namespace

void to_proto(const Configuration& in, proto::Configuration& out) {
    for (const Member& member : in.members) {
        proto::Member& one = *out.add_members();
        one.set_id(member.id.value);
        one.set_voter(member.voter);
        one.set_address(member.address);
    }
}

void to_proto(const Entry& in, proto::Entry& out) {
    out.set_term(in.term.value);
    out.set_index(in.index.value);
    out.set_type(static_cast<std::uint32_t>(in.type));
    if (in.type == EntryType::kCommand) {
        out.set_client(in.command.client);
        out.set_sequence(in.command.sequence);
        out.set_data(*in.command.data);
    } else if (in.type == EntryType::kConfiguration) {
        to_proto(*in.configuration, *out.mutable_configuration());
    }
}

void to_proto(const SnapshotMeta& in, proto::SnapshotMeta& out) {
    out.set_index(in.index.value);
    out.set_term(in.term.value);
    to_proto(*in.configuration, *out.mutable_configuration());
}

void to_proto(const Message& in, proto::RaftMessage& out) {
    out.set_term(in.term.value);
    std::visit(BodyWriter{out}, in.body);
}

Result<ConfigurationRef> from_proto(const proto::Configuration& in) {
    if (in.members_size() > static_cast<int>(kMembersMax))
        return Error{"a configuration has more members than there can be"};
    Configuration out;
    for (const proto::Member& member : in.members()) {
        const bool rises = out.members.empty() || out.members.back().id.value < member.id();
        if (member.id() == 0 || !rises) return Error{"the members of a configuration are not sorted by id"};
        out.members.push_back({{member.id()}, member.voter(), member.address()});
    }
    return std::make_shared<const Configuration>(std::move(out));
}

Result<Entry> from_proto(proto::Entry& in) {
    Entry out;
    out.term = {in.term()};
    out.index = {in.index()};
    if (in.type() > static_cast<std::uint32_t>(EntryType::kConfiguration))
        return Error{"a log entry is of a type that this program does not know"};
    out.type = static_cast<EntryType>(in.type());
    if (out.type == EntryType::kCommand) {
        out.command = {in.client(), in.sequence(),
                       std::make_shared<const std::string>(std::move(*in.mutable_data()))};
    } else if (out.type == EntryType::kConfiguration) {
        auto configuration = from_proto(in.configuration());
        if (!configuration) return Error{configuration.error()};
        out.configuration = std::move(*configuration);
    }
    return out;
}

Result<SnapshotMeta> from_proto(const proto::SnapshotMeta& in) {
    auto configuration = from_proto(in.configuration());
    if (!configuration) return Error{configuration.error()};
    return SnapshotMeta{{in.index()}, {in.term()}, std::move(*configuration)};
}

Result<Message> from_proto(proto::RaftMessage& in, NodeId from, NodeId to) {
    auto body = body_from(in);
    if (!body) return Error{body.error()};
    return Message{from, to, {in.term()}, std::move(*body)};
}

}  // namespace outrider::node
