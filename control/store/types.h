// What is asked of the key space and what it answers: etcd v3's data model as plain values.
//
// Names, meanings and odd corners are etcd's (api/etcdserverpb/rpc.proto of release 3.4 and what its server does); where a
// field behaves in a way that its name does not tell, the comment says so. The JSON and protobuf forms of these are
// control/api's and control/proto's; nothing here knows of them.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace outrider::store {

// A version of the whole key space. 1 is the empty store; each command that changes a key adds 1.
struct Revision {
    std::int64_t value = 0;
    friend constexpr auto operator<=>(const Revision&, const Revision&) = default;
    friend constexpr Revision operator+(Revision r, std::int64_t n) { return {r.value + n}; }
};

// 0: none.
struct LeaseId {
    std::int64_t value = 0;
    friend constexpr auto operator<=>(const LeaseId&, const LeaseId&) = default;
};

// The index in the replicated log of the command that opened the session, hence never used again. 0: none.
struct SessionId {
    std::uint64_t value = 0;
    friend constexpr auto operator<=>(const SessionId&, const SessionId&) = default;
};

// Why a request was refused. One place maps these to texts and codes: control/api/errors.h.
enum class Status : std::uint8_t {
    kOk,
    kEmptyKey,
    kKeyNotFound,    // ignore_value or ignore_lease without a key, or an empty operation in a transaction
    kValueProvided,  // with ignore_value
    kLeaseProvided,  // with ignore_lease
    kTooManyOps,
    kDuplicateKey,
    kCompacted,
    kFutureRevision,
    kNoSpace,
    kLeaseNotFound,
    kLeaseExists,
    kLeaseTtlTooLarge,
    kRequestTooLarge,
    kResponseTooLarge,
    kTooDeep,         // transactions in transactions
    kSessionUnknown,  // never opened, closed, or idle for too long: nothing took effect
    kSessionStale,    // a later command of the session has been applied; nothing took effect now
    kSessionsFull,
    kSessionAnswerGone  // the command took effect once, at the revision answered; the answer was too large to be kept
};

struct KeyValue {
    std::string key;
    Revision create_revision;
    Revision mod_revision;
    std::int64_t version = 0;  // 1 when created, +1 with each put; a deletion's is 0
    std::string value;
    LeaseId lease;
    friend bool operator==(const KeyValue&, const KeyValue&) = default;
};

// end empty: the one key. end "\0": every key from `key` on. Else key <= k < end, which may hold nothing.
struct KeyRange {
    std::string key;
    std::string end;

    bool single() const { return end.empty(); }
    bool unbounded() const { return end.size() == 1 && end[0] == '\0'; }
    bool contains(std::string_view k) const {
        if (single()) return k == key;
        return k >= key && (unbounded() || k < end);
    }
};

struct RangeRequest {
    enum class Order : std::uint8_t { kNone, kAscend, kDescend };
    enum class Target : std::uint8_t { kKey, kVersion, kCreate, kMod, kValue };
    KeyRange range;
    std::int64_t limit = 0;  // 0 or less: none
    Revision revision;       // 0 or less: the newest
    // kNone with a target other than the key sorts what `limit` has already cut, as etcd does.
    Order order = Order::kNone;
    Target target = Target::kKey;
    bool keys_only = false;
    bool count_only = false;
    bool serializable = false;  // for the node: any replica may answer. The store does not look at it
    // 0: no bound. They narrow what is answered, not the count.
    Revision min_mod_revision;
    Revision max_mod_revision;
    Revision min_create_revision;
    Revision max_create_revision;
};
struct RangeResponse {
    std::vector<KeyValue> kvs;
    bool more = false;
    std::int64_t count = 0;  // of keys in the range, before any limit
};

struct PutRequest {
    std::string key;
    std::string value;
    LeaseId lease;
    bool prev_kv = false;
    bool ignore_value = false;  // keep the present value
    bool ignore_lease = false;  // keep the present lease
};
struct PutResponse {
    std::optional<KeyValue> prev_kv;
};

struct DeleteRequest {
    KeyRange range;
    bool prev_kv = false;
};
struct DeleteResponse {
    std::int64_t deleted = 0;
    std::vector<KeyValue> prev_kvs;
};

// Holds when every key of the range holds. A key that is not there compares as zeros, and as false when the target is
// the value.
struct Compare {
    enum class Target : std::uint8_t { kVersion, kCreate, kMod, kValue, kLease };
    enum class Result : std::uint8_t { kEqual, kGreater, kLess, kNotEqual };
    KeyRange range;
    Target target = Target::kVersion;
    Result result = Result::kEqual;
    std::int64_t number = 0;
    std::string value;
};

struct Op;
// One revision for all of it. Every comparison, also those of transactions inside, sees the state before the first
// operation; a range sees what operations before it wrote.
struct TxnRequest {
    std::vector<Compare> compare;
    std::vector<Op> success;
    std::vector<Op> failure;
};
struct Op {
    std::variant<std::monostate, RangeRequest, PutRequest, DeleteRequest, TxnRequest> request;
};

struct OpResponse;
struct TxnResponse {
    bool succeeded = false;
    std::vector<OpResponse> responses;
};
struct OpResponse {
    Revision revision;  // 0 for a transaction inside, as etcd answers
    std::variant<std::monostate, RangeResponse, PutResponse, DeleteResponse, TxnResponse> body;
};

struct CompactRequest {
    Revision revision;
};

struct LeaseGrantRequest {
    LeaseId id;  // 0: the store chooses
    std::int64_t ttl_seconds = 0;
};
struct LeaseGrantResponse {
    LeaseId id;
    std::int64_t ttl_seconds = 0;
};
// Deletes the lease and every key attached to it, in one revision.
struct LeaseRevokeRequest {
    LeaseId id;
    // By the leader's clock, not by a client: an id that is gone is no error. Store::expiry() makes these.
    bool expired = false;
    // expired: the grant that has come to its end. A client that names its leases itself may have revoked that one and been
    // granted the id anew before this command is applied; then it changes nothing. 0: whichever is there.
    std::uint64_t granted = 0;
};

// Answers with the session's id (Response::session).
struct SessionOpenRequest {};
struct SessionCloseRequest {
    SessionId id;
};
// So much time has gone by, the leader says (session_clock.h). It ages sessions and nothing else.
struct SessionsAgeRequest {
    std::int64_t millis = 0;
};

// An entry of the replicated log.
struct Command {
    // With a session: takes effect at most once, see sessions.h. Sequences of a session begin at 1 and rise.
    SessionId session;
    std::uint64_t sequence = 0;
    std::variant<PutRequest, DeleteRequest, TxnRequest, CompactRequest, LeaseGrantRequest, LeaseRevokeRequest,
                 SessionOpenRequest, SessionCloseRequest, SessionsAgeRequest>
        request;
};

struct Response {
    Status status = Status::kOk;
    Revision revision;  // of the answer's header
    SessionId session;  // opened
    std::variant<std::monostate, PutResponse, DeleteResponse, TxnResponse, LeaseGrantResponse> body;
};

// What a member refuses before it proposes a command; apply() never looks at these, so that members with different
// settings stay equal. Defaults are etcd's where etcd has one.
struct Limits {
    std::size_t key_bytes_max = std::size_t{16} << 10;
    std::size_t request_bytes_max = std::size_t{1536} << 10;
    std::size_t txn_ops_max = 128;
    std::size_t txn_depth_max = 8;
    std::uint64_t store_bytes_max = std::uint64_t{2} << 30;  // as Store::bytes() counts
    // Of a range outside of a transaction; a transaction's: kTxnAnswerBytesMax.
    std::size_t response_bytes_max = std::size_t{64} << 20;
};

}  // namespace outrider::store
