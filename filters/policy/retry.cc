#include "filters/policy/retry.h"

#include <algorithm>
#include <chrono>

namespace outrider::policy {
namespace {

bool listed(const RetryLimits& limits, const AttemptResult& result) {
    switch (result.end) {
        case AttemptEnd::kConnectFailed:
            return limits.connect;
        case AttemptEnd::kReset:
            return limits.reset;
        case AttemptEnd::kTimeout:
            return limits.timeout;
        case AttemptEnd::kStatus:
            return status_listed(limits, result.status);
        case AttemptEnd::kOther:
            return false;
    }
    return false;
}

// How far the jitter reaches before the next attempt.
Duration backoff_cap(const RetryLimits& limits, const RetrySituation& situation,
                     const AttemptResult& result) {
    if (result.end == AttemptEnd::kConnectFailed && situation.attempts_made <= 1) return Duration::zero();
    Duration cap = std::min(limits.backoff_base, limits.backoff_max);
    for (std::uint32_t n = 1; n < situation.attempts_made && cap > Duration::zero(); ++n) {
        if (cap > limits.backoff_max / 2) return limits.backoff_max;
        cap *= 2;
    }
    return std::max(cap, Duration::zero());
}

Duration uniform(Duration least, Duration most, Random& random) {
    const auto spread = static_cast<std::uint64_t>((most - least).count());
    return least + Duration(static_cast<Duration::rep>(random.below(spread + 1)));
}

constexpr RetryDecision refuse(RetryRefusal why) {
    return {.again = false, .wait = {}, .why = why};
}

}  // namespace

bool status_listed(const RetryLimits& limits, int status) {
    if (limits.any_5xx && status >= 500 && status <= 599) return true;
    return std::find(limits.statuses.begin(), limits.statuses.end(), status) != limits.statuses.end();
}

RetryDecision decide_retry(const RetryLimits& limits, const RetrySituation& situation,
                           const AttemptResult& result, RetryBudget& budget, Instant now, Random& random) {
    const bool left = result.request_left && result.end != AttemptEnd::kConnectFailed;
    if (!listed(limits, result)) return refuse(RetryRefusal::kNotListed);
    if (left && !situation.safe_to_repeat) return refuse(RetryRefusal::kNotSafe);
    if (situation.attempts_made >= limits.attempts) return refuse(RetryRefusal::kAttemptsSpent);
    if (!situation.body_kept) return refuse(RetryRefusal::kBodyGone);

    const Duration least = std::max(result.retry_after.value_or(Duration::zero()), Duration::zero());
    if (least > std::max(limits.backoff_max, Duration::zero())) return refuse(RetryRefusal::kRetryAfter);
    const Duration cap = backoff_cap(limits, situation, result);
    const Duration most =
        cap < limits.backoff_max - least ? least + cap : std::max(limits.backoff_max, least);
    const Duration wait = uniform(least, most, random);
    if (situation.time_left && wait >= *situation.time_left) return refuse(RetryRefusal::kDeadline);

    if (!budget.try_retry(now)) return refuse(RetryRefusal::kBudget);
    return {.again = true, .wait = wait, .why = {}};
}

// Retry-After
// ---------------------------------------------------------------------------------------------------------

namespace {

constexpr std::int64_t kRetryAfterMaxSeconds = 24 * 60 * 60;

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// Takes a date apart from its start. Once something does not fit, `ok` stays false and nothing more is taken.
struct DateReader {
    std::string_view rest;
    bool ok = true;

    void literal(std::string_view text) {
        ok = ok && rest.substr(0, text.size()) == text;
        if (ok) rest.remove_prefix(text.size());
    }

    int digits(std::size_t count) {
        ok = ok && rest.size() >= count && std::all_of(rest.begin(), rest.begin() + count, is_digit);
        if (!ok) return 0;
        int value = 0;
        for (std::size_t i = 0; i < count; ++i) {
            value = value * 10 + (rest[i] - '0');
        }
        rest.remove_prefix(count);
        return value;
    }

    // The index of the name that comes next.
    template <std::size_t N>
    unsigned name(const std::string_view (&names)[N]) {
        for (unsigned i = 0; ok && i < N; ++i) {
            if (rest.substr(0, names[i].size()) != names[i]) continue;
            rest.remove_prefix(names[i].size());
            return i;
        }
        ok = false;
        return 0;
    }
};

constexpr std::string_view kDays[] = {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"};
constexpr std::string_view kLongDays[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                          "Friday", "Saturday", "Sunday"};
constexpr std::string_view kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

struct Date {
    int year = 0;
    unsigned month = 0;  // 1 to 12
    int day = 0;
    int hour = 0;
    int minute = 0;
    int second = 0;
};

void read_time(DateReader& in, Date& date) {
    date.hour = in.digits(2);
    in.literal(":");
    date.minute = in.digits(2);
    in.literal(":");
    date.second = in.digits(2);
}

// "Sun, 06 Nov 1994 08:49:37 GMT"
std::optional<Date> read_imf_fixdate(std::string_view text) {
    DateReader in{text};
    Date date;
    in.name(kDays);
    in.literal(", ");
    date.day = in.digits(2);
    in.literal(" ");
    date.month = in.name(kMonths) + 1;
    in.literal(" ");
    date.year = in.digits(4);
    in.literal(" ");
    read_time(in, date);
    in.literal(" GMT");
    return in.ok && in.rest.empty() ? std::optional(date) : std::nullopt;
}

// "Sunday, 06-Nov-94 08:49:37 GMT"
std::optional<Date> read_rfc850(std::string_view text, int year_now) {
    DateReader in{text};
    Date date;
    in.name(kLongDays);
    in.literal(", ");
    date.day = in.digits(2);
    in.literal("-");
    date.month = in.name(kMonths) + 1;
    in.literal("-");
    // RFC 9110 section 5.6.7: more than 50 years ahead is the latest past year of the same two digits.
    const int latest = year_now + 50;
    date.year = latest - (latest - in.digits(2)) % 100;
    in.literal(" ");
    read_time(in, date);
    in.literal(" GMT");
    return in.ok && in.rest.empty() ? std::optional(date) : std::nullopt;
}

// "Sun Nov  6 08:49:37 1994"
std::optional<Date> read_asctime(std::string_view text) {
    DateReader in{text};
    Date date;
    in.name(kDays);
    in.literal(" ");
    date.month = in.name(kMonths) + 1;
    in.literal(" ");
    if (in.rest.substr(0, 1) == " ") {
        in.literal(" ");
        date.day = in.digits(1);
    } else {
        date.day = in.digits(2);
    }
    in.literal(" ");
    read_time(in, date);
    in.literal(" ");
    date.year = in.digits(4);
    return in.ok && in.rest.empty() ? std::optional(date) : std::nullopt;
}

// nullopt: there is no such day or time. A leap second (60) is one.
std::optional<std::int64_t> unix_seconds(const Date& date) {
    const std::chrono::year_month_day day(std::chrono::year(date.year), std::chrono::month(date.month),
                                          std::chrono::day(static_cast<unsigned>(date.day)));
    if (!day.ok() || date.hour > 23 || date.minute > 59 || date.second > 60) return std::nullopt;
    const std::int64_t days = std::chrono::sys_days(day).time_since_epoch().count();
    return ((days * 24 + date.hour) * 60 + date.minute) * 60 + date.second;
}

int year_of(WallTime now) {
    const std::chrono::sys_time<std::chrono::microseconds> instant{
        std::chrono::microseconds(now.unix_micros)};
    return int(std::chrono::year_month_day(std::chrono::floor<std::chrono::days>(instant)).year());
}

std::string_view trimmed(std::string_view value) {
    const std::size_t first = value.find_first_not_of(" \t");
    if (first == std::string_view::npos) return {};
    return value.substr(first, value.find_last_not_of(" \t") + 1 - first);
}

}  // namespace

std::optional<Duration> parse_retry_after(std::string_view value, WallTime now) {
    value = trimmed(value);
    if (!value.empty() && std::all_of(value.begin(), value.end(), is_digit)) {
        std::int64_t seconds = 0;
        for (const char c : value) {
            seconds = std::min(kRetryAfterMaxSeconds, seconds * 10 + (c - '0'));
        }
        return std::chrono::seconds(seconds);
    }
    std::optional<Date> date = read_imf_fixdate(value);
    if (!date) date = read_rfc850(value, year_of(now));
    if (!date) date = read_asctime(value);
    if (!date) return std::nullopt;
    const std::optional<std::int64_t> seconds = unix_seconds(*date);
    if (!seconds) return std::nullopt;
    const std::int64_t micros = *seconds * 1'000'000 - now.unix_micros;
    return std::chrono::microseconds(std::clamp<std::int64_t>(micros, 0, kRetryAfterMaxSeconds * 1'000'000));
}

}  // namespace outrider::policy
