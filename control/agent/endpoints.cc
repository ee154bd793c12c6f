#include "control/agent/endpoints.h"

#include <optional>

#include "base/check.h"

namespace outrider::agent {

EndpointChoice::EndpointChoice(std::size_t count, const BackoffOptions& backoff, std::uint64_t seed)
    : random_(seed), endpoints_(count, Endpoint{Backoff(backoff), {}}) {
    require(count >= 1 && count <= kEndpointsMax,
            "there is an endpoint, and there are at most kEndpointsMax");
    current_ = random_.below(count);
}

EndpointChoice::Pick EndpointChoice::pick(Instant now, const EndpointSet& tried) {
    std::optional<std::size_t> soonest;
    const auto consider = [&](bool all) {
        for (std::size_t step = 0; step < endpoints_.size(); ++step) {
            const std::size_t i = (current_ + step) % endpoints_.size();
            if (!all && tried[i]) continue;
            if (!soonest || endpoints_[i].not_before < endpoints_[*soonest].not_before) soonest = i;
            if (!rests(i, now)) return std::optional(i);
        }
        return std::optional<std::size_t>();
    };
    std::optional<std::size_t> ready = consider(false);
    if (!ready && !soonest) ready = consider(true);  // all were tried: once more from the beginning
    const std::size_t chosen = ready ? *ready : *soonest;
    // Others follow when the one that was current rests, not when one request looks elsewhere.
    if (ready && rests(current_, now)) current_ = chosen;
    return {chosen, endpoints_[chosen].not_before};
}

void EndpointChoice::succeeded(std::size_t index) {
    endpoints_[index].backoff.reset();
    endpoints_[index].not_before = {};
}

void EndpointChoice::failed(std::size_t index, Instant now) {
    Endpoint& endpoint = endpoints_[index];
    if (endpoint.not_before > now) return;
    endpoint.not_before = now + endpoint.backoff.next(random_);
}

}  // namespace outrider::agent
