// Whether the failure of an attempt is repeated, and after which wait. Pure: the caller says what happened
// and what it knows of the request, and makes the attempt.
//
// Rules, in the order in which they are asked; the first that says no is the reason:
//   kNotListed      the outcome is in the limits. kOther never is: after a broken or incomplete answer the
//                   upstream has done its work, and the client may have seen a part of it.
//   kNotSafe        repeating has no second effect (RFC 9110 section 9.2.2: an idempotent method, or a
//                   request whose key makes it so), or no byte of the request left for the upstream. The
//                   caller says which; nothing is guessed here.
//   kAttemptsSpent  attempts_made < attempts, which counts all of them, the first included.
//   kBodyGone       the whole request can be sent again.
//   kRetryAfter     the upstream's Retry-After is not above backoff_max. A longer one is the client's to
//                   hear: holding its request that long helps nobody, and coming back sooner is what the
//                   upstream asked us not to do.
//   kDeadline       the wait ends before the exchange's deadline.
//   kBudget         the route's budget. Asked last: it is charged only for attempts that will be made.
//
// The wait is "full jitter" ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015) on top of
// Retry-After:
//   uniform in [r, min(r + cap, backoff_max)]    r = Retry-After, or 0
//   cap = min(backoff_max, backoff_base * 2^(n - 1))    n = attempts made
// so it is never above backoff_max, and those who were given the same Retry-After do not come back in step.
// One exception: when the FIRST attempt got no connection, the second goes at once. Nothing was offered to an
// upstream that could be overloaded, and another endpoint is likely to take it; a caller would only see the
// wait. Later ones back off like all others: then it is not one endpoint that is gone.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "base/time.h"
#include "filters/policy/retry_budget.h"

namespace outrider::policy {

struct RetryLimits {
    std::uint32_t attempts = 3;  // in all, the first included; 1 = never repeated
    bool connect = true;
    bool reset = true;
    bool timeout = true;
    bool any_5xx = false;  // 500 to 599
    std::vector<int> statuses;
    Duration backoff_base = std::chrono::milliseconds(25);  // 0 = no wait
    Duration backoff_max = std::chrono::milliseconds(250);
};

enum class AttemptEnd : std::uint8_t {
    kConnectFailed,  // refused, unreachable or not connected in time: nothing left
    kReset,          // closed before the response's head
    kTimeout,        // per-try or read timeout before the response's head
    kStatus,         // a whole head, with this status
    kOther,          // protocol error, incomplete body
};

struct AttemptResult {
    AttemptEnd end = AttemptEnd::kOther;
    int status = 0;            // kStatus only
    bool request_left = true;  // a byte of the request may have reached the upstream; kConnectFailed: never
    std::optional<Duration> retry_after;
};

enum class RetryRefusal : std::uint8_t {
    kNotListed,
    kNotSafe,
    kAttemptsSpent,
    kBodyGone,
    kRetryAfter,
    kDeadline,
    kBudget,
};

struct RetrySituation {
    std::uint32_t attempts_made = 1;    // the one that just ended included
    bool safe_to_repeat = false;        // idempotent method, or keyed
    bool body_kept = false;             // the whole request can be sent (again); true when it has no body
    std::optional<Duration> time_left;  // until the exchange's deadline; nullopt = none
};

struct RetryDecision {
    bool again = false;
    Duration wait{};     // when again
    RetryRefusal why{};  // when not
};

RetryDecision decide_retry(const RetryLimits& limits, const RetrySituation& situation,
                           const AttemptResult& result, RetryBudget& budget, Instant now, Random& random);

// A response with this status may be repeated.
bool status_listed(const RetryLimits& limits, int status);

// Retry-After (RFC 9110 section 10.2.3): delay-seconds, or an HTTP-date in any of the three forms of section
// 5.6.7. From 0 (a date that is past) to 24 h (whatever is beyond); nullopt if it is neither. Names are
// matched by case, as the section says, and whether the day of the week fits the date is not looked at. A
// two-digit year is the latest one that is not more than 50 years ahead.
std::optional<Duration> parse_retry_after(std::string_view value, WallTime now);

}  // namespace outrider::policy
