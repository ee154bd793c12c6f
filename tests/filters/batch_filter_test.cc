// Which requests may be a part of a batch, and which of them may share a call. When a call leaves is batch_test.cc's, what it
// looks like batch_format_test.cc's.
#include "tests/filters/filter_fixture.h"

namespace outrider::filters {
namespace {

using namespace std::chrono_literals;
using test::OneRequest;

class BatchFilter : public testing::Test {
  protected:
    BatchFilter() { one_.route.batch = config::BatchSettings{.path = "/bulk"}; }

    bool gathers(const std::string& head) { return std::holds_alternative<Gather>(one_.ask(*filter_, head)); }
    std::string group(const std::string& head) {
        return gathers(head) ? std::string(one_.context.batch_group) : "apart";
    }

    const std::unique_ptr<const Filter> filter_ = make_batch();
    OneRequest one_;
};

std::string post(const std::string& fields = "", const std::string& target = "/orders",
                 const std::string& type = "application/json") {
    return "POST " + target + " HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Type: " + type + "\r\n" +
           fields;
}

TEST_F(BatchFilter, GathersOnlyWhatCanBeAPart) {
    const std::pair<std::string, bool> rows[] = {
        {post(), true},
        {post("", "/orders", "Application/JSON; charset=utf-8"), true},
        {post("", "/orders", "application/problem+json"), true},
        {"POST /o HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n",
         true},
        {post("", "/orders", "text/plain"), false},
        {post("", "/orders", "+json"), false},
        {post("", "/orders", "application/jsonp"), false},
        {post("", "/orders?x=1"), false},
        {post("Content-Encoding: gzip\r\n"), false},
        {"POST /o HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n", false},  // no body
        {"PUT /o HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 2\r\n", false},
        {"GET /o HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n", false},
        {"POST /o HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n", false},  // of no type
    };
    for (const auto& [head, gathered] : rows)
        EXPECT_EQ(gathers(head), gathered) << head;
}

TEST_F(BatchFilter, GoesOnWithoutTheTable) {
    one_.route.batch.reset();
    EXPECT_FALSE(gathers(post()));
}

TEST_F(BatchFilter, AKeyThatNobodyHereKeepsIsForTheApplication) {
    EXPECT_FALSE(gathers(post("Idempotency-Key: \"1\"\r\n")));
    one_.route.idempotency = config::IdempotencySettings{};
    one_.route.idempotency->header = "X-Once";
    EXPECT_FALSE(gathers(post("X-Once: 1\r\n")));
    one_.keyed = true;
    EXPECT_TRUE(gathers(post("X-Once: 1\r\n")));
    EXPECT_TRUE(gathers(post("Idempotency-Key: \"1\"\r\n")));
}

struct Pair {
    const char* what;
    std::string one, other;
    bool share;
};

void check(OneRequest& one, const Filter& filter, const std::vector<Pair>& rows) {
    for (const Pair& row : rows) {
        std::string groups[2];
        for (int i = 0; i < 2; ++i) {
            ASSERT_TRUE(std::holds_alternative<Gather>(one.ask(filter, i == 0 ? row.one : row.other)))
                << row.what;
            groups[i] = std::string(one.context.batch_group);
        }
        EXPECT_EQ(groups[0] == groups[1], row.share) << row.what;
    }
}

TEST_F(BatchFilter, OnlyWhatIsPassedOnAlikeSharesACall) {
    check(one_, *filter_,
          {{"the same", post(), post(), true},
           {"another path", post(), post("", "/carts"), false},
           {"another host", post(),
            "POST /orders HTTP/1.1\r\nHost: i\r\nContent-Length: 2\r\nContent-Type: application/json\r\n",
            false},
           {"another user", post("Authorization: a\r\n"), post("Authorization: b\r\n"), false},
           {"a user and nobody", post("Authorization: a\r\n"), post(), false},
           {"another session", post("Cookie: a=1\r\n"), post("Cookie: a=2\r\n"), false},
           {"any field", post("X-Tenant: 1\r\n"), post("X-Tenant: 2\r\n"), false},
           {"names in any case", post("X-Tenant: 1\r\n"), post("x-tenant: 1\r\n"), true},
           {"values that only look the same when joined", post("A: b\r\nC: d\r\n"), post("A: b1:C1:d\r\n"),
            false},
           {"request ids", post("X-Request-Id: a\r\n"), post("X-Request-Id: b\r\n"), true},
           {"traces", post("Traceparent: a\r\nTracestate: a\r\n"), post(), true},
           {"what they accept as coding", post("Accept-Encoding: gzip\r\n"), post(), true},
           {"types with parameters", post("", "/orders", "application/json; charset=utf-8"), post(), true},
           {"lengths and framing", post(),
            "POST /orders HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: "
            "chunked\r\n",
            true},
           {"hop-by-hop fields", post("Connection: close, X-Hop\r\nX-Hop: 1\r\n"), post(), true}});
}

TEST_F(BatchFilter, WhatIsBelievedIsPassedOnAndSoCompared) {
    const std::vector<Pair> strangers = {
        {"forwarding", post("X-Forwarded-For: 1.1.1.1\r\n"), post("X-Forwarded-For: 2.2.2.2\r\n"), true},
        {"own fields", post("Outrider-Session: a\r\n"), post("Outrider-Session: b\r\n"), true}};
    check(one_, *filter_, strangers);
    one_.listener.trust_forwarded = true;
    const std::vector<Pair> trusted = {
        {"forwarding", post("X-Forwarded-For: 1.1.1.1\r\n"), post("X-Forwarded-For: 2.2.2.2\r\n"), false},
        {"own fields", post("Outrider-Session: a\r\n"), post("Outrider-Session: b\r\n"), false},
        {"deadlines", post("Outrider-Deadline-Ms: 100\r\n"), post("Outrider-Deadline-Ms: 200\r\n"), true}};
    check(one_, *filter_, trusted);
}

TEST_F(BatchFilter, KeysOfTheRouteDoNotKeepApart) {
    one_.route.idempotency = config::IdempotencySettings{};
    one_.keyed = true;
    check(one_, *filter_,
          {{"keys", post("Idempotency-Key: \"1\"\r\n"), post("Idempotency-Key: \"2\"\r\n"), true}});
}

TEST_F(BatchFilter, FieldsBeyondTheBoundGoByThemselves) {
    EXPECT_TRUE(gathers(post("X-Long: " + std::string(8000, 'x') + "\r\n")));
    EXPECT_FALSE(gathers(post("X-Long: " + std::string(8200, 'x') + "\r\n")));
}

TEST_F(BatchFilter, SaysHowLongItMayWaitAndLeavesWhoseTimeIsOver) {
    ASSERT_TRUE(gathers(post()));
    EXPECT_EQ(one_.context.time_left, 15s);
    one_.listener.trust_forwarded = true;
    ASSERT_TRUE(gathers(post("Outrider-Deadline-Ms: 250\r\n")));
    EXPECT_EQ(one_.context.time_left, 250ms);
    EXPECT_FALSE(gathers(post("Outrider-Deadline-Ms: 0\r\n")));
}

}  // namespace
}  // namespace outrider::filters
