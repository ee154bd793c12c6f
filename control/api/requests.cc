#include "control/api/requests.h"

#include <algorithm>
#include <array>
#include <utility>

#include <google/protobuf/util/json_util.h>

#include "control/api/convert.h"
#include "control/api/json.h"
#include "control/proto/rpc.pb.h"
#include "control/proto/session.pb.h"

namespace outrider::api {
namespace {

constexpr std::array<std::pair<std::string_view, Call>, 27> kCalls{{
    {"/v3/kv/range", Call::kRange},
    {"/v3/kv/put", Call::kPut},
    {"/v3/kv/deleterange", Call::kDeleteRange},
    {"/v3/kv/txn", Call::kTxn},
    {"/v3/kv/compaction", Call::kCompaction},
    {"/v3/lease/grant", Call::kLeaseGrant},
    {"/v3/lease/revoke", Call::kLeaseRevoke},
    {"/v3/kv/lease/revoke", Call::kLeaseRevoke},
    {"/v3/lease/keepalive", Call::kLeaseKeepAlive},
    {"/v3/lease/timetolive", Call::kLeaseTimeToLive},
    {"/v3/kv/lease/timetolive", Call::kLeaseTimeToLive},
    {"/v3/lease/leases", Call::kLeaseLeases},
    {"/v3/kv/lease/leases", Call::kLeaseLeases},
    {"/v3/watch", Call::kWatch},
    {"/v3/maintenance/status", Call::kStatus},
    {"/v3/maintenance/hash", Call::kHash},
    {"/v3/maintenance/defragment", Call::kDefragment},
    {"/v3/maintenance/alarm", Call::kAlarm},
    {"/v3/maintenance/snapshot", Call::kSnapshot},
    {"/v3/cluster/member/list", Call::kMemberList},
    {"/v3/cluster/member/add", Call::kMemberAdd},
    {"/v3/cluster/member/remove", Call::kMemberRemove},
    {"/v3/cluster/member/update", Call::kMemberUpdate},
    {"/v3/cluster/member/promote", Call::kMemberPromote},
    {"/v3/kv/lease/grant", Call::kLeaseGrant},  // ours: etcd has the other three there
    {"/v3/session/open", Call::kSessionOpen},
    {"/v3/session/close", Call::kSessionClose},
}};

bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

// The first JSON value of a body, if it is an object; empty for null and for nothing at all.
Result<std::string> first_object(std::string_view body) {
    if (body.size() > kBodyBytesMax) return Error{"the request is larger than this server reads"};
    while (!body.empty() && is_space(body.front()))
        body.remove_prefix(1);
    if (body.empty() || body.substr(0, 4) == "null") return std::string();
    if (body.front() != '{') return Error{"the request is no JSON object"};
    MessageSplitter splitter;
    splitter.add(body);
    auto object = splitter.next();
    if (!object) return Error{object.error()};
    if (!*object) return Error{"the JSON object is not closed: unexpected end of the request"};
    return std::move(**object);
}

std::string_view view(google::protobuf::StringPiece text) {
    return {text.data(), text.size()};
}

// Strictly first: protobuf's option to pass over unknown fields also passes over names of enum values that do not exist,
// and a misspelt comparison must not become another.
template <typename Message>
Result<Message> parse(std::string_view body) {
    Message message;
    if (body.size() <= kBodyBytesMax && read_json(body, message)) return message;
    message.Clear();
    Result<std::string> object = first_object(body);
    if (!object) return Error{object.error()};
    if (object->empty()) return message;
    google::protobuf::util::JsonParseOptions options;
    auto status = google::protobuf::util::JsonStringToMessage(*object, &message, options);
    if (!status.ok() && view(status.message()).find("Cannot find field") != std::string_view::npos) {
        options.ignore_unknown_fields = true;
        message.Clear();
        status = google::protobuf::util::JsonStringToMessage(*object, &message, options);
    }
    if (!status.ok()) return Error{std::string(view(status.message()).substr(0, 200))};
    return message;
}

using Parsed = std::variant<Request, Answer>;

template <typename Message, typename Convert>
Parsed parse_as(std::string_view body, Convert&& convert) {
    const Result<Message> message = parse<Message>(body);
    if (!message) return refuse(Code::kInvalidArgument, message.error());
    return Request(convert(*message));
}

template <typename Message>
Parsed parse_kv(std::string_view body) {
    return parse_as<Message>(body, [](const Message& in) { return from_proto(in); });
}

// Only that it is well-formed is of interest.
template <typename Message, typename Out>
Parsed parse_empty(std::string_view body) {
    return parse_as<Message>(body, [](const Message&) { return Out{}; });
}

WatchCreate watch_create(const v3::WatchCreateRequest& in) {
    WatchCreate out;
    out.watch_id = in.watch_id();
    out.request.range = {in.key(), in.range_end()};
    // etcd's: no key is the least key there can be.
    if (in.key().empty()) out.request.range.key.assign(1, '\0');
    out.request.start = {in.start_revision()};
    out.request.prev_kv = in.prev_kv();
    out.request.progress_notify = in.progress_notify();
    out.request.fragment = in.fragment();
    for (const int filter : in.filters()) {
        if (filter == v3::WatchCreateRequest::NOPUT) out.request.no_put = true;
        if (filter == v3::WatchCreateRequest::NODELETE) out.request.no_delete = true;
    }
    return out;
}

Request watch_message(const v3::WatchRequest& in) {
    switch (in.request_union_case()) {
        case v3::WatchRequest::kCreateRequest:
            return watch_create(in.create_request());
        case v3::WatchRequest::kCancelRequest:
            return WatchCancel{in.cancel_request().watch_id()};
        case v3::WatchRequest::kProgressRequest:
            return WatchProgress{};
        case v3::WatchRequest::REQUEST_UNION_NOT_SET:
            break;
    }
    return WatchNothing{};
}

template <typename Urls>
std::vector<std::string> strings(const Urls& urls) {
    return {urls.begin(), urls.end()};
}

Parsed parse_lease_call(Call call, std::string_view body) {
    switch (call) {
        case Call::kLeaseGrant:
            return parse_as<v3::LeaseGrantRequest>(body, [](const v3::LeaseGrantRequest& in) {
                return store::LeaseGrantRequest{{in.id()}, in.ttl()};
            });
        case Call::kLeaseRevoke:
            return parse_as<v3::LeaseRevokeRequest>(body, [](const v3::LeaseRevokeRequest& in) {
                return store::LeaseRevokeRequest{{in.id()}, false};
            });
        case Call::kLeaseKeepAlive:
            return parse_as<v3::LeaseKeepAliveRequest>(
                body, [](const v3::LeaseKeepAliveRequest& in) { return LeaseKeepAlive{{in.id()}}; });
        case Call::kLeaseTimeToLive:
            return parse_as<v3::LeaseTimeToLiveRequest>(body, [](const v3::LeaseTimeToLiveRequest& in) {
                return LeaseTimeToLive{{in.id()}, in.keys()};
            });
        default:
            return parse_empty<v3::LeaseLeasesRequest, LeaseLeases>(body);
    }
}

Parsed parse_member_call(Call call, std::string_view body) {
    switch (call) {
        case Call::kMemberAdd:
            return parse_as<v3::MemberAddRequest>(body, [](const v3::MemberAddRequest& in) {
                return MemberAdd{strings(in.peerurls()), in.islearner()};
            });
        case Call::kMemberRemove:
            return parse_as<v3::MemberRemoveRequest>(
                body, [](const v3::MemberRemoveRequest& in) { return MemberRemove{in.id()}; });
        case Call::kMemberUpdate:
            return parse_as<v3::MemberUpdateRequest>(body, [](const v3::MemberUpdateRequest& in) {
                return MemberUpdate{in.id(), strings(in.peerurls())};
            });
        case Call::kMemberPromote:
            return parse_as<v3::MemberPromoteRequest>(
                body, [](const v3::MemberPromoteRequest& in) { return MemberPromote{in.id()}; });
        default:
            return parse_empty<v3::MemberListRequest, MemberList>(body);
    }
}

}  // namespace

std::variant<Call, Answer> find_call(std::string_view method, std::string_view target) {
    const std::string_view path = target.substr(0, target.find('?'));
    const auto it =
        std::find_if(kCalls.begin(), kCalls.end(), [path](const auto& row) { return row.first == path; });
    constexpr std::string_view kText = "text/plain; charset=utf-8";
    if (it == kCalls.end()) {
        return Answer{404, kText, path.substr(0, 4) == "/v3/" ? "Not Found\n" : "404 page not found\n"};
    }
    if (method != "POST") return Answer{405, kText, "Method Not Allowed\n"};
    return it->second;
}

std::variant<Request, Answer> parse_request(Call call, std::string_view body) {
    switch (call) {
        case Call::kRange:
            return parse_kv<v3::RangeRequest>(body);
        case Call::kPut:
            return parse_kv<v3::PutRequest>(body);
        case Call::kDeleteRange:
            return parse_kv<v3::DeleteRangeRequest>(body);
        case Call::kTxn:
            return parse_kv<v3::TxnRequest>(body);
        case Call::kCompaction:
            return parse_as<v3::CompactionRequest>(
                body, [](const v3::CompactionRequest& in) { return store::CompactRequest{{in.revision()}}; });
        case Call::kLeaseGrant:
        case Call::kLeaseRevoke:
        case Call::kLeaseKeepAlive:
        case Call::kLeaseTimeToLive:
        case Call::kLeaseLeases:
            return parse_lease_call(call, body);
        case Call::kWatch:
            return parse_as<v3::WatchRequest>(body, watch_message);
        case Call::kStatus:
            return parse_empty<v3::StatusRequest, StatusCall>(body);
        case Call::kHash:
            return parse_empty<v3::HashRequest, HashCall>(body);
        case Call::kDefragment:
            return parse_empty<v3::DefragmentRequest, DefragmentCall>(body);
        case Call::kAlarm:
            return parse_empty<v3::AlarmRequest, AlarmCall>(body);
        case Call::kSnapshot:
            return parse_empty<v3::SnapshotRequest, SnapshotCall>(body);
        case Call::kMemberList:
        case Call::kMemberAdd:
        case Call::kMemberRemove:
        case Call::kMemberUpdate:
        case Call::kMemberPromote:
            return parse_member_call(call, body);
        case Call::kSessionOpen:
            return parse_empty<v3::SessionOpenRequest, SessionOpen>(body);
        case Call::kSessionClose:
            return parse_as<v3::SessionCloseRequest>(
                body, [](const v3::SessionCloseRequest& in) { return SessionClose{in.session()}; });
    }
    return refuse(Code::kUnimplemented, "unknown call");
}

Result<std::optional<std::string>> MessageSplitter::next() {
    for (; looked_at_ < pending_.size(); ++looked_at_) {
        const char c = pending_[looked_at_];
        if (depth_ == 0 && is_space(c)) continue;
        if (depth_ == 0 && c != '{') return Error{"a message of a stream is a JSON object"};
        if (looked_at_ >= kBodyBytesMax) break;
        if (in_string_) {
            if (escaped_)
                escaped_ = false;
            else if (c == '\\')
                escaped_ = true;
            else if (c == '"')
                in_string_ = false;
            continue;
        }
        if (c == '"') in_string_ = true;
        if ((c == '{' || c == '[') && ++depth_ > kJsonDepthMax) return Error{"the JSON is nested too deep"};
        if ((c == '}' || c == ']') && --depth_ == 0) {
            std::string message = pending_.substr(0, looked_at_ + 1);
            pending_.erase(0, looked_at_ + 1);
            looked_at_ = 0;
            return std::optional(std::move(message));
        }
    }
    if (pending_.size() > kBodyBytesMax) return Error{"a message is larger than this server reads"};
    return std::optional<std::string>();
}

}  // namespace outrider::api
