#include "base/uv/dns_message.h"

#include <gtest/gtest.h>

#include "tests/base_uv/dns_server.h"

namespace outrider::uv {
namespace {
using namespace std::chrono_literals;
using test::srv_record;

std::string question_for(const std::string& name) {
    return std::string("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", 12) + test::wire_name(name) +
           std::string("\x00\x21\x00\x01", 4);
}

std::string response(const std::vector<test::DnsRecord>& records) {
    const test::DnsZone zone = {{{"_x._tcp.y", test::kTypeSrv}, {test::DnsReply::Kind::kAnswer, records}}};
    return test::make_dns_response(zone, question_for("_x._tcp.y"), false);
}

Resolution<SrvRecords> parse(const std::string& bytes) {
    return parse_srv_response({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

std::string outcome(const std::string& bytes) {
    const Resolution<SrvRecords> result = parse(bytes);
    if (const auto* error = std::get_if<ResolveError>(&result)) return to_string(error->failure);
    return "ok";
}

TEST(SrvResponse, SortsByPriorityAndTakesTheSmallestTtl) {
    const auto result = parse(response({srv_record(20, 1, 81, "b.y", 300), srv_record(10, 0, 80, "a.y", 40),
                                        srv_record(10, 5, 82, "c.y", 50)}));
    const SrvRecords& records = std::get<SrvRecords>(result);
    const std::vector<SrvTarget> expected = {{"a.y", 80, 10, 0}, {"c.y", 82, 10, 5}, {"b.y", 81, 20, 1}};
    EXPECT_EQ(records.targets, expected);
    EXPECT_EQ(records.ttl, 40s);
}

TEST(SrvResponse, CountsTheTtlOfACname) {
    const auto result =
        parse(response({test::cname_record("_x._tcp.z", 7), srv_record(1, 1, 80, "a.y", 40)}));
    EXPECT_EQ(std::get<SrvRecords>(result).ttl, 7s);
}

TEST(SrvResponse, ATtlWithItsTopBitSetIsZero) {
    EXPECT_EQ(std::get<SrvRecords>(parse(response({srv_record(1, 1, 80, "a.y", 0x80000001)}))).ttl, 0s);
}

TEST(SrvResponse, FollowsCompressionInTargets) {
    test::DnsRecord record = srv_record(1, 1, 80, "", 40);
    record.data = std::string("\0\1\0\1\0\x50", 6) +
                  "\x01"
                  "a"
                  "\xc0\x0c";  // a._x._tcp.y
    const auto result = parse(response({record}));
    EXPECT_EQ(std::get<SrvRecords>(result).targets.at(0).host, "a._x._tcp.y");
}

TEST(SrvResponse, NotFoundWithoutATarget) {
    EXPECT_EQ(outcome(response({})), "not found");
    EXPECT_EQ(outcome(response({srv_record(0, 0, 0, "", 40)})), "not found") << "\".\", RFC 2782";
    EXPECT_EQ(outcome(response({test::a_record("10.0.0.1", 40)})), "not found");
}

TEST(SrvResponse, EveryCutIsMalformed) {
    const std::string whole = response({srv_record(1, 1, 80, "a.y", 40), srv_record(1, 1, 80, "b.y", 40)});
    for (std::size_t size = 0; size < whole.size(); ++size) {
        // A copy of its own size, so that AddressSanitizer sees a read past its end.
        EXPECT_EQ(outcome(std::string(whole.data(), size)), "malformed answer") << size;
    }
    EXPECT_EQ(outcome(whole), "ok");
}

TEST(SrvResponse, EveryChangedByteIsReadWithoutHarm) {
    const std::string whole = response({srv_record(1, 1, 80, "a.y", 40), srv_record(1, 1, 80, "b.y", 40)});
    for (std::size_t at = 0; at < whole.size(); ++at) {
        for (const int value : {0, 1, 63, 64, 0x80, 0xc0, 0xff}) {
            std::string changed = whole;
            changed[at] = static_cast<char>(value);
            outcome(changed);
        }
    }
}

TEST(SrvResponse, RefusesPointersThatDoNotPointBack) {
    for (const std::string pointer : {"\xc0\x37", "\xff\xff", "\xc0\x35"}) {
        test::DnsRecord record = srv_record(1, 1, 80, "", 40);
        record.data = std::string("\0\1\0\1\0\x50", 6) + pointer;
        EXPECT_EQ(outcome(response({record})), "malformed answer");
    }
    // Two pointers at each other: the second one does not point before the first.
    std::string loop = question_for("y");
    loop[7] = 1;  // one answer, whose name begins with a pointer to itself
    loop += std::string("\xc0\x13", 2) + std::string(20, '\0');
    EXPECT_EQ(outcome(loop), "malformed answer");
}

TEST(SrvResponse, RefusesTargetsThatAreNoHostNames) {
    for (const std::string& target : {std::string("a b.y"), std::string("a/../b"), std::string("a\nb"),
                                      std::string("caf\xc3\xa9"), std::string("a\0b", 3)}) {
        EXPECT_EQ(outcome(response({srv_record(1, 1, 80, target, 40)})), "malformed answer") << target;
    }
    std::string long_name;
    for (int i = 0; i < 5; ++i) {
        long_name += std::string(60, 'a') + ".";
    }
    EXPECT_EQ(outcome(response({srv_record(1, 1, 80, long_name + "y", 40)})), "malformed answer");
}

}  // namespace
}  // namespace outrider::uv
