#include "control/api/errors.h"

#include "base/bytes.h"
#include "base/check.h"

namespace outrider::api {

Problem problem_of(store::Status status) {
    using store::Status;
    switch (status) {
        case Status::kOk:
            break;
        case Status::kEmptyKey:
            return {Code::kInvalidArgument, "etcdserver: key is not provided"};
        case Status::kKeyNotFound:
            return {Code::kInvalidArgument, "etcdserver: key not found"};
        case Status::kValueProvided:
            return {Code::kInvalidArgument, "etcdserver: value is provided"};
        case Status::kLeaseProvided:
            return {Code::kInvalidArgument, "etcdserver: lease is provided"};
        case Status::kTooManyOps:
            return {Code::kInvalidArgument, "etcdserver: too many operations in txn request"};
        case Status::kDuplicateKey:
            return {Code::kInvalidArgument, "etcdserver: duplicate key given in txn request"};
        case Status::kCompacted:
            return {Code::kOutOfRange, "etcdserver: mvcc: required revision has been compacted"};
        case Status::kFutureRevision:
            return {Code::kOutOfRange, "etcdserver: mvcc: required revision is a future revision"};
        case Status::kNoSpace:
            return kNoSpace;
        case Status::kLeaseNotFound:
            return {Code::kNotFound, "etcdserver: requested lease not found"};
        case Status::kLeaseExists:
            return {Code::kFailedPrecondition, "etcdserver: lease already exists"};
        case Status::kLeaseTtlTooLarge:
            return {Code::kOutOfRange, "etcdserver: too large lease TTL"};
        case Status::kRequestTooLarge:
            return {Code::kInvalidArgument, "etcdserver: request is too large"};
        // From here on etcd has none.
        case Status::kResponseTooLarge:
            return {Code::kResourceExhausted,
                    "the answer is too large: ask for less with limit, keys_only or a range"};
        case Status::kTooDeep:
            return {Code::kInvalidArgument, "transactions are nested too deep"};
        case Status::kSessionUnknown:
            return {Code::kNotFound,
                    "the session is not open, or was idle for too long: the command took no effect now"};
        case Status::kSessionStale:
            return {Code::kFailedPrecondition,
                    "a later command of the session has been applied: this one took no effect now"};
        case Status::kSessionsFull:
            return {Code::kResourceExhausted,
                    "too many sessions are open: close some, or wait until idle ones end"};
        case Status::kSessionAnswerGone:
            return {Code::kFailedPrecondition,
                    "the command took effect when it was first sent; its answer was too large to be kept"};
    }
    require(false, "only what was refused has a problem");
    return {Code::kInternal, ""};
}

int http_status(Code code) {
    switch (code) {
        case Code::kUnknown:
        case Code::kInternal:
            return 500;
        case Code::kInvalidArgument:
        case Code::kOutOfRange:
            return 400;
        case Code::kDeadlineExceeded:
            return 504;
        case Code::kNotFound:
            return 404;
        case Code::kResourceExhausted:
            return 429;
        case Code::kFailedPrecondition:
            return 412;
        case Code::kUnimplemented:
            return 501;
        case Code::kUnavailable:
            return 503;
    }
    return 500;
}

namespace {

Answer refuse(Code code, std::string_view error, std::string_view message) {
    Answer answer;
    answer.status = http_status(code);
    answer.body = "{\"error\":\"";
    append_json_escaped(answer.body, error);
    answer.body += "\",\"message\":\"";
    append_json_escaped(answer.body, message);
    answer.body += "\",\"code\":" + std::to_string(static_cast<int>(code)) + "}";
    return answer;
}

}  // namespace

Answer refuse(Code code, std::string_view text) {
    return refuse(code, text, text);
}

Answer refuse_without_space(Bytes store_max) {
    return refuse(kNoSpace.code, kNoSpace.text,
                  std::string(kNoSpace.text) + ": control.max_store is " + to_string(store_max) +
                      ". Delete keys, then compact: old revisions count too");
}

Answer refuse(store::Status status) {
    return refuse(problem_of(status));
}

}  // namespace outrider::api
