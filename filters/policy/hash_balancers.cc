#include "filters/policy/hash_balancers.h"

#include <algorithm>
#include <bit>

#include <xxhash.h>

#include "base/check.h"

namespace outrider::policy {
namespace {

// Endpoints with a weight, in the order of their ids: what makes tables independent of the input's
// order.
std::vector<std::uint32_t> candidates_by_id(const std::vector<BalancerEndpoint>& endpoints) {
    std::vector<std::uint32_t> order;
    for (std::size_t i = 0; i < endpoints.size(); ++i) {
        if (endpoints[i].weight > 0) order.push_back(static_cast<std::uint32_t>(i));
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return endpoints[a].id < endpoints[b].id; });
    return order;
}

class RingHash final : public Balancer {
  public:
    explicit RingHash(const std::vector<BalancerEndpoint>& endpoints)
        : candidates_(candidates_by_id(endpoints)) {
        place_points(endpoints);
        index_points();
    }

    std::optional<std::size_t> pick(std::uint64_t hash, const std::vector<EndpointLoad>& /*load*/,
                                    Usable usable, Random& random) override {
        if (points_.empty()) return std::nullopt;
        std::size_t at = first_at_or_after(hash != 0 ? hash : random.next());
        if (usable(points_[at].endpoint)) return points_[at].endpoint;
        // Walking a whole ring of dead endpoints for each request would make an outage expensive.
        constexpr std::size_t kStepsBeforeCheck = 64;
        for (std::size_t step = 1; step < points_.size(); ++step) {
            if (step == kStepsBeforeCheck && !any_usable(usable)) return std::nullopt;
            if (++at == points_.size()) at = 0;
            if (usable(points_[at].endpoint)) return points_[at].endpoint;
        }
        return std::nullopt;
    }

  private:
    struct Point {
        std::uint64_t hash;
        std::uint32_t endpoint;
    };

    void place_points(const std::vector<BalancerEndpoint>& endpoints) {
        std::uint64_t total = 0;
        for (const std::uint32_t i : candidates_) {
            total += std::uint64_t{endpoints[i].weight} * kRingPointsPerWeight;
        }
        // Halving rather than scaling to fit: the counts stay as they are while endpoints come and
        // go, and when they must change, the points that remain are the same ones.
        unsigned halvings = 0;
        while ((total >> halvings) > kRingPointsMax) {
            ++halvings;
        }
        for (const std::uint32_t i : candidates_) {
            const std::uint64_t full = std::uint64_t{endpoints[i].weight} * kRingPointsPerWeight;
            const std::uint64_t count = std::max<std::uint64_t>(1, full >> halvings);
            const std::string& id = endpoints[i].id;
            for (std::uint64_t k = 0; k < count; ++k) {
                points_.push_back({XXH3_64bits_withSeed(id.data(), id.size(), k), i});
            }
        }
        // Stable: equal hashes stay in the order of ids.
        std::stable_sort(points_.begin(), points_.end(),
                         [](const Point& a, const Point& b) { return a.hash < b.hash; });
    }

    // starts_[b] is the first point whose hash has top bits b or more; about one point per bucket,
    // so a look-up is one read here and one or two there instead of a binary search over megabytes.
    void index_points() {
        if (points_.empty()) return;
        const unsigned bits = std::max(1U, static_cast<unsigned>(std::bit_width(points_.size() - 1)));
        shift_ = 64 - bits;
        starts_.resize(std::size_t{1} << bits);
        std::size_t at = 0;
        for (std::size_t bucket = 0; bucket < starts_.size(); ++bucket) {
            while (at < points_.size() && (points_[at].hash >> shift_) < bucket) {
                ++at;
            }
            starts_[bucket] = static_cast<std::uint32_t>(at);
        }
    }

    std::size_t first_at_or_after(std::uint64_t hash) const {
        std::size_t at = starts_[hash >> shift_];
        while (at < points_.size() && points_[at].hash < hash) {
            ++at;
        }
        return at == points_.size() ? 0 : at;
    }

    bool any_usable(Usable usable) const {
        return std::any_of(candidates_.begin(), candidates_.end(), usable);
    }

    std::vector<std::uint32_t> candidates_;
    std::vector<Point> points_;
    std::vector<std::uint32_t> starts_;
    unsigned shift_ = 63;
};

std::size_t maglev_table_size(std::size_t endpoints) {
    if (endpoints <= kMaglevSmallEndpoints) return kMaglevTableSmall;
    return endpoints <= kMaglevLargeEndpoints ? kMaglevTable : kMaglevTableLarge;
}

class Maglev final : public Balancer {
  public:
    explicit Maglev(const std::vector<BalancerEndpoint>& endpoints)
        : candidates_(candidates_by_id(endpoints)) {
        require(candidates_.size() <= kMaglevTableLarge, "every endpoint fits into the maglev table");
        if (!candidates_.empty()) fill(endpoints);
    }

    std::optional<std::size_t> pick(std::uint64_t hash, const std::vector<EndpointLoad>& /*load*/,
                                    Usable usable, Random& random) override {
        if (table_.empty()) return std::nullopt;
        if (hash == 0) hash = random.next();
        const std::size_t chosen = table_[scale64(hash, table_.size())];
        if (usable(chosen)) return chosen;
        return pick_other(hash, usable);
    }

  private:
    static constexpr std::uint32_t kEmpty = 0xffffffff;

    // Where one endpoint's preference list stands: entry j is (offset + j * skip) mod M.
    struct Preference {
        std::uint32_t endpoint;
        std::uint64_t slot;
        std::uint64_t skip;
        std::uint64_t weight;
        std::uint64_t credit = 0;
    };

    // Section 3.4, figure "Populate": in turns, each endpoint takes the first free slot of its
    // list. An endpoint of weight w gets a turn in w of every max(w) rounds.
    void fill(const std::vector<BalancerEndpoint>& endpoints) {
        const std::uint64_t size = maglev_table_size(candidates_.size());
        constexpr std::uint64_t kSkipSeed = 0x6d61676c6576;
        std::vector<Preference> preferences;
        std::uint64_t weight_max = 0;
        for (const std::uint32_t i : candidates_) {
            const std::string& id = endpoints[i].id;
            preferences.push_back(
                {.endpoint = i,
                 .slot = XXH3_64bits(id.data(), id.size()) % size,
                 .skip = XXH3_64bits_withSeed(id.data(), id.size(), kSkipSeed) % (size - 1) + 1,
                 .weight = endpoints[i].weight});
            weight_max = std::max(weight_max, std::uint64_t{endpoints[i].weight});
        }
        // Each starts with one turn due, so that however light an endpoint is, it is in the table.
        for (Preference& preference : preferences) {
            preference.credit = weight_max - preference.weight;
        }
        table_.assign(size, kEmpty);
        std::uint64_t free = size;
        while (free > 0) {
            for (Preference& preference : preferences) {
                preference.credit += preference.weight;
                if (preference.credit < weight_max) continue;
                preference.credit -= weight_max;
                while (table_[preference.slot] != kEmpty) {
                    preference.slot = (preference.slot + preference.skip) % size;
                }
                table_[preference.slot] = preference.endpoint;
                if (--free == 0) return;
            }
        }
    }

    // Re-hashes the key: its other slots are spread as evenly as the table, and the same key with
    // the same endpoints usable lands on the same one. After that, the usable one with the highest
    // score for this key (rendezvous hashing), which is exact in one pass.
    std::optional<std::size_t> pick_other(std::uint64_t hash, Usable usable) const {
        constexpr int kTries = 16;
        std::uint64_t key = hash;
        for (int i = 0; i < kTries; ++i) {
            key = mix64(key + 0x9e3779b97f4a7c15ULL);
            const std::size_t chosen = table_[scale64(key, table_.size())];
            if (usable(chosen)) return chosen;
        }
        std::optional<std::size_t> best;
        std::uint64_t best_score = 0;
        for (std::size_t rank = 0; rank < candidates_.size(); ++rank) {
            if (!usable(candidates_[rank])) continue;
            const std::uint64_t score = mix64(key ^ mix64(rank + 1));
            if (best && score <= best_score) continue;
            best = candidates_[rank];
            best_score = score;
        }
        return best;
    }

    std::vector<std::uint32_t> candidates_;  // by id
    std::vector<std::uint32_t> table_;
};

}  // namespace

std::unique_ptr<Balancer> make_ring_hash(const std::vector<BalancerEndpoint>& endpoints) {
    return std::make_unique<RingHash>(endpoints);
}

std::unique_ptr<Balancer> make_maglev(const std::vector<BalancerEndpoint>& endpoints) {
    return std::make_unique<Maglev>(endpoints);
}

}  // namespace outrider::policy
