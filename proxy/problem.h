// Every failure that outrider answers itself, in ONE place: status, Proxy-Status error (RFC 9209), log flag, words.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "filters/flags.h"

namespace outrider::proxy {

enum class Failure : std::uint8_t {
    kNoRoute,
    kBadRequest,     // status and reason come from the parser
    kConnectMethod,  // CONNECT is not served
    kNoEndpoint,     // the cluster has none
    kConnectRefused,
    kConnectTimeout,
    kUpstreamReset,  // closed before a response
    kUpstreamIncomplete,
    kUpstreamProtocol,
    kUpstreamTimeout,  // no byte for read_timeout
    kRouteTimeout,     // the whole exchange took too long
    kTooManyConnections,
    kTooManyRequests,  // cluster.limits.max_requests
    kTooManyPending,   // cluster.limits.max_pending
    kRateLimited,
    kShed,           // the route's adaptive limit
    kFaultInjected,  // the status is the configuration's
    kDeadlinePassed,
    kLoop,
    kWriteTimeout,  // the upstream takes no more of the request
    // Of batches.
    kBatchMember,  // not what the route's format wants
    kBatchMemberTooLarge,
    kBatchFull,    // too many wait for a call
    kBatchAnswer,  // cannot be taken apart
    // Of the idempotent receiver.
    kKeyMissing,
    kKeyMalformed,
    kKeyReused,  // with another request
    kKeyInFlight,
    kKeyWaitedTooLong,
    kKeyDone,         // its answer was not kept
    kKeyUnknownCut,   // the exchange with the upstream broke off
    kKeyUnknownLost,  // its sidecar was lost
    kKeyBodyTooLarge,
    kKeyBodiesHeld,  // all bodies together that wait for their key's verdict
    kKeyStoreFull,
    kKeyStoreFailed,
};

struct Problem {
    int status = 500;
    std::string_view proxy_status;  // error token of RFC 9209 section 2.3
    std::string_view detail;        // one sentence for people
    filters::Flags flags;
    bool retry_after = false;
    std::string_view type{};  // of the idempotent receiver: a URI
};

Problem problem_for(Failure failure);

// RFC 9457: application/problem+json. What is empty is left out.
struct ProblemDocument {
    std::string_view type;  // empty: about:blank
    int status = 500;
    std::string_view detail;
    std::string_view request_id;
    std::string_view policy;  // where the promise about idempotency is published
    std::string_view key;     // as /idempotency/{store}/{key} takes it
};
std::string problem_json(const ProblemDocument& document);

// "node; error=token; details=\"…\"" with the node as a token or a quoted string (RFC 9209 section 2).
std::string proxy_status(std::string_view node, std::string_view error, std::string_view details);

}  // namespace outrider::proxy
