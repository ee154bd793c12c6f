#include "base/uv/resolver.h"

#include <memory>
#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <uv.h>

#include "tests/base_uv/dns_server.h"

namespace outrider::uv {
namespace {
using namespace std::chrono_literals;
using test::DnsReply;
using test::DnsServer;
using test::DnsZone;
using test::kTypeA;
using test::kTypeAaaa;
using test::kTypeSrv;
using Kind = DnsReply::Kind;
using Strings = std::vector<std::string>;

// A loop, a server with a zone, a resolver that asks only that server.
class ResolverTest : public testing::Test {
  protected:
    ResolverTest() { EXPECT_EQ(uv_loop_init(&loop_), 0); }
    ~ResolverTest() override {
        resolver_.reset();
        uv_run(&loop_, UV_RUN_DEFAULT);
        EXPECT_EQ(uv_loop_close(&loop_), 0) << "no handle may be left";
    }

    // Tests in which silence is the point use a short timeout; a loaded machine must not cause one
    // elsewhere.
    void serve(DnsZone zone, Duration timeout = 2s) {
        server_.emplace(std::move(zone));
        use({.servers = {server_->address()}, .timeout = timeout});
    }
    void use(ResolverOptions options) {
        options.tries = 2;
        options.search_domains = false;
        resolver_ = std::make_unique<Resolver>(&loop_, options);
    }

    Resolution<ResolvedAddresses> addresses(const std::string& name) {
        return wait<ResolvedAddresses>(
            [&](auto callback) { resolver_->resolve_addresses(name, std::move(callback)); });
    }
    Resolution<SrvRecords> srv(const std::string& name) {
        return wait<SrvRecords>([&](auto callback) { resolver_->resolve_srv(name, std::move(callback)); });
    }
    Resolution<ResolvedSrv> srv_addresses(const std::string& name) {
        return wait<ResolvedSrv>(
            [&](auto callback) { resolver_->resolve_srv_addresses(name, std::move(callback)); });
    }

    // Runs the loop until nothing is left to do: that it returns shows that an idle resolver holds
    // no loop.
    template <typename T, typename Start>
    Resolution<T> wait(Start start) {
        std::optional<Resolution<T>> result;
        int calls = 0;
        start([&](Resolution<T> got) {
            ++calls;
            result = std::move(got);
        });
        EXPECT_EQ(calls, 0) << "a callback never fires before the call has returned";
        uv_run(&loop_, UV_RUN_DEFAULT);
        EXPECT_EQ(calls, 1);
        if (!result) return ResolveError{ResolveFailure::kServerFailure, "no callback"};
        return std::move(*result);
    }

    uv_loop_t loop_{};
    std::optional<DnsServer> server_;
    std::unique_ptr<Resolver> resolver_;
};

template <typename T>
std::string outcome(const Resolution<T>& result) {
    const auto* error = std::get_if<ResolveError>(&result);
    return error == nullptr ? "ok" : to_string(error->failure);
}

DnsReply answer(std::vector<test::DnsRecord> records) {
    return {Kind::kAnswer, std::move(records)};
}

TEST_F(ResolverTest, GivesBothFamiliesAndTheSmallestTtl) {
    serve({{{"both.test", kTypeA}, answer({test::a_record("10.0.0.1", 30), test::a_record("10.0.0.2", 30)})},
           {{"both.test", kTypeAaaa}, answer({test::aaaa_record("fd00::1", 12)})}});
    const auto result = addresses("both.test");
    ASSERT_EQ(outcome(result), "ok");
    EXPECT_EQ(std::get<ResolvedAddresses>(result).ips, (Strings{"10.0.0.1", "10.0.0.2", "fd00::1"}));
    EXPECT_EQ(std::get<ResolvedAddresses>(result).ttl, 12s);
}

TEST_F(ResolverTest, OneFamilyIsEnough) {
    serve({{{"four.test", kTypeA}, answer({test::a_record("10.0.0.1", 30)})},
           {{"four.test", kTypeAaaa}, answer({})},
           {{"six.test", kTypeA}, answer({})},
           {{"six.test", kTypeAaaa}, answer({test::aaaa_record("fd00::1", 9)})},
           {{"half.test", kTypeA}, answer({test::a_record("10.0.0.3", 30)})},
           {{"half.test", kTypeAaaa}, {Kind::kServerFailure, {}}}});
    EXPECT_EQ(std::get<ResolvedAddresses>(addresses("four.test")).ips, Strings{"10.0.0.1"});
    EXPECT_EQ(std::get<ResolvedAddresses>(addresses("six.test")).ips, Strings{"fd00::1"});
    EXPECT_EQ(std::get<ResolvedAddresses>(addresses("half.test")).ips, Strings{"10.0.0.3"});
}

TEST_F(ResolverTest, ACnameOnTheWayCountsForTheTtl) {
    test::DnsRecord address = test::a_record("10.0.0.1", 300);
    address.owner = "real.test";
    serve({{{"alias.test", kTypeA}, answer({test::cname_record("real.test", 5), address})},
           {{"alias.test", kTypeAaaa}, answer({})}});
    const auto result = addresses("alias.test");
    ASSERT_EQ(outcome(result), "ok");
    EXPECT_EQ(std::get<ResolvedAddresses>(result).ttl, 5s);
}

TEST_F(ResolverTest, ATtlOfZeroFromDnsStaysZero) {
    serve({{{"brief.test", kTypeA}, answer({test::a_record("10.0.0.1", 0)})}});
    EXPECT_EQ(std::get<ResolvedAddresses>(addresses("brief.test")).ttl, 0s);
}

TEST_F(ResolverTest, HostsFileAndLiteralsNeedNoServer) {
    use({.servers = {"127.0.0.1:1"}, .timeout = 50ms});
    const auto local = addresses("localhost");
    ASSERT_EQ(outcome(local), "ok");
    const Strings& ips = std::get<ResolvedAddresses>(local).ips;
    EXPECT_TRUE(ips.front() == "127.0.0.1" || ips.front() == "::1") << ips.front();
    EXPECT_EQ(std::get<ResolvedAddresses>(local).ttl, 60s);
    EXPECT_EQ(std::get<ResolvedAddresses>(addresses("192.0.2.7")).ips, Strings{"192.0.2.7"});
    EXPECT_EQ(std::get<ResolvedAddresses>(addresses("2001:db8::7")).ips, Strings{"2001:db8::7"});
}

TEST_F(ResolverTest, FailuresAreToldApart) {
    serve({{{"empty.test", kTypeA}, answer({})},
           {{"empty.test", kTypeAaaa}, answer({})},
           {{"failing.test", kTypeA}, {Kind::kServerFailure, {}}},
           {{"failing.test", kTypeAaaa}, {Kind::kServerFailure, {}}},
           {{"cut.test", kTypeA}, {Kind::kCutRecord, {}}},
           {{"cut.test", kTypeAaaa}, {Kind::kCutRecord, {}}}});
    EXPECT_EQ(outcome(addresses("missing.test")), "not found");
    EXPECT_EQ(outcome(addresses("empty.test")), "not found");
    EXPECT_EQ(outcome(addresses("failing.test")), "server failure");
    EXPECT_EQ(outcome(addresses("cut.test")), "malformed answer");
    const auto error = addresses("missing.test");
    EXPECT_EQ(std::get<ResolveError>(error).message.find("missing.test: not found ("), 0u);
}

TEST_F(ResolverTest, SilenceIsATimeout) {
    serve({{{"silent.test", kTypeA}, {Kind::kSilent, {}}},
           {{"silent.test", kTypeAaaa}, {Kind::kSilent, {}}},
           {{"_silent._tcp.test", kTypeSrv}, {Kind::kSilent, {}}}},
          50ms);
    EXPECT_EQ(outcome(addresses("silent.test")), "timeout");
    EXPECT_EQ(outcome(srv("_silent._tcp.test")), "timeout");
}

TEST_F(ResolverTest, NoiseInsteadOfAnAnswerIsAFailure) {
    serve({{{"noise.test", kTypeA}, {Kind::kNoise, {}}}, {{"noise.test", kTypeAaaa}, {Kind::kNoise, {}}}},
          50ms);
    // 1.18 ignores what has no matching id and times out, 1.34 refuses what does not parse.
    EXPECT_THAT(outcome(addresses("noise.test")), testing::AnyOf("timeout", "malformed answer"));
}

TEST_F(ResolverTest, ATruncatedAnswerIsAskedForAgainOverTcp) {
    serve({{{"large.test", kTypeA}, {Kind::kTruncated, {test::a_record("10.0.0.9", 30)}}},
           {{"large.test", kTypeAaaa}, answer({})},
           {{"_large._tcp.test", kTypeSrv}, {Kind::kTruncated, {test::srv_record(1, 1, 80, "a.test", 8)}}}});
    EXPECT_EQ(std::get<ResolvedAddresses>(addresses("large.test")).ips, Strings{"10.0.0.9"});
    EXPECT_EQ(std::get<SrvRecords>(srv("_large._tcp.test")).ttl, 8s);
}

TEST_F(ResolverTest, NamesThatAreNoneAreNotFound) {
    serve({});
    for (const std::string& name : {std::string(), std::string(300, 'a'), std::string("a..b"),
                                    std::string("nul\0byte", 8), std::string(70, 'b') + ".test"}) {
        EXPECT_EQ(outcome(addresses(name)), "not found") << name;
        EXPECT_EQ(outcome(srv(name)), "not found") << name;
    }
}

TEST_F(ResolverTest, AnUnreachableOrMistypedServerIsAServerFailure) {
    use({.servers = {"127.0.0.1:1"}, .timeout = 50ms});
    EXPECT_THAT(outcome(addresses("any.test")), testing::AnyOf("server failure", "timeout"));
    use({.servers = {"not an address"}});
    EXPECT_EQ(outcome(addresses("any.test")), "server failure");
    EXPECT_EQ(outcome(srv("_any._tcp.test")), "server failure");
}

TEST_F(ResolverTest, GivesSrvRecordsWithTheirTtl) {
    serve({{{"_ledger._tcp.test", kTypeSrv},
            answer({test::srv_record(20, 1, 81, "b.test", 60), test::srv_record(10, 3, 80, "a.test", 15)})},
           {{"_none._tcp.test", kTypeSrv}, answer({test::srv_record(0, 0, 0, "", 60)})},
           {{"_cut._tcp.test", kTypeSrv}, {Kind::kCutRecord, {}}},
           {{"_bad._tcp.test", kTypeSrv}, answer({test::srv_record(0, 0, 0, "a b", 60)})}});
    const auto result = srv("_ledger._tcp.test");
    ASSERT_EQ(outcome(result), "ok");
    EXPECT_EQ(std::get<SrvRecords>(result).targets,
              (std::vector<SrvTarget>{{"a.test", 80, 10, 3}, {"b.test", 81, 20, 1}}));
    EXPECT_EQ(std::get<SrvRecords>(result).ttl, 15s);
    EXPECT_EQ(outcome(srv("_missing._tcp.test")), "not found");
    EXPECT_EQ(outcome(srv("_none._tcp.test")), "not found");
    EXPECT_EQ(outcome(srv("_cut._tcp.test")), "malformed answer");
    EXPECT_EQ(outcome(srv("_bad._tcp.test")), "malformed answer");
}

TEST_F(ResolverTest, ResolvesTheTargetsOfSrvRecords) {
    serve(
        {{{"_ledger._tcp.test", kTypeSrv},
          answer({test::srv_record(10, 3, 80, "a.test", 60), test::srv_record(20, 1, 81, "b.test", 60)})},
         {{"a.test", kTypeA}, answer({test::a_record("10.0.0.1", 45), test::a_record("10.0.0.2", 45)})},
         {{"b.test", kTypeA}, answer({test::a_record("10.0.0.3", 50)})},
         {{"_part._tcp.test", kTypeSrv},
          answer({test::srv_record(10, 3, 80, "gone.test", 60), test::srv_record(20, 1, 81, "b.test", 60)})},
         {{"_lost._tcp.test", kTypeSrv}, answer({test::srv_record(10, 3, 80, "gone.test", 60)})}});
    const auto whole = srv_addresses("_ledger._tcp.test");
    ASSERT_EQ(outcome(whole), "ok");
    const SrvTarget a = {"a.test", 80, 10, 3};
    const SrvTarget b = {"b.test", 81, 20, 1};
    EXPECT_EQ(std::get<ResolvedSrv>(whole).endpoints,
              (std::vector<SrvEndpoint>{{"10.0.0.1", a}, {"10.0.0.2", a}, {"10.0.0.3", b}}));
    EXPECT_EQ(std::get<ResolvedSrv>(whole).ttl, 45s);
    const auto part = srv_addresses("_part._tcp.test");
    ASSERT_EQ(outcome(part), "ok");
    EXPECT_EQ(std::get<ResolvedSrv>(part).endpoints, (std::vector<SrvEndpoint>{{"10.0.0.3", b}}));
    EXPECT_EQ(std::get<ResolvedSrv>(part).ttl, kPartialSrvTtl);
    EXPECT_EQ(outcome(srv_addresses("_lost._tcp.test")), "not found");
    EXPECT_EQ(outcome(srv_addresses("_missing._tcp.test")), "not found");
}

TEST_F(ResolverTest, ResolvesMoreTargetsThanItAsksForAtOnce) {
    DnsZone zone;
    std::vector<test::DnsRecord> records;
    for (unsigned i = 0; i < 100; ++i) {
        const std::string host = "h" + std::to_string(i) + ".test";
        records.push_back(test::srv_record(1, 1, 80, host, 60));
        zone[{host, kTypeA}] = answer({test::a_record("10.0.1." + std::to_string(i), 60)});
    }
    zone[{"_many._tcp.test", kTypeSrv}] = {Kind::kTruncated, records};
    serve(std::move(zone));
    const auto result = srv_addresses("_many._tcp.test");
    ASSERT_EQ(outcome(result), "ok");
    EXPECT_EQ(std::get<ResolvedSrv>(result).endpoints.size(), 100u);
    EXPECT_EQ(std::get<ResolvedSrv>(result).endpoints[57].ip, "10.0.1.57");
}

// Whatever the order of the answer, the same addresses: otherwise the endpoints would change at each refresh.
TEST_F(ResolverTest, OfATargetWithTooManyAddressesSomeAreUsed) {
    DnsZone zone;
    std::vector<test::DnsRecord> targets;
    for (unsigned i = 0; i < 100; ++i)
        targets.push_back(test::srv_record(1, 1, 80, i == 0 ? "wide.test" : "none.test", 60));
    std::vector<test::DnsRecord> wide;
    for (unsigned i = 0; i < 200; ++i)
        wide.push_back(test::a_record("10.0.3." + std::to_string(199 - i), 60));
    zone[{"wide.test", kTypeA}] = {Kind::kTruncated, wide};
    zone[{"_wide._tcp.test", kTypeSrv}] = {Kind::kTruncated, targets};
    serve(std::move(zone));
    const auto result = srv_addresses("_wide._tcp.test");
    ASSERT_EQ(outcome(result), "ok");
    const auto& endpoints = std::get<ResolvedSrv>(result).endpoints;
    EXPECT_EQ(endpoints.size(), kSrvTargetAddressesMin);
    EXPECT_EQ(endpoints.front().ip, "10.0.3.0");
    EXPECT_EQ(std::get<ResolvedAddresses>(addresses("wide.test")).ips.size(), 200u);
}

TEST_F(ResolverTest, AnswersManyLookupsAtOnce) {
    DnsZone zone;
    for (int i = 0; i < 100; ++i) {
        zone[{"h" + std::to_string(i) + ".test", kTypeA}] =
            answer({test::a_record("10.0.2." + std::to_string(i), 60)});
    }
    serve(std::move(zone));
    int right = 0;
    for (int i = 0; i < 100; ++i) {
        resolver_->resolve_addresses(
            "h" + std::to_string(i) + ".test", [&right, i](Resolution<ResolvedAddresses> result) {
                const auto* found = std::get_if<ResolvedAddresses>(&result);
                right += found != nullptr && found->ips == Strings{"10.0.2." + std::to_string(i)} ? 1 : 0;
            });
    }
    uv_run(&loop_, UV_RUN_DEFAULT);
    EXPECT_EQ(right, 100);
}

TEST_F(ResolverTest, ALookupAboveTheLimitFailsAtOnce) {
    server_.emplace(DnsZone{{{"a.test", kTypeA}, answer({test::a_record("10.0.0.1", 60)})}});
    use({.servers = {server_->address()}, .lookups_max = 2});
    Strings outcomes;
    for (int i = 0; i < 3; ++i) {
        resolver_->resolve_addresses("a.test",
                                     [&](const auto& result) { outcomes.push_back(outcome(result)); });
    }
    uv_run(&loop_, UV_RUN_DEFAULT);
    EXPECT_EQ(outcomes, (Strings{"server failure", "ok", "ok"}));
    EXPECT_EQ(outcome(addresses("a.test")), "ok") << "finished look-ups make room";
}

TEST_F(ResolverTest, AfterCloseNoCallbackFires) {
    serve({{{"silent.test", kTypeA}, {Kind::kSilent, {}}},
           {{"silent.test", kTypeAaaa}, {Kind::kSilent, {}}},
           {{"_silent._tcp.test", kTypeSrv}, {Kind::kSilent, {}}}});
    int calls = 0;
    resolver_->resolve_addresses("silent.test", [&](const auto&) { ++calls; });
    resolver_->resolve_addresses("localhost", [&](const auto&) { ++calls; });  // result is already queued
    resolver_->resolve_srv("_silent._tcp.test", [&](const auto&) { ++calls; });
    resolver_->resolve_srv_addresses("_silent._tcp.test", [&](const auto&) { ++calls; });
    resolver_->close();
    resolver_->close();
    resolver_->resolve_addresses("localhost", [&](const auto&) { ++calls; });
    resolver_->resolve_srv("_silent._tcp.test", [&](const auto&) { ++calls; });
    uv_run(&loop_, UV_RUN_DEFAULT);
    EXPECT_EQ(calls, 0);
}

TEST_F(ResolverTest, ACallbackMayDestroyTheResolver) {
    serve({{{"a.test", kTypeA}, answer({test::a_record("10.0.0.1", 60)})},
           {{"silent.test", kTypeA}, {Kind::kSilent, {}}}});
    int calls = 0;
    resolver_->resolve_addresses("silent.test", [&](const auto&) { ++calls; });
    for (int i = 0; i < 3; ++i) {
        resolver_->resolve_addresses("a.test", [&](const auto&) {
            ++calls;
            resolver_.reset();
        });
    }
    uv_run(&loop_, UV_RUN_DEFAULT);
    EXPECT_EQ(calls, 1);
}

TEST_F(ResolverTest, ACallbackMayAskAgain) {
    serve({{{"a.test", kTypeA}, answer({test::a_record("10.0.0.1", 60)})}});
    int left = 5;
    std::function<void(Resolution<ResolvedAddresses>)> again = [&](const auto&) {
        if (--left > 0) resolver_->resolve_addresses(left % 2 == 0 ? "a.test" : "localhost", again);
    };
    resolver_->resolve_addresses("a.test", again);
    uv_run(&loop_, UV_RUN_DEFAULT);
    EXPECT_EQ(left, 0);
}

TEST_F(ResolverTest, TheSystemsSettingsAreTakenWithoutOptions) {
    resolver_ = std::make_unique<Resolver>(&loop_);
    EXPECT_EQ(outcome(addresses("localhost")), "ok");
}

}  // namespace
}  // namespace outrider::uv
