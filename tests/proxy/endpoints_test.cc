// What a cluster does with a great many endpoints: an answer of the DNS must not hold a thread, or take all memory.
#include <chrono>
#include <set>

#include <gtest/gtest.h>

#include "base/random.h"
#include "base/uv/loop.h"
#include "proxy/cluster_health.h"
#include "proxy/discovery.h"
#include "proxy/upstream.h"

namespace outrider::proxy {
namespace {

EndpointAddress address(const std::string& ip, std::uint16_t port = 80) {
    return {ip + ":" + std::to_string(port), 1, uv::SocketAddress::parse(ip, port).value(), nullptr};
}
std::string ip(std::size_t i) {
    return "10." + std::to_string(i >> 16) + "." + std::to_string((i >> 8) & 255) + "." +
           std::to_string(i & 255);
}
EndpointSet set_of(std::size_t first, std::size_t count) {
    auto set = std::make_shared<std::vector<EndpointAddress>>();
    for (std::size_t i = first; i < first + count; ++i)
        set->push_back(address(ip(i)));
    return set;
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

TEST(JoinEndpoints, KeepsLiteralsAndTakesEachAddressOnce) {
    const std::vector<EndpointAddress> literals{address("10.0.0.1"), address("10.0.0.1")};
    const std::vector<policy::BalancerEndpoint> a{{"10.0.0.1:80", 7}, {"10.0.0.2:80", 2}, {"[::1]:81", 3}};
    const std::vector<policy::BalancerEndpoint> b{{"10.0.0.2:80", 9}, {"10.0.0.3:80", 1}};
    const std::vector<policy::BalancerEndpoint>* const found[] = {&a, &b};
    const JoinedEndpoints joined = join_endpoints(literals, found);
    std::vector<std::pair<std::string, std::uint32_t>> ids;
    for (const EndpointAddress& e : joined.endpoints)
        ids.emplace_back(e.id, e.weight);
    EXPECT_EQ(ids, (std::vector<std::pair<std::string, std::uint32_t>>{{"10.0.0.1:80", 1},
                                                                       {"10.0.0.1:80", 1},
                                                                       {"10.0.0.2:80", 2},
                                                                       {"[::1]:81", 3},
                                                                       {"10.0.0.3:80", 1}}));
    EXPECT_EQ(joined.left_out, 0u);
}

TEST(JoinEndpoints, LeavesOutWhatIsTooMuch) {
    std::vector<policy::BalancerEndpoint> many;
    for (std::size_t i = 0; i < 500'000; ++i)
        many.push_back({ip(i) + ":80", 1});
    const std::vector<policy::BalancerEndpoint>* const found[] = {&many, &many};
    const auto begin = std::chrono::steady_clock::now();
    const JoinedEndpoints joined = join_endpoints({address("192.0.2.1")}, found);
    EXPECT_LT(seconds_since(begin), 10) << "a part of a second is usual";
    EXPECT_EQ(joined.endpoints.size(), config::kEndpointsMax);
    EXPECT_EQ(joined.left_out, many.size() + 1 - config::kEndpointsMax);
    EXPECT_EQ(joined.endpoints.front().id, "192.0.2.1:80");
    EXPECT_EQ(joined.endpoints.back().id, ip(config::kEndpointsMax - 2) + ":80");
}

TEST(ClusterHealth, KeepsTheStateOfMembersThatStayAndOneForTwins) {
    ClusterHealth health("app", [](const std::string&) {});
    const auto first = health.set_members({"a", "b", "a"});
    EXPECT_EQ(first[0], first[2]);
    EXPECT_NE(first[0], first[1]);
    const auto second = health.set_members({"c", "a"});
    EXPECT_EQ(second[1], first[0]);
    EXPECT_EQ(health.verdicts().size(), 2u);
    const auto third = health.set_members({"b", "b"});
    EXPECT_NE(third[0], first[1]) << "it was gone";
    EXPECT_EQ(health.verdicts().size(), 1u);
}

TEST(ClusterHealthAtScale, ManyMembersTakeNoTime) {
    ClusterHealth health("app", [](const std::string&) {});
    std::vector<std::string> ids;
    for (std::size_t i = 0; i < 100'000; ++i)
        ids.push_back(ip(i));
    const auto begin = std::chrono::steady_clock::now();
    const auto before = health.set_members(ids);
    ids.insert(ids.begin(), "new");
    const auto after = health.set_members(ids);
    EXPECT_EQ(health.verdicts().size(), ids.size());
    EXPECT_LT(seconds_since(begin), 20) << "it was minutes; a part of a second is usual";
    EXPECT_EQ(after.back(), before.back());
}

class WorkerClusterTest : public ::testing::Test {
  protected:
    uv::Loop loop_;
    http::ParserScratch scratch_;
    Random random_{1};
    Ref<WorkerCluster> cluster_{new WorkerCluster(loop_, scratch_, random_, "app")};
};

TEST_F(WorkerClusterTest, KeepsTheEndpointsThatStayEachTwinItsOwn) {
    auto set = std::make_shared<std::vector<EndpointAddress>>(
        std::vector<EndpointAddress>{address("10.0.0.1"), address("10.0.0.2"), address("10.0.0.1")});
    cluster_->set_endpoints(set);
    const std::vector<Ref<Endpoint>> before = cluster_->all();
    const auto less = std::make_shared<std::vector<EndpointAddress>>(
        std::vector<EndpointAddress>{address("10.0.0.3"), address("10.0.0.1"), address("10.0.0.1")});
    cluster_->set_endpoints(less);
    const std::vector<Ref<Endpoint>>& after = cluster_->all();
    const std::set<const Endpoint*> twins{before[0].get(), before[2].get()};
    EXPECT_EQ((std::set<const Endpoint*>{after[1].get(), after[2].get()}), twins);
    EXPECT_EQ(twins.size(), 2u);
    EXPECT_EQ(before[1]->index, Endpoint::kRemoved);
    for (std::size_t i = 0; i < after.size(); ++i)
        EXPECT_EQ(after[i]->index, i);
}

TEST_F(WorkerClusterTest, ManyEndpointsTakeNoTime) {
    const auto begin = std::chrono::steady_clock::now();
    cluster_->set_endpoints(set_of(0, 100'000));
    const Ref<Endpoint> last = cluster_->all().back();
    cluster_->set_endpoints(set_of(50'000, 100'000));
    EXPECT_LT(seconds_since(begin), 20) << "it was a minute; a part of a second is usual";
    EXPECT_EQ(cluster_->all()[49'999].get(), last.get());
}

}  // namespace
}  // namespace outrider::proxy
