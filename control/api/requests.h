// From HTTP to requests: which call a path names, and what its JSON body asks for.
//
// etcd's gateway decides what is accepted (tests/control_api/golden.json was recorded from it): field names as in the
// schema or in camelCase; fields that it does not know are passed over; a unary call takes the first JSON value of
// its body and ignores the rest; null and an empty body are an empty request. Texts about malformed JSON are ours: the
// gateway's are those of Go's parser.
//
// Deliberately other than etcd: base64 without padding or with the URL-safe alphabet is accepted (RFC 8259's readers differ
// here, and proto3's JSON mapping allows both).
//
// Bounds, before anything is parsed: kBodyBytesMax, kJsonDepthMax.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "control/api/errors.h"
#include "control/store/types.h"
#include "control/store/watch_hub.h"

namespace outrider::api {

// Of a body, or of one message of a stream: etcd's 1.5 MiB of a request in base64, and room for the rest.
inline constexpr std::size_t kBodyBytesMax = std::size_t{4} << 20;
inline constexpr std::size_t kJsonDepthMax = 64;

enum class Call : std::uint8_t {
    kRange,
    kPut,
    kDeleteRange,
    kTxn,
    kCompaction,
    kLeaseGrant,
    kLeaseRevoke,
    kLeaseKeepAlive,  // stream
    kLeaseTimeToLive,
    kLeaseLeases,
    kWatch,  // stream
    kStatus,
    kHash,
    kDefragment,
    kAlarm,
    kSnapshot,  // answers with a stream
    kMemberList,
    kMemberAdd,
    kMemberRemove,
    kMemberUpdate,
    kMemberPromote,
    kSessionOpen,  // and close: ours, see session.h
    kSessionClose,
};
// Its body is a sequence of messages, each with an answer of its own.
constexpr bool is_stream(Call call) {
    return call == Call::kLeaseKeepAlive || call == Call::kWatch;
}

struct LeaseKeepAlive {
    store::LeaseId id;
};
struct LeaseTimeToLive {
    store::LeaseId id;
    bool keys = false;
};
struct LeaseLeases {};
struct WatchCreate {
    store::WatchRequest request;
    std::int64_t watch_id = 0;  // 0: the server chooses
};
struct WatchCancel {
    std::int64_t watch_id = 0;
};
struct WatchProgress {};
struct WatchNothing {};  // a message with neither; etcd ignores it
struct StatusCall {};
struct HashCall {};
struct DefragmentCall {};
struct AlarmCall {};
struct SnapshotCall {};
struct MemberList {};
struct MemberAdd {
    std::vector<std::string> peer_urls;
    bool learner = false;
};
struct MemberRemove {
    std::uint64_t id = 0;
};
struct MemberUpdate {
    std::uint64_t id = 0;
    std::vector<std::string> peer_urls;
};
struct MemberPromote {
    std::uint64_t id = 0;
};
struct SessionOpen {};
struct SessionClose {
    std::uint64_t name = 0;  // session_name()
};

using Request =
    std::variant<store::RangeRequest, store::PutRequest, store::DeleteRequest, store::TxnRequest,
                 store::CompactRequest, store::LeaseGrantRequest, store::LeaseRevokeRequest, LeaseKeepAlive,
                 LeaseTimeToLive, LeaseLeases, WatchCreate, WatchCancel, WatchProgress, WatchNothing,
                 StatusCall, HashCall, DefragmentCall, AlarmCall, SnapshotCall, MemberList, MemberAdd,
                 MemberRemove, MemberUpdate, MemberPromote, SessionOpen, SessionClose>;

// The call, or 404 or 405 as etcd words them. A query is passed over.
std::variant<Call, Answer> find_call(std::string_view method, std::string_view target);

// A unary call's body, or one message of a stream.
std::variant<Request, Answer> parse_request(Call call, std::string_view body);

// Cuts the body of a stream into its messages, from pieces of any size.
class MessageSplitter {
  public:
    // The next whole message, or nothing yet. After an error, the same again.
    Result<std::optional<std::string>> next();
    void add(std::string_view bytes) { pending_.append(bytes); }
    // Bytes that have not come out yet.
    std::size_t pending() const { return pending_.size(); }

  private:
    std::string pending_;
    std::size_t looked_at_ = 0;  // of pending_
    std::size_t depth_ = 0;
    bool in_string_ = false;
    bool escaped_ = false;
};

}  // namespace outrider::api
