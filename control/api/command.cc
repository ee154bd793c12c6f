#include "control/api/command.h"

#include "base/check.h"
#include "control/api/convert.h"
#include "control/proto/command.pb.h"

namespace outrider::api {
namespace {

struct Writer {
    v3::Command& out;
    void operator()(const store::PutRequest& in) const { to_proto(in, *out.mutable_put()); }
    void operator()(const store::DeleteRequest& in) const { to_proto(in, *out.mutable_delete_range()); }
    void operator()(const store::TxnRequest& in) const { to_proto(in, *out.mutable_txn()); }
    void operator()(const store::CompactRequest& in) const {
        out.mutable_compaction()->set_revision(in.revision.value);
    }
    void operator()(const store::LeaseGrantRequest& in) const {
        out.mutable_lease_grant()->set_id(in.id.value);
        out.mutable_lease_grant()->set_ttl(in.ttl_seconds);
    }
    void operator()(const store::LeaseRevokeRequest& in) const {
        if (in.expired) {
            out.mutable_lease_expire()->set_id(in.id.value);
            out.mutable_lease_expire()->set_granted(in.granted);
        } else {
            out.mutable_lease_revoke()->set_id(in.id.value);
        }
    }
    void operator()(const store::SessionOpenRequest&) const { out.mutable_session_open(); }
    void operator()(const store::SessionCloseRequest& in) const {
        out.mutable_session_close()->set_id(in.id.value);
    }
    void operator()(const store::SessionsAgeRequest& in) const {
        out.mutable_sessions_age()->set_millis(static_cast<std::uint64_t>(in.millis));
    }
};

}  // namespace

std::string encode_command(const store::Command& command) {
    v3::Command out;
    out.set_session(command.session.value);
    out.set_sequence(command.sequence);
    std::visit(Writer{out}, command.request);
    std::string bytes;
    require(out.SerializeToString(&bytes), "a command is far below the 2 GiB that protobuf can write");
    return bytes;
}

Result<store::Command> decode_command(std::string_view bytes) {
    v3::Command in;
    if (bytes.size() > INT32_MAX || !in.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
        return Error{"a log entry is no command: its bytes are malformed"};
    store::Command out;
    out.session = {in.session()};
    out.sequence = in.sequence();
    switch (in.request_case()) {
        case v3::Command::kPut:
            out.request = from_proto(in.put());
            break;
        case v3::Command::kDeleteRange:
            out.request = from_proto(in.delete_range());
            break;
        case v3::Command::kTxn:
            out.request = from_proto(in.txn());
            break;
        case v3::Command::kCompaction:
            out.request = store::CompactRequest{{in.compaction().revision()}};
            break;
        case v3::Command::kLeaseGrant:
            out.request = store::LeaseGrantRequest{{in.lease_grant().id()}, in.lease_grant().ttl()};
            break;
        case v3::Command::kLeaseRevoke:
            out.request = store::LeaseRevokeRequest{{in.lease_revoke().id()}, false};
            break;
        case v3::Command::kLeaseExpire:
            out.request =
                store::LeaseRevokeRequest{{in.lease_expire().id()}, true, in.lease_expire().granted()};
            break;
        case v3::Command::kSessionOpen:
            out.request = store::SessionOpenRequest{};
            break;
        case v3::Command::kSessionClose:
            out.request = store::SessionCloseRequest{{in.session_close().id()}};
            break;
        case v3::Command::kSessionsAge:
            out.request = store::SessionsAgeRequest{static_cast<std::int64_t>(in.sessions_age().millis())};
            break;
        case v3::Command::REQUEST_NOT_SET:
            return Error{"a log entry is a command of a kind that this program does not know"};
    }
    return out;
}

}  // namespace outrider::api
