// Requests as bodies of HTTP, answers from them: proto3's JSON mapping, as etcd's gateway speaks it. Pure.
//
// What the other side sends is read within the bounds that the caller holds on its size; nesting is bounded by protobuf's
// parser (100). Fields that we do not know are passed over: newer servers have more.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include "base/result.h"
#include "control/agent/attempts.h"
#include "control/proto/gateway.pb.h"
#include "control/proto/session.pb.h"

namespace outrider::agent {

namespace v3 = outrider::control::v3;

// What a request is answered with, where it goes, and whether it may be sent twice. `Line`: its answer is the first line of
// a stream.
template <typename Request>
struct Rpc;

template <typename R>
struct UnaryRpc {
    using Response = R;
    static constexpr bool kLine = false;
};

#define OUTRIDER_RPC(REQUEST, PATH, EFFECT)                              \
    template <>                                                          \
    struct Rpc<v3::REQUEST##Request> : UnaryRpc<v3::REQUEST##Response> { \
        static constexpr const char* kPath = "/v3/" PATH;                \
        static constexpr Effect kEffect = Effect::EFFECT;                \
    }
OUTRIDER_RPC(Range, "kv/range", kRead);
OUTRIDER_RPC(Put, "kv/put", kOnce);
OUTRIDER_RPC(DeleteRange, "kv/deleterange", kOnce);
OUTRIDER_RPC(Txn, "kv/txn", kOnce);
OUTRIDER_RPC(Compaction, "kv/compaction", kRepeatable);
OUTRIDER_RPC(LeaseGrant, "lease/grant", kOnce);
OUTRIDER_RPC(LeaseRevoke, "lease/revoke", kRepeatable);
OUTRIDER_RPC(LeaseTimeToLive, "lease/timetolive", kRead);
OUTRIDER_RPC(LeaseLeases, "lease/leases", kRead);
OUTRIDER_RPC(Status, "maintenance/status", kRead);
OUTRIDER_RPC(Hash, "maintenance/hash", kRead);
OUTRIDER_RPC(Defragment, "maintenance/defragment", kRepeatable);
OUTRIDER_RPC(MemberList, "cluster/member/list", kRead);
OUTRIDER_RPC(MemberAdd, "cluster/member/add", kOnce);
OUTRIDER_RPC(MemberRemove, "cluster/member/remove", kOnce);
OUTRIDER_RPC(MemberUpdate, "cluster/member/update", kOnce);
OUTRIDER_RPC(MemberPromote, "cluster/member/promote", kOnce);
OUTRIDER_RPC(SessionOpen, "session/open", kRepeatable);
OUTRIDER_RPC(SessionClose, "session/close", kRepeatable);
#undef OUTRIDER_RPC

// A call that a client session carries: api::takes_session().
template <typename Request>
inline constexpr bool kTakesSession =
    std::is_same_v<Request, v3::PutRequest> || std::is_same_v<Request, v3::DeleteRangeRequest> ||
    std::is_same_v<Request, v3::TxnRequest> || std::is_same_v<Request, v3::CompactionRequest> ||
    std::is_same_v<Request, v3::LeaseGrantRequest> || std::is_same_v<Request, v3::LeaseRevokeRequest>;

template <>
struct Rpc<v3::LeaseKeepAliveRequest> {
    using Response = v3::LeaseKeepAliveResponse;
    using Line = v3::LeaseKeepAliveLine;
    static constexpr bool kLine = true;
    static constexpr const char* kPath = "/v3/lease/keepalive";
    static constexpr Effect kEffect = Effect::kRepeatable;
};
inline constexpr const char* kWatchPath = "/v3/watch";

std::string to_json(const google::protobuf::Message& message);
// False when it is not the JSON of such a message.
bool from_json(std::string_view text, google::protobuf::Message& message);

// The API's refusal in an answer's body: `error` is the text that says which it is, `message` what people are told, and may go on
// behind it. When it is none, code 0 and a sentence of ours.
v3::Refusal refusal_from(int http_status, std::string_view body);
v3::Refusal refusal_from(const v3::StreamError& error);
// How judge() sees it; `refusal` outlives what this returns.
AttemptEnd end_of_refused(int http_status, const v3::Refusal& refusal);

// The key behind the last one with this prefix: the end of its range. "\0" (every key from there on) when there is none.
std::string prefix_end(std::string_view prefix);

}  // namespace outrider::agent
