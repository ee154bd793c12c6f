// What the idempotent receiver made of a request: the label of a metric and a field of the access log.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace outrider::filters {

enum class KeyOutcome : std::uint8_t {
    kNone,         // no key, or none of the route's methods
    kFirst,        // forwarded, and recorded
    kReplayed,     // the recorded answer was given
    kWaited,       // … after waiting for the first request to end
    kConflict,     // 409: in flight, or done with an answer that was not kept
    kUnknown,      // 409: nobody knows whether it took effect
    kMismatch,     // 422: the key was used with another request
    kMissing,      // 400: no key, and the route requires one
    kMalformed,    // 400: a key that is none, or a request that cannot have one
    kTooLarge,     // 413: a body above max_request
    kStoreError,   // 503: the store could not be asked, or is full
    kUnprotected,  // … forwarded all the same (on_store_error = "forward")
};

inline constexpr std::array<std::string_view, 12> kKeyOutcomes{
    "",         "first",   "replayed",  "waited",    "conflict",    "unknown",
    "mismatch", "missing", "malformed", "too_large", "store_error", "unprotected"};
static_assert(static_cast<std::size_t>(KeyOutcome::kUnprotected) + 1 == kKeyOutcomes.size());

inline constexpr std::string_view key_outcome_name(KeyOutcome outcome) {
    return kKeyOutcomes[static_cast<std::size_t>(outcome)];
}

}  // namespace outrider::filters
