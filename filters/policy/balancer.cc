#include "filters/policy/balancer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <xxhash.h>

#include "base/check.h"
#include "filters/policy/hash_balancers.h"
#include "filters/policy/weighted_pick.h"

namespace outrider::policy {
namespace {

std::vector<std::uint32_t> weights_of(const std::vector<BalancerEndpoint>& endpoints) {
    std::vector<std::uint32_t> weights;
    weights.reserve(endpoints.size());
    for (const BalancerEndpoint& endpoint : endpoints) {
        weights.push_back(endpoint.weight);
    }
    return weights;
}

// The order of one full round: each candidate as often as its weight says, evenly spaced.
std::vector<std::uint32_t> make_schedule(const std::vector<std::uint32_t>& weights,
                                         const std::vector<std::uint32_t>& candidates) {
    std::uint64_t divisor = 0;
    for (const std::uint32_t i : candidates) {
        divisor = std::gcd(divisor, std::uint64_t{weights[i]});
    }
    std::uint64_t total = 0;
    for (const std::uint32_t i : candidates) {
        total += weights[i] / divisor;
    }
    // At least one turn each, so the bound gives way when there are more endpoints than turns.
    const double scale = std::min(
        1.0, static_cast<double>(kScheduleTurnsMax) / static_cast<double>(std::max<std::uint64_t>(total, 1)));
    struct Turn {
        double deadline;
        std::uint32_t endpoint;
    };
    std::vector<Turn> turns;
    for (std::size_t n = 0; n < candidates.size(); ++n) {
        const std::uint32_t i = candidates[n];
        const std::uint64_t reduced = weights[i] / divisor;  // without remainder
        const double exact = static_cast<double>(reduced) * scale;
        const auto count = std::max<std::int64_t>(1, std::llround(exact));
        // A golden-ratio phase keeps endpoints of equal weight from bunching at the same deadlines.
        const double phase = std::fmod(static_cast<double>(n + 1) * 0.6180339887498949, 1.0);
        for (std::int64_t k = 0; k < count; ++k) {
            turns.push_back({(static_cast<double>(k) + phase) / static_cast<double>(count), i});
        }
    }
    std::stable_sort(turns.begin(), turns.end(),
                     [](const Turn& a, const Turn& b) { return a.deadline < b.deadline; });
    std::vector<std::uint32_t> schedule;
    schedule.reserve(turns.size());
    for (const Turn& turn : turns) {
        schedule.push_back(turn.endpoint);
    }
    return schedule;
}

class RoundRobin final : public Balancer {
  public:
    explicit RoundRobin(const std::vector<BalancerEndpoint>& endpoints)
        : draws_(weights_of(endpoints)),
          schedule_(make_schedule(weights_of(endpoints), draws_.candidates())) {}

    std::optional<std::size_t> pick(std::uint64_t /*hash*/, const std::vector<EndpointLoad>& /*load*/,
                                    Usable usable, Random& random) override {
        if (schedule_.empty()) return std::nullopt;
        if (!started_) {
            started_ = true;
            next_ = random.below(schedule_.size());
        }
        const std::size_t chosen = schedule_[next_];
        if (++next_ == schedule_.size()) next_ = 0;
        if (usable(chosen)) return chosen;
        // The next turn in line would make one neighbour carry the whole of a dead endpoint's
        // share.
        return draws_.draw_usable(usable, random);
    }

  private:
    WeightedPick draws_;
    std::vector<std::uint32_t> schedule_;
    std::size_t next_ = 0;
    bool started_ = false;
};

class LeastRequest final : public Balancer {
  public:
    explicit LeastRequest(const std::vector<BalancerEndpoint>& endpoints) : draws_(weights_of(endpoints)) {
        double total = 0;
        for (const BalancerEndpoint& endpoint : endpoints) {
            total += endpoint.weight;
        }
        const auto n = static_cast<double>(std::max<std::size_t>(1, draws_.candidates().size()));
        for (const BalancerEndpoint& endpoint : endpoints) {
            relative_weights_.push_back(total > 0 ? endpoint.weight * n / total : 0);
        }
    }

    std::optional<std::size_t> pick(std::uint64_t /*hash*/, const std::vector<EndpointLoad>& load,
                                    Usable usable, Random& random) override {
        if (draws_.empty()) return std::nullopt;
        std::size_t first = draws_.draw(random);
        if (!usable(first)) {
            const std::optional<std::size_t> drawn = draws_.draw_usable(usable, random);
            if (!drawn) return std::nullopt;
            first = *drawn;
        }
        if (draws_.candidates().size() == 1) return first;
        if (random.below(kExploreOneIn) == 0) return first;
        const std::optional<std::size_t> second = other_than(first, usable, random);
        if (!second) return first;
        require(load.size() == relative_weights_.size(), "load has one entry per endpoint");
        const double first_cost = least_request_cost(load[first], load[*second], relative_weights_[first]);
        const double second_cost = least_request_cost(load[*second], load[first], relative_weights_[*second]);
        return second_cost < first_cost ? *second : first;
    }

  private:
    std::optional<std::size_t> other_than(std::size_t first, Usable usable, Random& random) const {
        const std::vector<std::uint32_t>& candidates = draws_.candidates();
        if (candidates.size() == 2) {
            const std::size_t other = candidates[0] == first ? candidates[1] : candidates[0];
            return usable(other) ? std::optional(other) : std::nullopt;
        }
        const std::size_t second = draws_.draw(random);
        if (second != first && usable(second)) return second;
        return draws_.draw_usable(usable, random, first);
    }

    WeightedPick draws_;
    std::vector<double> relative_weights_;  // weight / mean weight of the candidates
};

}  // namespace

std::unique_ptr<Balancer> make_balancer(BalancerKind kind, const std::vector<BalancerEndpoint>& endpoints) {
    switch (kind) {
        case BalancerKind::kRoundRobin:
            return std::make_unique<RoundRobin>(endpoints);
        case BalancerKind::kLeastRequest:
            return std::make_unique<LeastRequest>(endpoints);
        case BalancerKind::kRingHash:
            return make_ring_hash(endpoints);
        case BalancerKind::kMaglev:
            return make_maglev(endpoints);
    }
    require(false, "every BalancerKind has a balancer");
    return nullptr;
}

std::uint64_t key_hash(std::string_view key) {
    const std::uint64_t hash = XXH3_64bits(key.data(), key.size());
    return hash == 0 ? 1 : hash;
}

double least_request_cost(const EndpointLoad& endpoint, const EndpointLoad& other, double relative_weight) {
    const double known = endpoint.latency_ewma_us > 0 ? endpoint.latency_ewma_us : other.latency_ewma_us;
    return (endpoint.in_flight / relative_weight + 1) * std::max(known, kLatencyFloorUs);
}

double ewma_update(double old_us, double sample_us, Duration dt) {
    constexpr double kLeastUs = 1e-3;  // 0 is taken: it means "no sample yet"
    const double sample = std::max(sample_us, kLeastUs);
    if (old_us <= 0 || sample >= old_us) return sample;
    const double kept = std::exp(-std::max(0.0, seconds_of(dt)) / seconds_of(kEwmaDecay));
    return std::max(kLeastUs, old_us * kept + sample * (1 - kept));
}

double ewma_overtaken(double old_us, double elapsed_us) {
    const double known = std::max(old_us, elapsed_us);
    return std::max(known, std::min(2 * known, kOvertakenMax * elapsed_us));
}

}  // namespace outrider::policy
