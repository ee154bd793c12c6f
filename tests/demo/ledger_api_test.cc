#include "demo/ledger_api.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace outrider::demo {
namespace {
using http::Method;
using Json = nlohmann::json;

struct Service {
    Ledger ledger{3, {1000}};
    LedgerApi api{ledger};

    Answer get(std::string_view path, std::string_view query = "") {
        return api.answer({Method::kGet, path, query, "", ""});
    }
    Answer post(std::string_view path, std::string_view body, std::string_view type = "application/json") {
        return api.answer({Method::kPost, path, "", type, body});
    }
    int transfer(std::string_view body) { return post("/transfers", body).status; }
};

TEST(LedgerApi, PostingATransferAnswersWithTheBalances) {
    Service service;
    const Answer answer = service.post("/transfers", R"({"from":1,"to":2,"amount":250})");
    EXPECT_EQ(answer.status, 201);
    EXPECT_EQ(answer.location, "/transfers/1");
    EXPECT_EQ(answer.body, R"({"id":1,"from":1,"to":2,"amount":250,"balances":{"1":750,"2":1250}})"
                           "\n");
    EXPECT_EQ(Json::parse(service.get(answer.location).body)["amount"], 250);
    EXPECT_EQ(Json::parse(service.get("/accounts/2").body),
              Json::parse(R"({"id":2,"balance":1250,"transfers":1})"));
}

TEST(LedgerApi, WhatIsNoTransferIsRefusedAndChangesNothing) {
    Service service;
    EXPECT_EQ(service.transfer(R"({"from":1,"to":2,"amount":)"), 400);
    EXPECT_EQ(service.transfer(""), 400);
    EXPECT_EQ(service.transfer("[]"), 400);
    EXPECT_EQ(service.transfer(R"({"from":1,"to":2})"), 400);
    EXPECT_EQ(service.transfer(R"({"from":1,"to":2,"amount":-1})"), 400);
    EXPECT_EQ(service.transfer(R"({"from":1,"to":2,"amount":0})"), 400);
    EXPECT_EQ(service.transfer(R"({"from":1,"to":2,"amount":1.5})"), 400);
    EXPECT_EQ(service.transfer(R"({"from":1,"to":2,"amount":"1"})"), 400);
    EXPECT_EQ(service.transfer(R"({"from":"1","to":2,"amount":1})"), 400);
    EXPECT_EQ(service.transfer(R"({"from":2,"to":2,"amount":1})"), 400);
    EXPECT_EQ(service.transfer(R"({"from":2,"to":9,"amount":1})"), 404);
    EXPECT_EQ(service.transfer(R"({"from":-2,"to":1,"amount":1})"), 404);
    EXPECT_EQ(service.transfer(R"({"from":4294967297,"to":2,"amount":1})"), 404);
    EXPECT_EQ(service.transfer(R"({"from":1,"to":2,"amount":1001})"), 409);
    EXPECT_EQ(service.transfer(R"({"from":1,"to":2,"amount":18446744073709551615})"), 409);
    EXPECT_EQ(service.post("/transfers", R"({"from":1,"to":2,"amount":1})", "text/plain").status, 415);
    EXPECT_EQ(service.post("/transfers", R"({"from":1,"to":2,"amount":1})", "").status, 415);
    EXPECT_EQ(service.ledger.last_transfer(), TransferId{0});
}

TEST(LedgerApi, TheMediaTypeMayHaveParametersAndAnyCase) {
    Service service;
    const char* body = R"({"from":1,"to":2,"amount":1})";
    EXPECT_EQ(service.post("/transfers", body, "Application/JSON; charset=utf-8").status, 201);
    EXPECT_EQ(service.post("/transfers", body, "application/json ;a=b").status, 201);
    EXPECT_EQ(service.post("/transfers", body, "application/jsonp").status, 415);
}

TEST(LedgerApi, InABulkElementIAnswersRequestIAndABadOneSpoilsNoOther) {
    Service service;
    const Answer answer = service.post("/transfers/bulk", R"([{"from":1,"to":2,"amount":100}, 7,
        {"from":1,"to":2,"amount":5000}, {"from":1,"to":8,"amount":1}, {"from":2,"to":3,"amount":1100}])");
    EXPECT_EQ(answer.status, 200);
    const Json out = Json::parse(answer.body);
    ASSERT_EQ(out.size(), 5u);
    EXPECT_EQ(out[0]["status"], 201);
    EXPECT_EQ(out[0]["id"], 1);
    EXPECT_EQ(out[1]["status"], 400);
    EXPECT_EQ(out[2]["status"], 409);
    EXPECT_EQ(out[2]["error"], "insufficient funds");
    EXPECT_EQ(out[3]["status"], 404);
    EXPECT_EQ(out[4]["status"], 201);
    EXPECT_EQ(out[4]["balances"]["3"], 2100);
}

TEST(LedgerApi, ABulkIsAnArrayOfAtMostAThousand) {
    Service service;
    EXPECT_EQ(service.post("/transfers/bulk", "{}").status, 400);
    EXPECT_EQ(service.post("/transfers/bulk", "[]").body, "[]\n");
    Json many = Json::array();
    for (std::size_t i = 0; i < LedgerApi::kBulkMax; ++i)
        many.push_back({{"from", 1}, {"to", 2}, {"amount", 1}});
    EXPECT_EQ(service.post("/transfers/bulk", many.dump()).status, 200);
    many.push_back(many[0]);
    EXPECT_EQ(service.post("/transfers/bulk", many.dump()).status, 413);
    EXPECT_EQ(service.ledger.last_transfer(), TransferId{1000});
}

TEST(LedgerApi, ListsArePagesWithTheWayToTheNext) {
    Service service;
    const Json first = Json::parse(service.get("/accounts", "limit=2").body);
    EXPECT_EQ(first["accounts"].size(), 2u);
    EXPECT_EQ(first["next"], 2);
    EXPECT_EQ(first["total_balance"], 3000);
    const Json second = Json::parse(service.get("/accounts", "after=2&limit=2").body);
    EXPECT_EQ(second["accounts"].size(), 1u);
    EXPECT_FALSE(second.contains("next"));
    for (int i = 0; i < 3; ++i)
        service.transfer(R"({"from":1,"to":2,"amount":1})");
    EXPECT_EQ(Json::parse(service.get("/transfers", "after=0&limit=2").body)["next"], 2);
    EXPECT_EQ(Json::parse(service.get("/transfers", "after=2").body)["transfers"].size(), 1u);
    EXPECT_EQ(service.get("/accounts", "limit=0").status, 400);
    EXPECT_EQ(service.get("/accounts", "limit=1001").status, 400);
    EXPECT_EQ(service.get("/accounts", "limit=").status, 400);
    EXPECT_EQ(service.get("/accounts", "after=-1").status, 400);
    EXPECT_EQ(service.get("/accounts", "size=1").status, 400);
    EXPECT_EQ(service.get("/accounts", "after=18446744073709551615").status, 200);
}

TEST(LedgerApi, UnknownThingsAre404WithAProblem) {
    Service service;
    for (const char* path : {"/", "/nothing", "/accounts/9", "/accounts/x", "/accounts/", "/transfers/1",
                             "/accounts/4294967297", "/transfers/99999999999999999999"}) {
        const Answer answer = service.get(path);
        EXPECT_EQ(answer.status, 404) << path;
        EXPECT_EQ(answer.content_type, "application/problem+json");
        EXPECT_EQ(Json::parse(answer.body)["status"], 404);
    }
}

TEST(LedgerApi, TheWrongMethodNamesTheRightOnes) {
    Service service;
    EXPECT_EQ(service.get("/transfers/bulk").allow, "POST");
    EXPECT_EQ(service.post("/accounts", "{}").allow, "GET, HEAD");
    EXPECT_EQ(service.api.answer({Method::kDelete, "/transfers", "", "", ""}).allow, "GET, HEAD, POST");
}

TEST(LedgerApi, AControlChangeIsWholeOrNotAtAll) {
    Service service;
    EXPECT_EQ(service.post("/control", R"({"latency_ms":20,"fail_percent":12.5,"fail_status":0,"hang":true})")
                  .status,
              200);
    EXPECT_EQ(service.api.controls().latency_ms, 20u);
    EXPECT_EQ(service.api.controls().fail_percent, 12.5);
    EXPECT_EQ(service.api.controls().fail_status, 0);
    EXPECT_TRUE(service.api.controls().hang);
    for (const char* bad :
         {R"({"latency_ms":1,"fail_percent":101})", R"({"latency_ms":1,"latency":5})", R"({"latency_ms":-1})",
          R"({"latency_ms":1.5})", R"({"latency_ms":1,"fail_status":200})", R"({"hang":1})", "[]", "x"}) {
        EXPECT_EQ(service.post("/control", bad).status, 400) << bad;
    }
    EXPECT_EQ(service.api.controls().latency_ms, 20u);
}

TEST(LedgerApi, HealthIsWhatTheControlSays) {
    Service service;
    EXPECT_EQ(service.get("/healthz").body, "{\"status\":\"ok\"}\n");
    service.post("/control", R"({"healthy":false})");
    EXPECT_EQ(service.get("/healthz").status, 503);
}

TEST(LedgerApiAtScale, ManyOpenBracketsAreNoProblem) {
    Service service;
    EXPECT_EQ(service.transfer(std::string(1 << 20, '[')), 400);
    EXPECT_EQ(service.transfer(std::string(500'000, '[') + std::string(500'000, ']')), 400);
}

}  // namespace
}  // namespace outrider::demo
