// Which filters a route's exchanges pass.
#include <bit>
#include <functional>

#include <gtest/gtest.h>

#include "filters/filter.h"

namespace outrider::filters::test {
namespace {

using config::RouteSettings;

TEST(Chain, APlainRouteConcernsTheFiltersThatEveryExchangeNeeds) {
    const Chain chain;
    EXPECT_EQ(std::popcount(chain.concerned({})), 3) << "id, forwarding, deadline";
    EXPECT_EQ(chain.concerned({}) & 1, 1u) << "the id is the outermost";
}

TEST(Chain, EachFeatureConcernsOneFilterMore) {
    const std::vector<std::function<void(RouteSettings&)>> features = {
        [](RouteSettings& r) { r.rate_limit.emplace(); },
        [](RouteSettings& r) { r.fault.emplace(); },
        [](RouteSettings& r) { r.idempotency.emplace(); },
        [](RouteSettings& r) { r.collapse.emplace(); },
        [](RouteSettings& r) { r.batch.emplace(); },
        [](RouteSettings& r) { r.concurrency.emplace(); },
        [](RouteSettings& r) { r.respond.emplace(); },
        [](RouteSettings& r) { r.rewrite.prefix.emplace("/"); },
        [](RouteSettings& r) { r.request_headers.remove.emplace_back("Server"); },
    };
    const Chain chain;
    FilterSet all = chain.concerned({});
    for (const auto& feature : features) {
        RouteSettings route;
        feature(route);
        const FilterSet more = chain.concerned(route) & ~chain.concerned({});
        EXPECT_EQ(std::popcount(more), 1);
        EXPECT_EQ(all & more, 0u) << "its own";
        all |= more;
    }
    EXPECT_EQ(std::popcount(all), 12);

    RouteSettings route;
    route.redirect.emplace();
    EXPECT_EQ(std::popcount(chain.concerned(route)), 4);
    route = {};
    route.rewrite.host = "other";
    EXPECT_EQ(std::popcount(chain.concerned(route)), 4);
    route = {};
    route.response_headers.add.emplace_back("A", "b");
    EXPECT_EQ(std::popcount(chain.concerned(route)), 4);
}

}  // namespace
}  // namespace outrider::filters::test
