// What an exchange remembers of its idempotency key: who it is, how far the store's questions are, and the answer that is being recorded.
// exchange_keyed.cc says what happens when. Made for the first request with a key, kept with the pooled exchange.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "filters/policy/idempotency.h"
#include "filters/policy/idempotency_key.h"
#include "idempotency/store.h"
#include "proxy/problem.h"

namespace outrider::proxy {

struct KeyGuard {
    enum class Stage : std::uint8_t {
        kNone,      // no key, or nothing more to do with it
        kBody,      // the request's body is coming in
        kAsking,    // the store was asked
        kLeaving,   // … and the exchange does not want to know any more
        kOwner,     // to be forwarded; a report is owed
        kSettling,  // the report is with the store
    };

    Stage stage = Stage::kNone;
    idempotency::StoreClient* store = nullptr;
    std::optional<policy::Fingerprint> fingerprint;  // while the body comes
    policy::Owner owner;
    Instant lease_end{};
    bool left = false;  // a byte of the request may have left for an upstream

    // The answer, until it is recorded.
    int status = 0;
    std::string head;  // http::kept_head()
    std::string body;
    std::shared_ptr<const policy::StoredResponse> record;  // of the two, when it is whole
    std::optional<std::uint64_t> length;                   // of its body, if the upstream said it
    bool streaming = false;    // above max_response: it goes to the client as it comes, all but its last byte
    std::optional<char> last;  // that one
    bool head_too_large = false;  // of an answer without a body: neither recorded nor streamed
    // What the client is told when the report is recorded, in place of an answer.
    std::optional<Failure> failure;
    std::string failure_detail;
    Duration retry_after{};
};

}  // namespace outrider::proxy
