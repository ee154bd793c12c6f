// The sub-tables of [[route]] that say what outrider does about failure and load.
//
// Contradictions are looked for among values that are right or absent (the default then counts): of a
// value that is wrong nothing more can be said.
#include <algorithm>
#include <cmath>
#include <string>

#include "base/units.h"
#include "config/sections.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

constexpr std::uint32_t kAttemptsMax = 10;
constexpr std::uint32_t kBudgetFloorMax = 1000;
constexpr Bytes kRetryBodyMax{1024 * 1024};
constexpr Duration kRetryTimeoutMax = 30 * 24h;  // as the route's timeout
constexpr Duration kDelayMin = 1ms;
constexpr Duration kDelayMax = 5min;
constexpr double kRateMin = 0.001;
constexpr double kRateMax = 1'000'000;
constexpr std::uint32_t kCountMax = 1'000'000;

void read_conditions(TableReader& retry, RetryOn& out) {
    std::vector<std::string> conditions;
    if (!retry.list("on", conditions, parse_retry_condition, {1, kRetryOnMax})) return;
    out = retry_on(conditions);  // in place of the default, not beside it
    std::sort(conditions.begin(), conditions.end());
    const auto twice = std::adjacent_find(conditions.begin(), conditions.end());
    if (twice != conditions.end()) retry.warning("on", in_quotes(*twice) + " is listed twice");
}

void read_backoff(TableReader& retry, RetrySettings& out) {
    auto table = retry.table("backoff");
    if (!table) return;
    const bool base = table->duration("base", out.backoff_base, {0s, kDelayMax}) || !table->has("base");
    const bool max = table->duration("max", out.backoff_max, {0s, kDelayMax}) || !table->has("max");
    table->finish();
    if (base && max && out.backoff_base > out.backoff_max) {
        table->error_above("base", outrider::to_string(out.backoff_base), "max",
                           outrider::to_string(out.backoff_max));
    }
}

void read_budget(TableReader& retry, RetrySettings& out) {
    auto table = retry.table("budget");
    if (!table) return;
    table->number("ratio", out.budget_ratio, {0, 1});
    table->integer("min_per_second", out.budget_min_per_second, {0, kBudgetFloorMax});
    table->finish();
    if (out.budget_ratio == 0 && out.budget_min_per_second == 0) {
        retry.warning("budget", "allows nothing: with ratio and min_per_second at 0 no request is repeated");
    }
}

// The budget is that of hedges too, so a hedge gives it a meaning.
void check_single_attempt(TableReader& retry, bool hedged) {
    bool wrong = false;
    const auto refuse = [&](const char* key, const char* what) {
        if (!retry.has(key)) return;
        retry.error(key, std::string(what) + " without retries: attempts = 1 is the first attempt alone");
        wrong = true;
    };
    refuse("per_try_timeout", "a timeout of each try");
    refuse("backoff", "a backoff");
    if (!hedged) refuse("budget", "a budget");
    if (!wrong && !hedged) {
        retry.warning("attempts", "1 is the first attempt alone: this [route.retry] has no effect");
    }
}

void read_retry(TableReader& route, Duration timeout, std::optional<RetrySettings>& out) {
    auto table = route.table("retry");
    if (!table) return;
    RetrySettings retry;
    table->integer("attempts", retry.attempts, {1, kAttemptsMax});
    table->duration("per_try_timeout", retry.per_try_timeout, {0s, kRetryTimeoutMax});
    read_conditions(*table, retry.on);
    read_backoff(*table, retry);
    read_budget(*table, retry);
    table->size("max_body", retry.max_body, {Bytes{0}, kRetryBodyMax});
    table->finish();
    if (timeout > 0s && retry.per_try_timeout > timeout) {
        table->error("per_try_timeout", outrider::to_string(retry.per_try_timeout) +
                                            " is above the route's timeout (" + outrider::to_string(timeout) +
                                            (route.has("timeout") ? ")" : ", the default)") +
                                            ", which ends all attempts before");
    }
    if (retry.attempts == 1) check_single_attempt(*table, route.has("hedge"));
    require_cluster(route, *table, "repeats what an upstream gets");
    out = std::move(retry);
}

void read_hedge(TableReader& route, Duration timeout, const std::optional<RetrySettings>& retry,
                std::optional<HedgeSettings>& out) {
    auto table = route.table("hedge");
    if (!table) return;
    HedgeSettings hedge;
    const bool known =
        table->require_key("after", "after = \"p95\"") && table->parsed("after", hedge, parse_hedge_after);
    Duration fallback = hedge.fallback;
    table->duration("fallback", fallback, {kDelayMin, kDelayMax});
    table->finish();
    require_cluster(route, *table, "repeats what an upstream gets");
    if (!known || hedge.percentile > 0) {
        hedge.fallback = fallback;
        out = hedge;
        return;
    }
    if (table->has("fallback")) {
        table->warning("fallback", "has no effect: only a percentile has to be measured first");
    }
    const auto never_starts = [&](Duration limit, const std::string& name) {
        if (limit == 0s || hedge.after < limit) return;
        table->error("after", outrider::to_string(hedge.after) + " is not below " + name + " (" +
                                  outrider::to_string(limit) + "): the hedge would never start");
    };
    never_starts(timeout, "the route's timeout");
    if (retry) never_starts(retry->per_try_timeout, "retry.per_try_timeout");
    out = hedge;
}

void read_rate_limit(TableReader& route, std::optional<RateLimitSettings>& out) {
    auto table = route.table("rate_limit");
    if (!table) return;
    RateLimitSettings limit;
    if (table->require_key("rate", "rate = 100")) table->number("rate", limit.rate, {kRateMin, kRateMax});
    limit.burst = static_cast<std::uint32_t>(std::ceil(limit.rate));
    table->integer("burst", limit.burst, {1, kCountMax});
    table->parsed("key", limit.key, parse_rate_key);
    std::uint32_t max_keys = limit.max_keys;
    table->integer("max_keys", max_keys, {1, kCountMax});
    table->finish();
    if (table->has("key")) {
        limit.max_keys = max_keys;
    } else if (table->has("max_keys")) {
        table->warning("max_keys", "has no effect: without key there is one bucket for the route");
    }
    out = std::move(limit);
}

void read_concurrency(TableReader& route, std::optional<ConcurrencySettings>& out) {
    auto table = route.table("concurrency");
    if (!table) return;
    ConcurrencySettings limit;
    const bool max = table->integer("max", limit.max, {1, kCountMax}) || !table->has("max");
    const bool min = table->integer("min", limit.min, {1, kCountMax}) || !table->has("min");
    table->finish();
    if (max && min && limit.min > limit.max) {
        table->error_above("min", std::to_string(limit.min), "max", std::to_string(limit.max));
    }
    require_cluster(route, *table, "limits what an upstream has to do");
    out = limit;
}

void read_fault(TableReader& route, std::optional<FaultSettings>& out) {
    auto table = route.table("fault");
    if (!table) return;
    FaultSettings fault;
    const bool percent = table->number("percent", fault.percent, {0, 100}) || !table->has("percent");
    const bool delay = table->duration("delay", fault.delay, {0s, kDelayMax}) || !table->has("delay");
    const bool abort = table->integer("abort", fault.abort, {400, 599}) || !table->has("abort");
    table->finish();
    if (!percent || !delay || !abort) return;
    if (fault.delay == 0s && fault.abort == 0) {
        table->error_here("does nothing; give delay = \"200ms\", abort = 503 or both");
    } else if (fault.percent > 0) {
        // On purpose or left in after a test: who deploys this should know.
        route.warning("fault", "injects faults into " + number_text(fault.percent) + "% of the requests");
    }
    out = fault;
}

}  // namespace

void require_cluster(TableReader& route, TableReader& table, std::string_view does) {
    if (route.has("cluster") || route.has("clusters")) return;
    table.error_here(std::string(does) + "; this route has no cluster");
}

void read_route_policies(TableReader& route, Duration timeout, RouteSettings& out) {
    read_retry(route, timeout, out.retry);
    read_hedge(route, timeout, out.retry, out.hedge);
    read_rate_limit(route, out.rate_limit);
    read_concurrency(route, out.concurrency);
    read_fault(route, out.fault);
    read_idempotency(route, out.idempotency);
    read_sharing(route, out);
}

}  // namespace outrider::config
