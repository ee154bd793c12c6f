#include "filters/policy/retry.h"

#include <algorithm>
#include <string>
#include <utility>

#include <gtest/gtest.h>

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

const Instant t0{1000s};

using End = AttemptEnd;
using Why = RetryRefusal;

struct RetryCase : testing::Test {
    RetryLimits limits{.attempts = 3,
                       .connect = true,
                       .reset = true,
                       .timeout = true,
                       .any_5xx = false,
                       .statuses = {429, 503},
                       .backoff_base = 25ms,
                       .backoff_max = 250ms};
    RetrySituation situation{.attempts_made = 1, .safe_to_repeat = true, .body_kept = true, .time_left = {}};
    AttemptResult result{.end = End::kReset, .status = 0, .request_left = true, .retry_after = {}};
    RetryBudget budget{1, 1000};
    Random random{1};

    RetryDecision decide() { return decide_retry(limits, situation, result, budget, t0, random); }
    std::uint64_t charged() { return budget.retries_in_window(t0); }
};

TEST_F(RetryCase, OnlyListedOutcomesAreRepeated) {
    const RetryLimits all{.any_5xx = true, .statuses = {}};
    const RetryLimits none{
        .connect = false, .reset = false, .timeout = false, .any_5xx = false, .statuses = {}};
    const struct {
        End end;
        int status;
        bool by_all;
        bool by_none;
        bool by_default;
    } rows[] = {
        {End::kConnectFailed, 0, true, false, true}, {End::kReset, 0, true, false, true},
        {End::kTimeout, 0, true, false, true},       {End::kOther, 0, false, false, false},
        {End::kOther, 503, false, false, false},     {End::kStatus, 200, false, false, false},
        {End::kStatus, 429, false, false, true},     {End::kStatus, 500, true, false, false},
        {End::kStatus, 503, true, false, true},      {End::kStatus, 599, true, false, false},
        {End::kStatus, 600, false, false, false},    {End::kStatus, 0, false, false, false},
    };
    const RetryLimits usual = limits;
    for (const auto& row : rows) {
        result = {.end = row.end, .status = row.status, .request_left = true, .retry_after = {}};
        const std::pair<const RetryLimits*, bool> asked[] = {
            {&all, row.by_all}, {&none, row.by_none}, {&usual, row.by_default}};
        for (const auto& [by, again] : asked) {
            limits = *by;
            const RetryDecision decision = decide();
            EXPECT_EQ(decision.again, again) << int(row.end) << " " << row.status;
            if (!again) {
                EXPECT_EQ(decision.why, Why::kNotListed);
            }
        }
    }
}

TEST_F(RetryCase, AnUnsafeRequestIsRepeatedOnlyWhenNothingOfItLeft) {
    const struct {
        End end;
        bool left;
        bool safe;
        bool again;
    } rows[] = {
        {End::kReset, true, true, true},          {End::kReset, true, false, false},
        {End::kReset, false, false, true},        {End::kTimeout, true, false, false},
        {End::kTimeout, false, false, true},      {End::kConnectFailed, false, false, true},
        {End::kConnectFailed, true, false, true},  // without a connection nothing can have left
    };
    for (const auto& row : rows) {
        situation.safe_to_repeat = row.safe;
        result = {.end = row.end, .status = 0, .request_left = row.left, .retry_after = {}};
        const RetryDecision decision = decide();
        EXPECT_EQ(decision.again, row.again) << int(row.end) << row.left << row.safe;
        if (!row.again) {
            EXPECT_EQ(decision.why, Why::kNotSafe);
        }
    }
}

TEST_F(RetryCase, AttemptsCountTheFirstOne) {
    const struct {
        std::uint32_t attempts;
        std::uint32_t made;
        bool again;
    } rows[] = {{0, 1, false}, {1, 1, false}, {2, 1, true}, {2, 2, false},
                {3, 2, true},  {3, 3, false}, {3, 9, false}};
    for (const auto& row : rows) {
        limits.attempts = row.attempts;
        situation.attempts_made = row.made;
        const RetryDecision decision = decide();
        EXPECT_EQ(decision.again, row.again) << row.attempts << " " << row.made;
        if (!row.again) {
            EXPECT_EQ(decision.why, Why::kAttemptsSpent);
        }
    }
}

TEST_F(RetryCase, ABodyThatIsGoneIsNotRepeatedEvenWhenNothingLeft) {
    situation.body_kept = false;
    for (const bool left : {true, false}) {
        result.request_left = left;
        EXPECT_FALSE(decide().again);
        EXPECT_EQ(decide().why, Why::kBodyGone);
    }
}

TEST_F(RetryCase, TheWaitIsFullJitterUnderADoublingCap) {
    const struct {
        std::uint32_t made;
        Duration cap;
    } rows[] = {{1, 25ms}, {2, 50ms}, {3, 100ms}, {4, 200ms}, {5, 250ms}, {6, 250ms}, {4'000'000'000, 250ms}};
    limits.attempts = 4'294'967'295;
    for (const auto& row : rows) {
        situation.attempts_made = row.made;
        Duration least = 1h;
        Duration most = 0s;
        Duration sum = 0s;
        for (int i = 0; i < 1000; ++i) {
            budget = RetryBudget(0, 1000);
            const RetryDecision decision = decide();
            ASSERT_TRUE(decision.again);
            least = std::min(least, decision.wait);
            most = std::max(most, decision.wait);
            sum += decision.wait;
        }
        EXPECT_GE(least, 0s);
        EXPECT_LE(least, row.cap / 50) << row.made;
        EXPECT_LE(most, row.cap) << row.made;
        EXPECT_GE(most, row.cap - row.cap / 50) << row.made;
        EXPECT_NEAR(seconds_of(sum / 1000), seconds_of(row.cap) / 2, seconds_of(row.cap) / 20) << row.made;
    }
}

TEST_F(RetryCase, OddBackoffsStayInTheirBounds) {
    const struct {
        Duration base;
        Duration max;
        Duration most;
    } rows[] = {{0s, 250ms, 0s},
                {0s, 0s, 0s},
                {1s, 100ms, 100ms},
                {25ms, 0s, 0s},
                {Duration::max(), Duration::max(), Duration::max()}};
    limits.attempts = 100;
    situation.attempts_made = 50;
    for (const auto& row : rows) {
        limits.backoff_base = row.base;
        limits.backoff_max = row.max;
        const RetryDecision decision = decide();
        EXPECT_TRUE(decision.again);
        EXPECT_GE(decision.wait, 0s);
        EXPECT_LE(decision.wait, row.most);
    }
}

TEST_F(RetryCase, TheFirstConnectFailureGoesAtOnceAndLaterOnesBackOff) {
    result.end = End::kConnectFailed;
    Duration later = 0s;
    for (int i = 0; i < 100; ++i) {
        situation.attempts_made = 1;
        EXPECT_EQ(decide().wait, 0s);
        situation.attempts_made = 2;
        later = std::max(later, decide().wait);
    }
    EXPECT_GT(later, 25ms);
    EXPECT_LE(later, 50ms);
}

TEST_F(RetryCase, RetryAfterIsTheLeastWaitAndALongOneIsPassedOn) {
    const struct {
        Duration retry_after;
        Duration least;
        Duration most;  // 0 = not repeated
    } rows[] = {{0s, 0s, 1s},  {1s, 1s, 2s},       {4500ms, 4500ms, 5s}, {5s, 5s, 5s},
                {-1s, 0s, 1s}, {5s + 1ns, 0s, 0s}, {24h, 0s, 0s}};
    limits.backoff_base = 1s;
    limits.backoff_max = 5s;
    result.end = End::kStatus;
    result.status = 503;
    for (const auto& row : rows) {
        result.retry_after = row.retry_after;
        for (int i = 0; i < 50; ++i) {
            const RetryDecision decision = decide();
            ASSERT_EQ(decision.again, row.most > 0s) << row.retry_after.count();
            if (!decision.again) {
                EXPECT_EQ(decision.why, Why::kRetryAfter);
            }
            EXPECT_GE(decision.wait, row.least);
            EXPECT_LE(decision.wait, row.most);
        }
    }
}

TEST_F(RetryCase, AWaitThatMeetsTheDeadlineIsRefused) {
    result.end = End::kStatus;
    result.status = 503;
    limits.backoff_base = 0s;
    limits.backoff_max = 5s;
    const struct {
        Duration retry_after;
        std::optional<Duration> left;
        bool again;
    } rows[] = {{1s, std::nullopt, true}, {1s, 1001ms, true}, {1s, 1s, false}, {1s, 0s, false},
                {0s, 1ns, true},          {0s, 0s, false},    {0s, -1s, false}};
    for (const auto& row : rows) {
        result.retry_after = row.retry_after;
        situation.time_left = row.left;
        const RetryDecision decision = decide();
        EXPECT_EQ(decision.again, row.again);
        if (!row.again) {
            EXPECT_EQ(decision.why, Why::kDeadline);
        }
    }
}

TEST_F(RetryCase, TheFirstRuleThatSaysNoIsTheReasonAndOnlyAYesIsCharged) {
    limits.attempts = 1;
    limits.reset = false;
    situation = {.attempts_made = 1, .safe_to_repeat = false, .body_kept = false, .time_left = 0s};
    result.retry_after = 1h;
    budget.configure(0, 0);

    EXPECT_EQ(decide().why, Why::kNotListed);
    limits.reset = true;
    EXPECT_EQ(decide().why, Why::kNotSafe);
    situation.safe_to_repeat = true;
    EXPECT_EQ(decide().why, Why::kAttemptsSpent);
    limits.attempts = 2;
    EXPECT_EQ(decide().why, Why::kBodyGone);
    situation.body_kept = true;
    EXPECT_EQ(decide().why, Why::kRetryAfter);
    result.retry_after.reset();
    EXPECT_EQ(decide().why, Why::kDeadline);
    situation.time_left = 1h;
    EXPECT_EQ(decide().why, Why::kBudget);
    EXPECT_EQ(charged(), 0u);

    budget = RetryBudget(0, 1);
    situation.time_left = 0s;
    EXPECT_EQ(decide().why, Why::kDeadline);
    EXPECT_EQ(charged(), 0u) << "a refusal leaves the budget to others";
    situation.time_left = 1h;
    EXPECT_TRUE(decide().again);
    EXPECT_EQ(charged(), 1u);
    EXPECT_EQ(decide().why, Why::kBudget);
}

// Sun, 06 Nov 1994 08:49:37 GMT, the RFC's example.
constexpr std::int64_t kExample = 784111777;

std::optional<Duration> parse_at(std::string_view value, std::int64_t unix_seconds) {
    return parse_retry_after(value, WallTime{unix_seconds * 1'000'000});
}

TEST(RetryAfter, SecondsAreTakenUpToADay) {
    const struct {
        const char* value;
        Duration wait;
    } rows[] = {{"0", 0s},
                {"1", 1s},
                {"120", 120s},
                {"007", 7s},
                {"86400", 24h},
                {"86401", 24h},
                {" 5\t", 5s},
                {"00000000000000000000000000005", 5s},
                {"18446744073709551617", 24h},
                {"99999999999999999999999999999999999999", 24h}};
    for (const auto& row : rows) {
        EXPECT_EQ(parse_at(row.value, kExample), std::optional<Duration>(row.wait)) << row.value;
    }
    EXPECT_EQ(parse_at(std::string(100'000, '9'), 0), std::optional<Duration>(24h));
}

TEST(RetryAfter, AllThreeFormsOfADateAreTheTimeUntilIt) {
    const char* const forms[] = {"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
                                 "Sun Nov  6 08:49:37 1994"};
    for (const char* form : forms) {
        EXPECT_EQ(parse_at(form, kExample), std::optional<Duration>(0s)) << form;
        EXPECT_EQ(parse_at(form, kExample - 90), std::optional<Duration>(90s)) << form;
        EXPECT_EQ(parse_at(form, kExample + 1), std::optional<Duration>(0s)) << form;
        EXPECT_EQ(parse_at(form, kExample - 86400), std::optional<Duration>(24h)) << form;
        EXPECT_EQ(parse_at(form, kExample - 86401), std::optional<Duration>(24h)) << form;
        EXPECT_EQ(parse_at(form, kExample + 1'000'000'000), std::optional<Duration>(0s)) << form;
        EXPECT_EQ(parse_retry_after(form, WallTime{kExample * 1'000'000 - 1}), std::optional<Duration>(1us))
            << form;
    }
}

TEST(RetryAfter, TheCalendarIsRight) {
    const struct {
        const char* value;
        std::int64_t unix_seconds;
    } rows[] = {
        {"Thu, 01 Jan 1970 00:00:05 GMT", 5},
        {"Thu, 29 Feb 2024 23:59:59 GMT", 1709251199},
        {"Fri, 01 Mar 2024 00:00:00 GMT", 1709251200},
        {"Tue, 29 Feb 2000 12:00:00 GMT", 951825600},
        {"Wed, 31 Dec 2025 23:59:60 GMT", 1767225600},  // a leap second is the next minute's first
        {"Mon, 01 Jan 2400 00:00:00 GMT", 13569465600},
        {"Thu Jan  1 00:00:05 1970", 5},
        {"Wed Nov 16 08:49:37 1994", 784111777 + 10 * 86400},
        {"Friday, 01-Mar-24 00:00:00 GMT", 1709251200},
        {"Mon, 29 Feb 2024 23:59:59 GMT", 1709251199},  // the day of the week is not looked at
    };
    for (const auto& row : rows) {
        EXPECT_EQ(parse_at(row.value, row.unix_seconds), std::optional<Duration>(0s)) << row.value;
        EXPECT_EQ(parse_at(row.value, row.unix_seconds - 1), std::optional<Duration>(1s)) << row.value;
    }
}

TEST(RetryAfter, ATwoDigitYearIsNeverMoreThanFiftyYearsAhead) {
    constexpr std::int64_t k2026 = 1'767'225'600;  // 2026-01-01
    const struct {
        const char* value;
        Duration wait;
    } rows[] = {{"Thursday, 01-Jan-26 00:00:30 GMT", 30s},  {"Friday, 01-Jan-27 00:00:00 GMT", 24h},
                {"Wednesday, 01-Jan-76 00:00:00 GMT", 24h}, {"Saturday, 01-Jan-77 00:00:00 GMT", 0s},
                {"Friday, 01-Jan-99 00:00:00 GMT", 0s},     {"Saturday, 01-Jan-00 00:00:00 GMT", 0s}};
    for (const auto& row : rows) {
        EXPECT_EQ(parse_at(row.value, k2026), std::optional<Duration>(row.wait)) << row.value;
    }
    constexpr std::int64_t k2099 = 4'070'908'800;  // 2099-01-01
    EXPECT_EQ(parse_at("Saturday, 01-Jan-01 00:00:00 GMT", k2099), std::optional<Duration>(24h)) << "2101";
}

TEST(RetryAfter, AnythingElseIsNothing) {
    const char* const rows[] = {"",
                                " ",
                                "\t",
                                "-1",
                                "+1",
                                "1.5",
                                "1s",
                                "1 2",
                                "1,2",
                                "0x10",
                                "1e3",
                                "soon",
                                "\xd9\xa3",
                                "Sun, 06 Nov 1994 08:49:37",
                                "Sun, 06 Nov 1994 08:49:37 GMT.",
                                "Sun, 06 Nov 1994 08:49:37 UTC",
                                "Sun, 06 Nov 1994 08:49:37 +0000",
                                "Sun, 6 Nov 1994 08:49:37 GMT",
                                "Sun,06 Nov 1994 08:49:37 GMT",
                                "Sun 06 Nov 1994 08:49:37 GMT",
                                "sun, 06 Nov 1994 08:49:37 GMT",
                                "Sun, 06 nov 1994 08:49:37 GMT",
                                "Sun, 06 Nov 94 08:49:37 GMT",
                                "Sun, 06 Nov 1994 8:49:37 GMT",
                                "Sun, 06 Nov 1994 08:49 GMT",
                                "Sun, 06 Nov 1994  08:49:37 GMT",
                                "Sun, 00 Nov 1994 08:49:37 GMT",
                                "Sun, 31 Nov 1994 08:49:37 GMT",
                                "Sun, 29 Feb 2023 08:49:37 GMT",
                                "Sun, 29 Feb 2100 08:49:37 GMT",
                                "Sun, 32 Jan 1994 08:49:37 GMT",
                                "Sun, 06 Foo 1994 08:49:37 GMT",
                                "Foo, 06 Nov 1994 08:49:37 GMT",
                                "Sun, 06 Nov 1994 24:00:00 GMT",
                                "Sun, 06 Nov 1994 08:60:00 GMT",
                                "Sun, 06 Nov 1994 08:00:61 GMT",
                                "Sun, -6 Nov 1994 08:49:37 GMT",
                                "Sun, 06 Nov -994 08:49:37 GMT",
                                "Sun, 06 Nov 19940 08:49:37 GMT",
                                "Sun, 06-Nov-94 08:49:37 GMT",
                                "Sunday, 06 Nov 1994 08:49:37 GMT",
                                "Sunday, 06-Nov-1994 08:49:37 GMT",
                                "Sunday, 06-Nov-94 08:49:37",
                                "Sunday, 06-Nov-9 08:49:37 GMT",
                                "Sun Nov 6 08:49:37 1994",
                                "Sun Nov   6 08:49:37 1994",
                                "Sun Nov  0 08:49:37 1994",
                                "Sun Nov  6 08:49:37 94",
                                "Sun Nov  6 08:49:37 1994 GMT",
                                "Sun Nov 31 08:49:37 1994",
                                "Sun",
                                "Sun,",
                                "Sun, ",
                                "Sun, 0",
                                "GMT",
                                ":",
                                "Sun, 06 Nov 1994 08:49:37 GM"};
    for (const char* value : rows) {
        EXPECT_EQ(parse_at(value, kExample - 60), std::nullopt) << value;
    }
    EXPECT_EQ(parse_at(std::string_view("12\0", 3), 0), std::nullopt);
    EXPECT_EQ(parse_at(std::string(100'000, 'S'), 0), std::nullopt);
}

TEST(RetryAfter, EveryPrefixAndEveryChangedByteOfADateIsReadWithinBounds) {
    const std::string forms[] = {"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
                                 "Sun Nov  6 08:49:37 1994"};
    for (const std::string& form : forms) {
        for (std::size_t i = 0; i < form.size(); ++i) {
            EXPECT_EQ(parse_at(form.substr(0, i), kExample), std::nullopt) << form.substr(0, i);
            for (int byte = 0; byte < 256; ++byte) {
                std::string changed = form;
                changed[i] = static_cast<char>(byte);
                const std::optional<Duration> wait = parse_at(changed, kExample);
                if (!wait) continue;
                EXPECT_GE(*wait, 0s) << changed;
                EXPECT_LE(*wait, 24h) << changed;
            }
        }
    }
}

}  // namespace
}  // namespace outrider::policy
