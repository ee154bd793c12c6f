#include "control/api/responses.h"

#include <google/protobuf/util/json_util.h>

#include "base/check.h"
#include "control/api/convert.h"
#include "control/api/json.h"
#include "control/api/session.h"
#include "control/proto/rpc.pb.h"
#include "control/proto/session.pb.h"

namespace outrider::api {
namespace {

std::string json(const google::protobuf::Message& message) {
    std::string text;
    if (write_json(message, text)) return text;
    google::protobuf::util::JsonPrintOptions options;
    options.preserve_proto_field_names = true;
    const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
    require(status.ok(), "a message of ours can be written as JSON: its texts are UTF-8");
    return text;
}

Answer answer(const google::protobuf::Message& message) {
    return {200, "application/json", json(message)};
}

std::string result(const google::protobuf::Message& message) {
    return "{\"result\":" + json(message) + "}\n";
}

template <typename Message>
Message with_header(const Identity& identity, store::Revision revision) {
    Message message;
    v3::ResponseHeader& header = *message.mutable_header();
    header.set_cluster_id(identity.cluster_id);
    header.set_member_id(identity.member_id);
    header.set_revision(revision.value);
    header.set_raft_term(identity.raft_term);
    return message;
}

template <typename Message, typename Body>
Answer body_answer(const Identity& identity, const store::Response& response) {
    auto message = with_header<Message>(identity, response.revision);
    const auto* body = std::get_if<Body>(&response.body);
    if (body == nullptr) return refuse(kAnotherCall);  // a session's remembered answer
    to_proto(*body, message);
    return answer(message);
}

void write_record(const store::Record& in, v3::KeyValue& out) {
    const store::Record::Fields f = in.fields();
    out.set_key(f.key.data(), f.key.size());
    out.set_mod_revision(f.mod.value);
    if (f.tombstone) return;
    out.set_create_revision(f.create.value);
    out.set_version(f.version);
    out.set_value(f.value.data(), f.value.size());
    out.set_lease(f.lease.value);
}

void write_member(const Member& in, v3::Member& out) {
    out.set_id(in.id);
    out.set_name(in.name);
    for (const std::string& url : in.peer_urls)
        out.add_peerurls(url);
    for (const std::string& url : in.client_urls)
        out.add_clienturls(url);
    out.set_islearner(in.learner);
}

}  // namespace

Answer Responder::command(Call call, const store::Response& response) const {
    if (response.status != store::Status::kOk) return refuse(response.status);
    switch (call) {
        case Call::kPut:
            return body_answer<v3::PutResponse, store::PutResponse>(identity_, response);
        case Call::kDeleteRange:
            return body_answer<v3::DeleteRangeResponse, store::DeleteResponse>(identity_, response);
        case Call::kTxn:
            return body_answer<v3::TxnResponse, store::TxnResponse>(identity_, response);
        case Call::kLeaseGrant: {
            auto message = with_header<v3::LeaseGrantResponse>(identity_, response.revision);
            const auto* grant = std::get_if<store::LeaseGrantResponse>(&response.body);
            if (grant == nullptr) return refuse(kAnotherCall);
            message.set_id(grant->id.value);
            message.set_ttl(grant->ttl_seconds);
            return answer(message);
        }
        case Call::kSessionOpen: {
            auto message = with_header<v3::SessionOpenResponse>(identity_, response.revision);
            message.set_session(session_name(response.session, identity_.cluster_id));
            return answer(message);
        }
        // Compaction, revocation and a session's end answer a header.
        default:
            if (!std::holds_alternative<std::monostate>(response.body)) return refuse(kAnotherCall);
            return answer(with_header<v3::CompactionResponse>(identity_, response.revision));
    }
}

Answer Responder::range(store::Revision revision, const store::Store::RangeResult& result) const {
    if (result.status != store::Status::kOk) return refuse(result.status);
    auto message = with_header<v3::RangeResponse>(identity_, revision);
    to_proto(result.response, message);
    return answer(message);
}

Answer Responder::time_to_live(store::Revision revision, store::LeaseId id, std::int64_t ttl_seconds_left,
                               std::int64_t granted_seconds, const std::vector<std::string>& keys) const {
    auto message = with_header<v3::LeaseTimeToLiveResponse>(identity_, revision);
    message.set_id(id.value);
    message.set_ttl(ttl_seconds_left);
    message.set_grantedttl(granted_seconds);
    for (const std::string& key : keys)
        message.add_keys(key);
    return answer(message);
}

Answer Responder::leases(store::Revision revision, const store::LeaseTable& leases) const {
    auto message = with_header<v3::LeaseLeasesResponse>(identity_, revision);
    for (const auto& [id, lease] : leases.all())
        message.add_leases()->set_id(id.value);
    return answer(message);
}

Answer Responder::status(store::Revision revision, const Status& status) const {
    auto message = with_header<v3::StatusResponse>(identity_, revision);
    message.set_version(status.version);
    message.set_dbsize(status.db_size);
    message.set_dbsizeinuse(status.db_size_in_use);
    message.set_leader(status.leader);
    message.set_raftindex(status.raft_index);
    message.set_raftterm(status.raft_term);
    message.set_raftappliedindex(status.raft_applied_index);
    for (const std::string& error : status.errors)
        message.add_errors(error);
    message.set_islearner(status.learner);
    return answer(message);
}

Answer Responder::hash(store::Revision revision, std::uint32_t hash) const {
    auto message = with_header<v3::HashResponse>(identity_, revision);
    message.set_hash(hash);
    return answer(message);
}

Answer Responder::members(const std::vector<Member>& members, const Member* added) const {
    // Membership has no revision in its header. All five answers are of this shape.
    auto message = with_header<v3::MemberAddResponse>(identity_, {});
    if (added != nullptr) write_member(*added, *message.mutable_member());
    for (const Member& member : members)
        write_member(member, *message.add_members());
    return answer(message);
}

std::string Responder::keep_alive(store::Revision revision, store::LeaseId id,
                                  std::int64_t ttl_seconds) const {
    auto message = with_header<v3::LeaseKeepAliveResponse>(identity_, revision);
    message.set_id(id.value);
    message.set_ttl(ttl_seconds);
    return result(message);
}

std::string Responder::watch_created(store::Revision revision, std::int64_t watch_id) const {
    auto message = with_header<v3::WatchResponse>(identity_, revision);
    message.set_watch_id(watch_id);
    message.set_created(true);
    return result(message);
}

std::string Responder::watch_refused(store::Revision revision, std::string_view reason) const {
    auto message = with_header<v3::WatchResponse>(identity_, revision);
    message.set_watch_id(-1);
    message.set_created(true);
    message.set_canceled(true);
    message.set_cancel_reason(reason.data(), reason.size());
    return result(message);
}

std::string Responder::watch_cancelled(store::Revision revision, std::int64_t watch_id) const {
    auto message = with_header<v3::WatchResponse>(identity_, revision);
    message.set_watch_id(watch_id);
    message.set_canceled(true);
    return result(message);
}

std::string Responder::watch_progress(store::Revision revision) const {
    auto message = with_header<v3::WatchResponse>(identity_, revision);
    message.set_watch_id(-1);
    return result(message);
}

std::string Responder::watch_batch(std::int64_t watch_id, const store::WatchBatch& batch) const {
    if (batch.kind == store::WatchBatch::Kind::kNothing) return {};
    const bool cancelled = batch.kind == store::WatchBatch::Kind::kCancelled;
    // etcd leaves the revision out when compaction cancels.
    auto message = with_header<v3::WatchResponse>(identity_, cancelled ? store::Revision{} : batch.revision);
    message.set_watch_id(watch_id);
    message.set_canceled(cancelled);
    message.set_compact_revision(batch.compacted.value);
    message.set_fragment(batch.fragment);
    for (const store::WatchBatch::Event& event : batch.events) {
        v3::Event& out = *message.add_events();
        out.set_type(event.record->tombstone() ? v3::Event::DELETE : v3::Event::PUT);
        write_record(*event.record, *out.mutable_kv());
        if (event.prev != nullptr) write_record(*event.prev, *out.mutable_prev_kv());
    }
    return result(message);
}

std::string Responder::snapshot_piece(std::string_view bytes, std::uint64_t remaining_bytes) const {
    v3::SnapshotResponse message;
    message.set_remaining_bytes(remaining_bytes);
    message.set_blob(bytes.data(), bytes.size());
    return result(message);
}

}  // namespace outrider::api
