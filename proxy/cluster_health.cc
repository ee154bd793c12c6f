#include "proxy/cluster_health.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "base/log.h"

namespace outrider::proxy {

ClusterHealth::ClusterHealth(std::string name, std::function<void(const std::string&)> on_changed)
    : name_(std::move(name)), on_changed_(std::move(on_changed)), outlier_(policy::OutlierLimits{}) {}

void ClusterHealth::configure(const config::ClusterSettings& settings) {
    const std::lock_guard lock(mutex_);
    threshold_.store(settings.outlier ? settings.outlier->consecutive_failures : 0,
                     std::memory_order_relaxed);
    policy::OutlierLimits limits;
    limits.max_ejected_percent = 0;  // without [cluster.outlier] whatever is out comes back
    if (settings.outlier) {
        limits = {settings.outlier->consecutive_failures, settings.outlier->ejection,
                  settings.outlier->max_ejected_percent};
    }
    outlier_.configure(limits);
    checked_ = settings.health.has_value();
    if (!checked_) {
        for (const auto& member : members_) {
            member->bits_.fetch_and(static_cast<std::uint8_t>(~EndpointHealth::kUnhealthy),
                                    std::memory_order_relaxed);
        }
    }
    version_.fetch_add(1, std::memory_order_release);
}

std::vector<std::shared_ptr<EndpointHealth>> ClusterHealth::set_members(const std::vector<std::string>& ids) {
    const std::lock_guard lock(mutex_);
    std::unordered_map<std::string_view, std::shared_ptr<EndpointHealth>> known(members_.size());
    for (const auto& member : members_)
        known.emplace(member->id_, member);
    std::vector<std::shared_ptr<EndpointHealth>> next;
    next.reserve(ids.size());
    std::unordered_set<std::string_view> kept(ids.size());
    for (const std::string& id : ids) {
        kept.insert(id);
        // The same address twice is one endpoint to its health.
        if (const auto it = known.find(id); it != known.end()) {
            next.push_back(it->second);
            continue;
        }
        auto member = std::make_shared<EndpointHealth>();
        member->id_ = id;
        member->outlier_ = outlier_.add();
        known.emplace(member->id_, member);
        next.push_back(std::move(member));
    }
    for (const auto& gone : members_) {
        // An address that was listed twice has one health, twice here.
        if (gone->removed_ || kept.count(gone->id_) > 0) continue;
        outlier_.remove(gone->outlier_);
        gone->removed_ = true;
    }
    members_ = next;
    version_.fetch_add(1, std::memory_order_release);
    return next;
}

void ClusterHealth::set_checked(EndpointHealth& endpoint, bool healthy, std::string reason, WallTime wall) {
    {
        const std::lock_guard lock(mutex_);
        if (!checked_ || endpoint.removed_) return;
        if (!healthy) endpoint.unhealthy_reason_ = std::move(reason);
        if (endpoint.unhealthy() == !healthy) return;
        if (healthy) {
            log_info("cluster {}: {} is healthy", name_, endpoint.id_);
            endpoint.bits_.fetch_and(static_cast<std::uint8_t>(~EndpointHealth::kUnhealthy),
                                     std::memory_order_relaxed);
        } else {
            log_warning("cluster {}: {} is unhealthy: {}", name_, endpoint.id_, endpoint.unhealthy_reason_);
            endpoint.bits_.fetch_or(EndpointHealth::kUnhealthy, std::memory_order_relaxed);
        }
        endpoint.checked_since_ = wall;
        version_.fetch_add(1, std::memory_order_release);
    }
    on_changed_(name_);
}

std::optional<Instant> ClusterHealth::end_ejections(Instant now) {
    bool any = false;
    std::optional<Instant> next;
    {
        const std::lock_guard lock(mutex_);
        for (const policy::OutlierHandle handle : outlier_.return_due(now)) {
            const auto member = std::find_if(members_.begin(), members_.end(),
                                             [&](const auto& m) { return m->outlier_ == handle; });
            if (member == members_.end()) continue;
            EndpointHealth& endpoint = **member;
            log_info("cluster {}: {} is no longer ejected", name_, endpoint.id_);
            endpoint.streak_.store(0, std::memory_order_relaxed);
            endpoint.probation_.store(outlier_.threshold(handle) == 1, std::memory_order_relaxed);
            endpoint.bits_.fetch_and(static_cast<std::uint8_t>(~EndpointHealth::kEjected),
                                     std::memory_order_relaxed);
            any = true;
        }
        if (any) version_.fetch_add(1, std::memory_order_release);
        next = outlier_.next_return();
    }
    if (any) on_changed_(name_);
    return next;
}

void ClusterHealth::eject(EndpointHealth& endpoint, std::uint32_t streak, std::string_view reason,
                          Instant now, WallTime wall) {
    {
        const std::lock_guard lock(mutex_);
        if (endpoint.removed_ || endpoint.ejected()) return;
        endpoint.streak_.store(0,
                               std::memory_order_relaxed);  // a refused ejection is asked for again as late
        if (!outlier_.on_failure_streak(endpoint.outlier_, now)) {
            refused_.fetch_add(1, std::memory_order_relaxed);
            return;
        }
        endpoint.bits_.fetch_or(EndpointHealth::kEjected, std::memory_order_relaxed);
        endpoint.probation_.store(false, std::memory_order_relaxed);
        // A single one is enough right after a return, and with consecutive_failures = 1.
        endpoint.ejected_reason_ =
            streak == 1 ? "a failure: " : std::to_string(streak) + " failures in a row, the last: ";
        endpoint.ejected_reason_ += reason;
        endpoint.ejected_since_ = wall;
        ejections_.fetch_add(1, std::memory_order_relaxed);
        log_warning("cluster {}: {} is ejected: {}", name_, endpoint.id_, endpoint.ejected_reason_);
        version_.fetch_add(1, std::memory_order_release);
    }
    on_changed_(name_);
}

void ClusterHealth::end_probation(EndpointHealth& endpoint) {
    const std::lock_guard lock(mutex_);
    if (endpoint.removed_) return;
    outlier_.on_success(endpoint.outlier_);
    endpoint.probation_.store(false, std::memory_order_relaxed);
}

std::vector<EndpointVerdict> ClusterHealth::verdicts() const {
    const std::lock_guard lock(mutex_);
    std::vector<EndpointVerdict> out;
    std::unordered_set<const EndpointHealth*> seen(members_.size());
    for (const auto& member : members_) {
        if (!seen.insert(member.get()).second) continue;  // listed twice
        EndpointVerdict verdict;
        verdict.id = member->id_;
        verdict.ejections = outlier_.times_ejected(member->outlier_);
        verdict.usable = member->usable();
        verdict.since = member->checked_since_;
        if (member->unhealthy()) {
            verdict.state = "unhealthy";
            verdict.reason = member->unhealthy_reason_;
        } else if (member->ejected()) {
            verdict.state = "ejected";
            verdict.reason = member->ejected_reason_;
            verdict.since = member->ejected_since_;
        }
        out.push_back(std::move(verdict));
    }
    return out;
}

}  // namespace outrider::proxy
