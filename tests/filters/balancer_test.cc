#include "filters/policy/balancer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <set>

#include <gtest/gtest.h>

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;

constexpr BalancerKind kAllKinds[] = {BalancerKind::kRoundRobin, BalancerKind::kLeastRequest,
                                      BalancerKind::kRingHash, BalancerKind::kMaglev};
constexpr BalancerKind kHashingKinds[] = {BalancerKind::kRingHash, BalancerKind::kMaglev};

std::vector<BalancerEndpoint> make_endpoints(const std::vector<std::uint32_t>& weights) {
    std::vector<BalancerEndpoint> endpoints;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        endpoints.push_back(
            {"10.0." + std::to_string(i / 250) + "." + std::to_string(i % 250) + ":8080", weights[i]});
    }
    return endpoints;
}
std::vector<BalancerEndpoint> make_endpoints(std::size_t count) {
    return make_endpoints(std::vector<std::uint32_t>(count, 1));
}

std::uint64_t hash_of_key(int key) {
    return key_hash("key-" + std::to_string(key));
}

// How often each endpoint is picked in `picks` requests, each with a key of its own.
std::vector<int> count_picks(Balancer& balancer, std::size_t endpoints, int picks,
                             Usable usable = Usable::all(), std::uint64_t seed = 7) {
    Random random(seed);
    const std::vector<EndpointLoad> load(endpoints);
    std::vector<int> counts(endpoints);
    for (int i = 0; i < picks; ++i) {
        const auto chosen = balancer.pick(hash_of_key(i), load, usable, random);
        if (chosen) ++counts.at(*chosen);
    }
    return counts;
}

// Which endpoint id each of `keys` keys maps to.
std::vector<std::string> map_keys(BalancerKind kind, const std::vector<BalancerEndpoint>& endpoints, int keys,
                                  Usable usable = Usable::all()) {
    const auto balancer = make_balancer(kind, endpoints);
    Random random(1);
    std::vector<std::string> owners;
    for (int key = 0; key < keys; ++key) {
        const auto chosen = balancer->pick(hash_of_key(key), {}, usable, random);
        owners.push_back(chosen ? endpoints.at(*chosen).id : "none");
    }
    return owners;
}

TEST(Balancer, PicksNothingWhenThereIsNoneOrNoneUsable) {
    Random random(1);
    for (const BalancerKind kind : kAllKinds) {
        EXPECT_EQ(make_balancer(kind, {})->pick(1, {}, Usable::all(), random), std::nullopt);
        for (const std::size_t count : {1u, 2u, 3u, 100u}) {
            const std::vector<EndpointLoad> load(count);
            const auto balancer = make_balancer(kind, make_endpoints(count));
            const auto none = [](std::size_t) { return false; };
            EXPECT_EQ(balancer->pick(1, load, none, random), std::nullopt);
        }
    }
}

TEST(Balancer, PicksTheOnlyEndpointAlways) {
    Random random(1);
    const std::vector<EndpointLoad> load(1);
    for (const BalancerKind kind : kAllKinds) {
        const auto balancer = make_balancer(kind, make_endpoints(1));
        for (std::uint64_t hash = 0; hash < 100; ++hash) {
            EXPECT_EQ(balancer->pick(mix64(hash), load, Usable::all(), random), 0u);
        }
    }
}

TEST(Balancer, SpreadsEqualWeightsEvenly) {
    // Largest deviation from the mean that each algorithm is allowed, in per cent. A ring of 160
    // points an endpoint has a standard deviation of about 8.
    const std::map<BalancerKind, double> bound = {{BalancerKind::kRoundRobin, 0.1},
                                                  {BalancerKind::kLeastRequest, 6},
                                                  {BalancerKind::kRingHash, 30},
                                                  {BalancerKind::kMaglev, 6}};
    for (const BalancerKind kind : kAllKinds) {
        const auto balancer = make_balancer(kind, make_endpoints(10));
        for (const int count : count_picks(*balancer, 10, 100000)) {
            EXPECT_NEAR(count, 10000, 100 * bound.at(kind)) << static_cast<int>(kind);
        }
    }
}

TEST(Balancer, FollowsWeights) {
    const std::map<BalancerKind, double> bound = {{BalancerKind::kRoundRobin, 0.001},
                                                  {BalancerKind::kLeastRequest, 0.01},
                                                  {BalancerKind::kRingHash, 0.05},
                                                  {BalancerKind::kMaglev, 0.01}};
    const std::vector<std::uint32_t> weights = {1, 2, 0, 7};
    for (const BalancerKind kind : kAllKinds) {
        const auto balancer = make_balancer(kind, make_endpoints(weights));
        const std::vector<int> counts = count_picks(*balancer, 4, 100000);
        for (std::size_t i = 0; i < 4; ++i) {
            EXPECT_NEAR(counts[i] / 1e5, weights[i] / 10.0, bound.at(kind)) << static_cast<int>(kind);
        }
        EXPECT_EQ(counts[2], 0) << "weight 0 is never picked";
    }
}

TEST(Balancer, NeverPicksAnUnusableEndpointAndAlwaysFindsTheUsableOne) {
    for (const BalancerKind kind : kAllKinds) {
        for (const std::size_t count : {2u, 3u, 10u, 500u}) {
            const auto balancer = make_balancer(kind, make_endpoints(count));
            const std::size_t last = count - 1;
            const auto only_last = [last](std::size_t i) { return i == last; };
            EXPECT_EQ(count_picks(*balancer, count, 200, only_last)[last], 200);
        }
    }
}

TEST(Balancer, ReadsABitmap) {
    std::vector<std::uint64_t> words(2);
    words[1] = 1U << 6;  // endpoint 70
    for (const BalancerKind kind : kAllKinds) {
        const auto balancer = make_balancer(kind, make_endpoints(100));
        EXPECT_EQ(count_picks(*balancer, 100, 50, Usable::bitmap(words.data()))[70], 50);
    }
}

TEST(Balancer, SpreadsTheShareOfAnUnusableEndpoint) {
    for (const BalancerKind kind : kAllKinds) {
        const auto balancer = make_balancer(kind, make_endpoints(5));
        const auto not_two = [](std::size_t i) { return i != 2; };
        const std::vector<int> counts = count_picks(*balancer, 5, 100000, not_two);
        const double bound = kind == BalancerKind::kRingHash ? 8000 : 1500;
        EXPECT_EQ(counts[2], 0);
        for (const std::size_t i : {0u, 1u, 3u, 4u}) {
            EXPECT_NEAR(counts[i], 25000, bound) << static_cast<int>(kind);
        }
    }
}

TEST(Balancer, SpreadsByWeightWhenMostAreUnusable) {
    std::vector<std::uint32_t> weights(200, 1);
    weights[10] = 3;
    const auto balancer = make_balancer(BalancerKind::kRoundRobin, make_endpoints(weights));
    const auto two = [](std::size_t i) { return i == 10 || i == 20; };
    const std::vector<int> counts = count_picks(*balancer, 200, 40000, two);
    EXPECT_NEAR(counts[10], 30000, 800);
    EXPECT_NEAR(counts[20], 10000, 800);
}

TEST(Balancer, RequestsWithoutAKeyAreSpread) {
    for (const BalancerKind kind : kHashingKinds) {
        const auto balancer = make_balancer(kind, make_endpoints(4));
        Random random(5);
        std::set<std::size_t> seen;
        for (int i = 0; i < 200; ++i) {
            seen.insert(balancer->pick(0, {}, Usable::all(), random).value());
        }
        EXPECT_EQ(seen.size(), 4u);
    }
}

TEST(Balancer, SameSeedSameChoices) {
    for (const BalancerKind kind : kAllKinds) {
        const auto a = make_balancer(kind, make_endpoints({1, 5, 3}));
        const auto b = make_balancer(kind, make_endpoints({1, 5, 3}));
        EXPECT_EQ(count_picks(*a, 3, 1000), count_picks(*b, 3, 1000));
    }
}

TEST(Balancer, BuildsAThousandEndpointsQuickly) {
    for (const BalancerKind kind : kAllKinds) {
        const auto before = std::chrono::steady_clock::now();
        const auto balancer = make_balancer(kind, make_endpoints(std::vector<std::uint32_t>(1000, 100)));
        const auto took = std::chrono::steady_clock::now() - before;
        // Some tens of ms for the ring; the bound only catches what grows faster than n log n.
        EXPECT_LT(took, 3s) << static_cast<int>(kind);
        const std::vector<int> counts = count_picks(*balancer, 1000, 100000);
        EXPECT_GT(*std::min_element(counts.begin(), counts.end()), 20);
        EXPECT_LT(*std::max_element(counts.begin(), counts.end()), 250);
    }
}

TEST(RoundRobin, TurnsOfOneEndpointAreSpread) {
    const auto balancer = make_balancer(BalancerKind::kRoundRobin, make_endpoints({5, 1, 1}));
    Random random(1);
    std::vector<std::size_t> turns;
    for (int i = 0; i < 70; ++i) {
        turns.push_back(balancer->pick(0, {}, Usable::all(), random).value());
    }
    EXPECT_EQ(std::count(turns.begin(), turns.end(), 0u), 50);
    for (std::size_t i = 0; i + 5 <= turns.size(); ++i) {
        EXPECT_LT(
            std::count(turns.begin() + static_cast<long>(i), turns.begin() + static_cast<long>(i) + 5, 0u),
            5);
    }
}

TEST(RoundRobin, EqualWeightsTakeStrictTurns) {
    const auto balancer = make_balancer(BalancerKind::kRoundRobin, make_endpoints({100, 100, 100}));
    Random random(1);
    std::vector<std::size_t> turns;
    for (int i = 0; i < 9; ++i) {
        turns.push_back(balancer->pick(0, {}, Usable::all(), random).value());
    }
    for (std::size_t i = 3; i < 9; ++i) {
        EXPECT_EQ(turns[i], turns[i - 3]);
    }
    EXPECT_EQ(std::set<std::size_t>(turns.begin(), turns.end()).size(), 3u);
}

TEST(RoundRobin, WorkersStartAtDifferentTurns) {
    std::set<std::size_t> first;
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        Random random(seed);
        const auto balancer = make_balancer(BalancerKind::kRoundRobin, make_endpoints(4));
        first.insert(balancer->pick(0, {}, Usable::all(), random).value());
    }
    EXPECT_EQ(first.size(), 4u);
}

TEST(RoundRobin, HugeWeightsKeepTheirRatio) {
    const auto balancer =
        make_balancer(BalancerKind::kRoundRobin, make_endpoints({3'000'000'001, 1'000'000'000}));
    const std::vector<int> counts = count_picks(*balancer, 2, 65536);
    EXPECT_NEAR(counts[0], 49152, 2);
}

TEST(LeastRequest, PrefersTheLessLoadedOfTwo) {
    const auto balancer = make_balancer(BalancerKind::kLeastRequest, make_endpoints(2));
    Random random(1);
    const std::vector<EndpointLoad> load = {{.in_flight = 5, .latency_ewma_us = 2000},
                                            {.in_flight = 1, .latency_ewma_us = 2000}};
    int busy = 0;
    for (int i = 0; i < 64000; ++i) {
        busy += balancer->pick(0, load, Usable::all(), random) == 0u ? 1 : 0;
    }
    // Only exploration: one in kExploreOneIn skips the comparison, half of those draw the busy one.
    EXPECT_NEAR(busy, 500, 120);
}

TEST(LeastRequest, AnUnsampledEndpointIsJudgedOnItsRequestsAlone) {
    const EndpointLoad fresh = {.in_flight = 2, .latency_ewma_us = 0};
    const EndpointLoad slow = {.in_flight = 1, .latency_ewma_us = 90000};
    EXPECT_GT(least_request_cost(fresh, slow, 1), least_request_cost(slow, fresh, 1));
    const EndpointLoad idle = {.in_flight = 0, .latency_ewma_us = 0};
    EXPECT_LT(least_request_cost(idle, slow, 1), least_request_cost(slow, idle, 1));
}

TEST(LeastRequest, CostIsTheDocumentedFormula) {
    const EndpointLoad other;
    EXPECT_DOUBLE_EQ(least_request_cost({3, 2000}, other, 1), 8000);
    EXPECT_DOUBLE_EQ(least_request_cost({3, 10}, other, 1), 4 * kLatencyFloorUs);
    EXPECT_DOUBLE_EQ(least_request_cost({3, 2000}, other, 3), 4000);
}

// A closed loop of 64 requests against servers of which one is four times as slow.
TEST(LeastRequest, GivesASlowEndpointFewerRequests) {
    const auto balancer = make_balancer(BalancerKind::kLeastRequest, make_endpoints(4));
    Random random(9);
    std::vector<EndpointLoad> load(4);
    std::multimap<double, std::size_t> finish;  // virtual time in us
    std::vector<int> counts(4);
    double now = 0;
    for (int i = 0; i < 20000; ++i) {
        if (finish.size() == 64) {
            const auto done = finish.begin();
            now = done->first;
            --load[done->second].in_flight;
            const double took = done->second == 0 ? 8000 : 2000;
            load[done->second].latency_ewma_us = ewma_update(load[done->second].latency_ewma_us, took, 1ms);
            finish.erase(done);
        }
        const std::size_t chosen = balancer->pick(0, load, Usable::all(), random).value();
        ++counts[chosen];
        ++load[chosen].in_flight;
        finish.emplace(now + (chosen == 0 ? 8000 : 2000), chosen);
    }
    EXPECT_LT(counts[0] * 3, counts[1]);
    EXPECT_GT(counts[0], 0);
}

TEST(Ewma, OfWhoIsOvertakenGrowsToAManifoldOfWhatElapsed) {
    double average = 0;
    for (const double expected : {2000.0, 4000.0, 8000.0, 16000.0, 16000.0}) {
        average = ewma_overtaken(average, 1000);
        EXPECT_DOUBLE_EQ(average, expected);
    }
    EXPECT_DOUBLE_EQ(ewma_overtaken(50'000, 1000), 50'000) << "what is known to be slower stays";
    EXPECT_DOUBLE_EQ(ewma_overtaken(500, 4000), 8000);
}

TEST(Ewma, JumpsToAPeakAndDecaysFromIt) {
    EXPECT_DOUBLE_EQ(ewma_update(0, 500, 0s), 500) << "first sample";
    EXPECT_DOUBLE_EQ(ewma_update(500, 9000, 1ms), 9000) << "peak";
    EXPECT_NEAR(ewma_update(9000, 500, kEwmaDecay), 500 + 8500 * std::exp(-1), 1e-6);
    EXPECT_DOUBLE_EQ(ewma_update(9000, 500, 0s), 9000) << "no time passed";
    EXPECT_NEAR(ewma_update(9000, 500, 1h), 500, 1e-6);
    EXPECT_GT(ewma_update(0, 0, 1s), 0) << "0 means no sample, so a sample is never 0";
}

TEST(HashBalancers, OrderOfEndpointsDoesNotMatter) {
    for (const BalancerKind kind : kHashingKinds) {
        std::vector<BalancerEndpoint> endpoints = make_endpoints({3, 1, 4, 1, 5, 9, 2, 6});
        const std::vector<std::string> before = map_keys(kind, endpoints, 5000);
        std::reverse(endpoints.begin(), endpoints.end());
        std::swap(endpoints[1], endpoints[4]);
        EXPECT_EQ(map_keys(kind, endpoints, 5000), before);
    }
}

TEST(RingHash, ALeavingEndpointMovesOnlyItsOwnKeys) {
    std::vector<BalancerEndpoint> endpoints = make_endpoints(10);
    const std::string gone = endpoints[3].id;
    const std::vector<std::string> before = map_keys(BalancerKind::kRingHash, endpoints, 20000);
    endpoints.erase(endpoints.begin() + 3);
    const std::vector<std::string> after = map_keys(BalancerKind::kRingHash, endpoints, 20000);
    int moved = 0;
    for (std::size_t key = 0; key < before.size(); ++key) {
        if (before[key] != gone) {
            EXPECT_EQ(after[key], before[key]);
        }
        moved += before[key] != after[key] ? 1 : 0;
    }
    EXPECT_NEAR(moved, 2000, 700);
}

TEST(Maglev, ALeavingEndpointMovesFewKeysOfOthers) {
    for (const std::size_t count : {10u, 100u}) {
        std::vector<BalancerEndpoint> endpoints = make_endpoints(count);
        const std::string gone = endpoints[3].id;
        const std::vector<std::string> before = map_keys(BalancerKind::kMaglev, endpoints, 20000);
        endpoints.erase(endpoints.begin() + 3);
        const std::vector<std::string> after = map_keys(BalancerKind::kMaglev, endpoints, 20000);
        int needless = 0;
        for (std::size_t key = 0; key < before.size(); ++key) {
            needless += before[key] != gone && before[key] != after[key] ? 1 : 0;
        }
        EXPECT_LT(needless, 20000 * 0.06) << count;
    }
}

TEST(HashBalancers, AnUnusableEndpointMovesOnlyItsOwnKeysAndEqualKeysStayTogether) {
    const std::vector<BalancerEndpoint> endpoints = make_endpoints(10);
    const auto not_three = [](std::size_t i) { return i != 3; };
    for (const BalancerKind kind : kHashingKinds) {
        const std::vector<std::string> before = map_keys(kind, endpoints, 5000);
        const std::vector<std::string> during = map_keys(kind, endpoints, 5000, not_three);
        for (std::size_t key = 0; key < before.size(); ++key) {
            if (before[key] != endpoints[3].id) {
                EXPECT_EQ(during[key], before[key]);
            }
        }
        EXPECT_EQ(map_keys(kind, endpoints, 5000, not_three), during);
    }
}

TEST(Maglev, ALightEndpointStillHasASlot) {
    const auto balancer = make_balancer(BalancerKind::kMaglev, make_endpoints({1, 1'000'000}));
    EXPECT_GT(count_picks(*balancer, 2, 100000)[0], 0);
}

TEST(RingHash, TheTableIsBounded) {
    // 2000 endpoints of weight 1000 would be 320 million points.
    const auto balancer =
        make_balancer(BalancerKind::kRingHash, make_endpoints(std::vector<std::uint32_t>(2000, 1000)));
    const std::vector<int> counts = count_picks(*balancer, 2000, 100000);
    EXPECT_GT(*std::min_element(counts.begin(), counts.end()), 0);
}

TEST(KeyHash, IsStableAndNeverZero) {
    EXPECT_EQ(key_hash(""), 0x2d06800538d394c2ULL) << "XXH3's published value for no bytes";
    EXPECT_EQ(key_hash("user-1"), key_hash("user-1"));
    EXPECT_NE(key_hash("user-1"), key_hash("user-2"));
}

}  // namespace
}  // namespace outrider::policy
