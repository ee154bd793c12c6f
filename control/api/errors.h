// The one place where what the store refuses gets its gRPC code, its HTTP status and its text: etcd's, to the letter, so
// that clients that match them work.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/units.h"
#include "control/store/types.h"

namespace outrider::api {

// gRPC's codes (google/rpc/code.proto), those that occur.
enum class Code : std::uint8_t {
    kUnknown = 2,
    kInvalidArgument = 3,
    kDeadlineExceeded = 4,
    kNotFound = 5,
    kResourceExhausted = 8,
    kFailedPrecondition = 9,
    kOutOfRange = 11,
    kUnimplemented = 12,
    kInternal = 13,
    kUnavailable = 14,
};

struct Answer {
    int status = 200;  // of HTTP
    std::string_view content_type = "application/json";
    std::string body;
};

struct Problem {
    Code code;
    std::string_view text;
};

// Of a status that is not kOk.
Problem problem_of(store::Status status);
Answer refuse(store::Status status);
// {"error": …, "message": …, "code": …}
Answer refuse(Code code, std::string_view text);
// kNoSpace: its `message` goes on, with the limit and what makes room.
Answer refuse_without_space(Bytes store_max);
int http_status(Code code);

// What the node refuses, with etcd's texts.
inline constexpr Problem kNoSpace{Code::kResourceExhausted, "etcdserver: mvcc: database space exceeded"};
inline constexpr Problem kMemberNotFound{Code::kNotFound, "etcdserver: member not found"};
inline constexpr Problem kMemberUrlsInvalid{Code::kInvalidArgument,
                                            "etcdserver: given member URLs are invalid"};
inline constexpr Problem kLearnerNotReady{
    Code::kFailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader"};
inline constexpr Problem kUnhealthy{Code::kUnavailable, "etcdserver: unhealthy cluster"};
inline constexpr Problem kNoLeader{Code::kUnavailable, "etcdserver: no leader"};
inline constexpr Problem kLeaderChanged{Code::kUnavailable, "etcdserver: leader changed"};
inline constexpr Problem kTimeout{Code::kUnavailable, "etcdserver: request timed out"};
inline constexpr Problem kTooManyRequests{Code::kResourceExhausted, "etcdserver: too many requests"};
inline constexpr Problem kAnotherCall{
    Code::kFailedPrecondition,
    "the session's command with this sequence was another call: this one took no effect now"};
inline constexpr Problem kStopped{Code::kUnavailable, "etcdserver: server stopped"};
inline Answer refuse(const Problem& problem) {
    return refuse(problem.code, problem.text);
}

}  // namespace outrider::api
