#include "filters/policy/outlier.h"

#include <algorithm>

#include "base/check.h"

namespace outrider::policy {
namespace {

constexpr std::uint32_t kLevelMax = 4;  // 2^4 is beyond kOutlierEjectionsMax: more steps would change nothing
static_assert((1U << kLevelMax) >= kOutlierEjectionsMax);

}  // namespace

OutlierPolicy::OutlierPolicy(OutlierLimits limits) {
    take_limits(limits);
}

OutlierHandle OutlierPolicy::add() {
    auto slot = static_cast<std::uint32_t>(endpoints_.size());
    if (free_.empty()) {
        endpoints_.emplace_back();
    } else {
        slot = free_.back();
        free_.pop_back();
    }
    endpoints_[slot] = Endpoint{.used = true};
    ++size_;
    return OutlierHandle{slot};
}

void OutlierPolicy::remove(OutlierHandle handle) {
    Endpoint& endpoint = at(handle);
    if (endpoint.ejected) --ejected_;
    endpoint = Endpoint{};
    free_.push_back(static_cast<std::uint32_t>(handle));
    --size_;
    release_excess();
}

std::uint32_t OutlierPolicy::threshold(OutlierHandle handle) const {
    return at(handle).probation ? 1 : limits_.consecutive_failures;
}

bool OutlierPolicy::on_failure_streak(OutlierHandle handle, Instant now) {
    Endpoint& endpoint = at(handle);
    if (endpoint.ejected) return false;
    forgive(endpoint, now);
    if (ejected_ >= max_out()) {
        ++refused_;
        return false;
    }
    const std::uint32_t times = std::min(1U << endpoint.level, kOutlierEjectionsMax);
    endpoint.until = now + limits_.ejection * times;
    endpoint.level = std::min(endpoint.level + 1, kLevelMax);
    endpoint.ejected = true;
    endpoint.probation = false;
    ++endpoint.times;
    ++ejected_;
    ++ejections_;
    return true;
}

void OutlierPolicy::on_success(OutlierHandle handle) {
    at(handle).probation = false;  // never set while it is out
}

std::optional<Instant> OutlierPolicy::next_return() const {
    std::optional<Instant> next;
    if (ejected_ == 0) return next;
    for (const Endpoint& endpoint : endpoints_) {
        if (endpoint.ejected && (!next || endpoint.until < *next)) next = endpoint.until;
    }
    return next;
}

std::vector<OutlierHandle> OutlierPolicy::return_due(Instant now) {
    std::vector<OutlierHandle> due;
    if (ejected_ == 0) return due;
    for (std::size_t i = 0; i < endpoints_.size(); ++i) {
        Endpoint& endpoint = endpoints_[i];
        if (!endpoint.ejected || endpoint.until > now) continue;
        endpoint.ejected = false;
        endpoint.probation = true;
        endpoint.well_since = now;
        --ejected_;
        due.push_back(OutlierHandle{static_cast<std::uint32_t>(i)});
    }
    return due;
}

bool OutlierPolicy::ejected(OutlierHandle handle) const {
    return at(handle).ejected;
}

std::optional<Instant> OutlierPolicy::ejected_until(OutlierHandle handle) const {
    const Endpoint& endpoint = at(handle);
    if (!endpoint.ejected) return std::nullopt;
    return endpoint.until;
}

std::uint64_t OutlierPolicy::times_ejected(OutlierHandle handle) const {
    return at(handle).times;
}

std::size_t OutlierPolicy::max_out() const {
    if (size_ < 2 || limits_.max_ejected_percent == 0) return 0;
    return std::max<std::size_t>(1, size_ * limits_.max_ejected_percent / 100);
}

void OutlierPolicy::configure(OutlierLimits limits) {
    take_limits(limits);
    release_excess();
}

void OutlierPolicy::take_limits(OutlierLimits limits) {
    require(limits.consecutive_failures > 0, "consecutive_failures is at least 1");
    require(limits.ejection > Duration(0), "an ejection is longer than 0");
    require(limits.max_ejected_percent <= 100, "max_ejected_percent is at most 100");
    limits_ = limits;
}

OutlierPolicy::Endpoint& OutlierPolicy::at(OutlierHandle handle) {
    const auto slot = static_cast<std::size_t>(handle);
    require(slot < endpoints_.size() && endpoints_[slot].used, "an outlier handle is one that add() gave");
    return endpoints_[slot];
}

const OutlierPolicy::Endpoint& OutlierPolicy::at(OutlierHandle handle) const {
    const auto slot = static_cast<std::size_t>(handle);
    require(slot < endpoints_.size() && endpoints_[slot].used, "an outlier handle is one that add() gave");
    return endpoints_[slot];
}

void OutlierPolicy::forgive(Endpoint& endpoint, Instant now) const {
    const auto periods = std::max<Duration::rep>(0, (now - endpoint.well_since) / limits_.ejection);
    endpoint.level -= static_cast<std::uint32_t>(std::min<Duration::rep>(periods, endpoint.level));
    endpoint.well_since = now;
}

void OutlierPolicy::release_excess() {
    std::size_t early = 0;  // due already
    for (const Endpoint& endpoint : endpoints_) {
        if (endpoint.ejected && endpoint.until == Instant::min()) ++early;
    }
    for (; ejected_ - early > max_out(); ++early) {
        Endpoint* first = nullptr;
        for (Endpoint& endpoint : endpoints_) {
            if (!endpoint.ejected || endpoint.until == Instant::min()) continue;
            if (first == nullptr || endpoint.until < first->until) first = &endpoint;
        }
        first->until = Instant::min();
    }
}

bool panic(std::size_t usable, std::size_t total, std::uint32_t panic_percent) {
    return panic_percent > 0 && usable * 100 < total * panic_percent;
}

}  // namespace outrider::policy
