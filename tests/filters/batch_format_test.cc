#include "filters/policy/batch_format.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "filters/policy/json_slices.h"

namespace outrider::policy {
namespace {
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using Verdict = BatchAdmission::Verdict;

constexpr BatchFormat kArray = BatchFormat::kJsonArray;
constexpr BatchFormat kLines = BatchFormat::kNdjson;
constexpr BatchFormat kRpc = BatchFormat::kJsonRpc;

struct Call {
    Call(BatchFormat f, const std::vector<std::string>& bodies) : format(f) {
        BatchAdmission admission({});
        for (const std::string& body : bodies) {
            auto decision = admission.decide(f, body);
            EXPECT_EQ(decision.verdict, Verdict::kMember) << body << ": " << decision.reason;
            items.push_back(std::move(decision.item));
        }
        for (const BatchItem& item : items) {
            pointers.push_back(&item);
        }
    }
    std::string body() const { return batch_body(format, pointers); }
    Result<BatchSplitter::Parts> split(std::string_view answer, bool envelope = false) {
        return splitter.split(format, envelope, pointers, answer);
    }
    // "status body" of each part, or "error: …".
    std::vector<std::string> parts(std::string_view answer, bool envelope = false) {
        const auto result = split(answer, envelope);
        if (!result) return {"whole: " + result.error()};
        std::vector<std::string> out;
        for (const auto& part : result->parts) {
            out.push_back(part.error.empty() ? std::to_string(part.status) + " " + part.joined()
                                             : "error: " + part.error);
        }
        return out;
    }
    BatchFormat format;
    std::vector<BatchItem> items;
    std::vector<const BatchItem*> pointers;
    BatchSplitter splitter{FormatLimits{}};
};

// --- admission --------------------------------------------------------------------------------------------

TEST(BatchAdmission, AMemberIsExactlyOneJsonValue) {
    const std::string deep_enough = std::string(60, '[') + std::string(60, ']');
    const std::string too_deep = std::string(70, '[') + std::string(70, ']');
    const struct {
        std::string body;
        std::string reason;  // empty: a member
    } rows[] = {
        {R"({"a":1})", ""},
        {R"(  [1, 2]  )", ""},
        {"7", ""},
        {R"("text")", ""},
        {"null", ""},
        {"18446744073709551615", ""},
        {"\"\xc3\xa9\"", ""},
        {deep_enough, ""},
        {"", "empty"},
        {"   ", "empty"},
        {"{", "not one JSON value"},
        {R"({"a":1)", "not one JSON value"},
        {R"({"a":1}})", "not one JSON value"},
        {"1,2", "not one JSON value"},
        {"1],[2", "not one JSON value"},
        {R"({"a":1} {"b":2})", "not one JSON value"},
        {R"({"a":1}x)", "not one JSON value"},
        {"[1,]", "not one JSON value"},
        {"nul", "not one JSON value"},
        {"{'a':1}", "not one JSON value"},
        {"\"line\nbreak\"", "not one JSON value"},
        {std::string("{}\0", 3), "not one JSON value"},
        {"\"\xff\"", "not UTF-8"},
        {"\"\xed\xa0\x80\"", "not UTF-8"},
        {"\xef\xbb\xbf{}", "byte order mark"},
        {too_deep, "nested too deeply"},
        {"100000000000000000000000", "number"},
        {"1e999", "number"},
    };
    BatchAdmission admission({});
    for (const BatchFormat format : {kArray, kLines}) {
        for (const auto& row : rows) {
            SCOPED_TRACE(row.body);
            const auto decision = admission.decide(format, row.body);
            EXPECT_EQ(decision.verdict, row.reason.empty() ? Verdict::kMember : Verdict::kRefused);
            if (row.reason != "number") {
                EXPECT_THAT(decision.reason, HasSubstr(row.reason));
            }
        }
    }
}

TEST(BatchAdmission, AMemberIsBounded) {
    BatchAdmission admission({.member_bytes_max = {100}});
    EXPECT_EQ(admission.decide(kArray, '"' + std::string(98, 'x') + '"').verdict, Verdict::kMember);
    EXPECT_EQ(admission.decide(kArray, '"' + std::string(99, 'x') + '"').verdict, Verdict::kRefused);
}

TEST(BatchAdmission, AJsonRpcMemberIsARequest) {
    const struct {
        const char* body;
        Verdict verdict;
        const char* reason;
    } rows[] = {
        {R"({"jsonrpc":"2.0","method":"m","id":1})", Verdict::kMember, ""},
        {R"({"jsonrpc":"2.0","method":"m","params":[1],"id":"a"})", Verdict::kMember, ""},
        {R"({"jsonrpc":"2.0","method":"m","id":null})", Verdict::kMember, ""},
        {R"({"jsonrpc":"2.0","method":"m","id":1.5})", Verdict::kMember, ""},
        {R"({"jsonrpc":"2.0","method":"m"})", Verdict::kMember, ""},
        {R"([{"jsonrpc":"2.0","method":"m","id":1}])", Verdict::kApart, ""},
        {"[]", Verdict::kApart, ""},
        {"7", Verdict::kRefused, "an object"},
        {R"({"method":"m","id":1})", Verdict::kRefused, "\"2.0\""},
        {R"({"jsonrpc":"1.0","method":"m","id":1})", Verdict::kRefused, "\"2.0\""},
        {R"({"jsonrpc":"2.0","id":1})", Verdict::kRefused, "one method"},
        {R"({"jsonrpc":"2.0","method":7,"id":1})", Verdict::kRefused, "one method"},
        {R"({"jsonrpc":"2.0","method":"m","method":"n","id":1})", Verdict::kRefused, "one method"},
        {R"({"jsonrpc":"2.0","method":"m","id":{}})", Verdict::kRefused, "the id"},
        {R"({"jsonrpc":"2.0","method":"m","id":true})", Verdict::kRefused, "the id"},
        {R"({"jsonrpc":"2.0","method":"m","id":1,"id":2})", Verdict::kRefused, "one id"},
        {R"({"jsonrpc":"2.0","method":"m","id":1,"\u0069d":2})", Verdict::kRefused, "one id"},
    };
    BatchAdmission admission({});
    for (const auto& row : rows) {
        SCOPED_TRACE(row.body);
        const auto decision = admission.decide(kRpc, row.body);
        EXPECT_EQ(decision.verdict, row.verdict);
        EXPECT_THAT(decision.reason, HasSubstr(row.reason));
    }
}

// --- the call ---------------------------------------------------------------------------------------------

TEST(BatchBody, ValuesAreTakenAsTheyWereWritten) {
    EXPECT_EQ(Call(kArray, {R"( {"a": 1.0e2} )", "7", R"("x")"}).body(), R"([{"a": 1.0e2},7,"x"])");
    EXPECT_EQ(Call(kArray, {"1"}).body(), "[1]");
    EXPECT_EQ(Call(kLines, {R"({"a": 1})", "7"}).body(), "{\"a\": 1}\n7\n");
    EXPECT_EQ(Call(kLines, {"{\"a\": 1,\r\n\"b\": \" x \"}"}).body(), "{\"a\":1,\"b\":\" x \"}\n");
}

TEST(BatchBody, JsonRpcIdsAreReplacedWhereTheyStand) {
    const Call call(kRpc, {R"({"jsonrpc":"2.0","method":"m","params":{"id":9},"id": 1 })",
                           R"({"\u0069d":"a\"b","jsonrpc":"2.0","method":"n"})",
                           R"({"jsonrpc":"2.0","method":"o"})", R"({"jsonrpc":"2.0","method":"p","id":1})"});
    EXPECT_EQ(call.body(), R"([{"jsonrpc":"2.0","method":"m","params":{"id":9},"id": 1 },)"
                           R"({"\u0069d":2,"jsonrpc":"2.0","method":"n"},)"
                           R"({"jsonrpc":"2.0","method":"o"},{"jsonrpc":"2.0","method":"p","id":4}])");
}

TEST(BatchBody, ACallIsNoLargerThanItsItemsSay) {
    std::vector<std::string> bodies(200, R"({"jsonrpc":"2.0","method":"m","id":1})");
    const Call call(kRpc, bodies);
    std::uint64_t bytes = 0;
    for (const BatchItem& item : call.items) {
        bytes += item.bytes_in_call().value;
    }
    EXPECT_LE(call.body().size(), bytes);
}

// --- the answer -------------------------------------------------------------------------------------------

TEST(BatchSplitter, ElementIAnswersRequestI) {
    Call call(kArray, {"1", "2", "3"});
    EXPECT_THAT(call.parts(R"( [ {"a": [1, "]"]} , 2.50, "x,\"]" ] )"),
                ElementsAre(R"(200 {"a": [1, "]"]})", "200 2.50", R"(200 "x,\"]")"));
}

TEST(BatchSplitter, AnArrayThatDoesNotFitFailsTheCall) {
    Call call(kArray, {"1", "2"});
    EXPECT_THAT(call.parts("[1]"), ElementsAre(HasSubstr("whole: the batch's answer has 1 elements for 2")));
    EXPECT_THAT(call.parts("[1,2,3]"), ElementsAre(HasSubstr("3 elements for 2")));
    EXPECT_THAT(call.parts("[]"), ElementsAre(HasSubstr("0 elements")));
    EXPECT_THAT(call.parts("{}"), ElementsAre(HasSubstr("not an array")));
    EXPECT_THAT(call.parts("[1,2"), ElementsAre(HasSubstr("not one JSON value")));
    EXPECT_THAT(call.parts("[1,2]]"), ElementsAre(HasSubstr("not one JSON value")));
    EXPECT_THAT(call.parts(""), ElementsAre(HasSubstr("empty")));
    EXPECT_THAT(call.parts("<html>"), ElementsAre(HasSubstr("whole: ")));
    EXPECT_THAT(call.parts("[1,\"\xff\"]"), ElementsAre(HasSubstr("UTF-8")));
    BatchSplitter small({.answer_bytes_max = {8}});
    EXPECT_TRUE(small.split(kArray, false, call.pointers, "[100,20]").ok());
    EXPECT_THAT(small.split(kArray, false, call.pointers, "[100,200]").error(), HasSubstr("too large"));
}

TEST(BatchSplitter, LineIAnswersRequestIAndABadLineIsItsOwn) {
    Call call(kLines, {"1", "2", "3"});
    EXPECT_THAT(call.parts("{\"a\": 1}\r\n2\n 3 \n"), ElementsAre("200 {\"a\": 1}", "200 2", "200 3"));
    EXPECT_THAT(call.parts("1\n2\n3"), ElementsAre("200 1", "200 2", "200 3"));
    EXPECT_THAT(call.parts("1\noops\n3\n"), ElementsAre("200 1", HasSubstr("error: its line"), "200 3"));
    EXPECT_THAT(call.parts("\n2\n3\n"), ElementsAre(HasSubstr("it is empty"), "200 2", "200 3"));
    EXPECT_THAT(call.parts("1 2\n2\n3\n"), ElementsAre(HasSubstr("error: "), "200 2", "200 3"));
    EXPECT_THAT(call.parts("1\n2\n"), ElementsAre(HasSubstr("whole: the batch's answer has 2 lines for 3")));
    EXPECT_THAT(call.parts("1\n2\n3\n\n"), ElementsAre(HasSubstr("4 lines")));
    EXPECT_THAT(call.parts(""), ElementsAre(HasSubstr("0 lines")));
}

TEST(BatchSplitter, AnEnvelopeHasStatusHeadersAndBody) {
    Call call(kArray, {"1", "2", "3"});
    const auto result = call.split(R"([{"status":201,"headers":{"Location":"/7","Set-Cookie":["a=1","b=2"],
        "Content-Length":"9","connection":"X"},"body":{"id": 7}},{"status":404},{"body":null,"status":409}])",
                                   true);
    ASSERT_TRUE(result) << result.error();
    EXPECT_EQ(result->parts[0].status, 201);
    EXPECT_EQ(result->parts[0].joined(), R"({"id": 7})");
    EXPECT_THAT(result->parts[0].fields,
                ElementsAre(Pair("Location", "/7"), Pair("Set-Cookie", "a=1"), Pair("Set-Cookie", "b=2")));
    EXPECT_EQ(result->parts[1].status, 404);
    EXPECT_EQ(result->parts[1].joined(), "");
    EXPECT_EQ(result->parts[2].joined(), "null");
}

TEST(BatchSplitter, ABadEnvelopeIsItsMembersOwn) {
    for (const char* bad :
         {"7", "{}", R"({"status":"200"})", R"({"status":100})", R"({"status":600})", R"({"status":200.5})",
          R"({"status":200,"status":500})", R"({"status":200,"body":1,"body":2})",
          R"({"status":200,"headers":[]})", R"({"status":200,"headers":{"a b":"c"}})",
          R"({"status":200,"headers":{"":"c"}})", R"({"status":200,"headers":{"a":"b\r\nc: d"}})",
          R"({"status":200,"headers":{"a":1}})", R"({"status":200,"headers":{"a":[["b"]]}})"}) {
        SCOPED_TRACE(bad);
        Call call(kArray, {"1", "2"});
        EXPECT_THAT(call.parts("[" + std::string(bad) + R"(,{"status":200}])", true),
                    ElementsAre(HasSubstr("error: its part of the batch's answer"), "200 "));
        Call lines(kLines, {"1"});
        EXPECT_THAT(lines.parts(bad, true), ElementsAre(HasSubstr("error: ")));
    }
}

TEST(BatchSplitter, JsonRpcResponsesAreMatchedByIdInAnyOrderAndIdsPutBack) {
    Call call(kRpc, {R"({"jsonrpc":"2.0","method":"m","id":"same"})",
                     R"({"jsonrpc":"2.0","method":"m","id":"same"})", R"({"jsonrpc":"2.0","method":"note"})",
                     R"({"jsonrpc":"2.0","method":"m","id":null})"});
    EXPECT_THAT(
        call.parts(R"([{"jsonrpc":"2.0","id":4,"result":{"id":1}},{"id": 2 ,"error":{"code":-1}},)"
                   R"({"result":1.0,"\u0069d":1}])"),
        ElementsAre(R"(200 {"result":1.0,"\u0069d":"same"})", R"(200 {"id": "same" ,"error":{"code":-1}})",
                    "204 ", R"(200 {"jsonrpc":"2.0","id":null,"result":{"id":1}})"));
}

TEST(BatchSplitter, JsonRpcResponsesThatCannotBeMatchedAreNobodys) {
    Call call(kRpc, {R"({"jsonrpc":"2.0","method":"m","id":7})", R"({"jsonrpc":"2.0","method":"m","id":8})",
                     R"({"jsonrpc":"2.0","method":"note"})"});
    const char* const missing = "error: the batch's answer holds no response with its id";
    EXPECT_THAT(call.parts(R"([{"id":1,"result":1}])"),
                ElementsAre(R"(200 {"id":7,"result":1})", missing, "204 "));
    EXPECT_THAT(call.parts(R"([{"id":1,"result":1},{"id":1,"result":2},{"id":2,"result":3}])"),
                ElementsAre(HasSubstr("more than one"), R"(200 {"id":8,"result":3})", "204 "));
    for (const char* stray :
         {R"({"id":0})", R"({"id":3})", R"({"id":4})", R"({"id":"1"})", R"({"id":null})", R"({"id":1.0})",
          R"({"id":-1})", R"({})", "1", R"({"id":1,"id":2})", R"({"id":18446744073709551615})"}) {
        SCOPED_TRACE(stray);
        const auto result = call.split("[" + std::string(stray) + R"(,{"id":2,"result":3}])");
        ASSERT_TRUE(result);
        EXPECT_EQ(result->strays, 1u);
        EXPECT_FALSE(result->parts[0].error.empty());
        EXPECT_EQ(result->parts[1].joined(), R"({"id":8,"result":3})");
    }
    EXPECT_THAT(call.parts(R"({"jsonrpc":"2.0","error":{"code":-32700},"id":null})"),
                ElementsAre(HasSubstr("whole: ")));
    EXPECT_THAT(call.parts(""), ElementsAre(HasSubstr("whole: ")));
}

TEST(BatchSplitter, NotificationsAloneNeedNoAnswer) {
    Call call(kRpc, {R"({"jsonrpc":"2.0","method":"a"})", R"({"jsonrpc":"2.0","method":"b"})"});
    EXPECT_THAT(call.parts(""), ElementsAre("204 ", "204 "));
    EXPECT_THAT(call.parts("[]"), ElementsAre("204 ", "204 "));
    EXPECT_THAT(call.parts("oops"), ElementsAre(HasSubstr("whole: ")));
}

// A value of every kind, with whitespace and strings that look like structure.
std::string random_value(Random& random, int depth) {
    const std::string space(random.below(3), ' ');
    switch (random.below(depth > 4 ? 5 : 7)) {
        case 0:
            return "null";
        case 1:
            return random.below(2) == 0 ? "true" : "false";
        case 2:
            return std::to_string(random.next());
        case 3:
            return "-1.50e+3";
        case 4: {
            constexpr std::string_view kPieces[] = {"\\\"", "\\\\",    "]",        "}", ",",
                                                    ":",    "\\u005d", "\xc3\xa9", "a"};
            std::string text = "\"";
            for (std::uint64_t i = random.below(6); i > 0; --i) {
                text += kPieces[random.below(std::size(kPieces))];
            }
            return text + '"';
        }
        default: {
            const bool object = random.below(2) == 0;
            std::string text = object ? "{" : "[";
            for (std::uint64_t i = random.below(4), n = i; i > 0; --i) {
                if (i < n) text += ",";
                text += space;
                if (object) text += "\"k]\" :";
                text += random_value(random, depth + 1) + space;
            }
            return text + (object ? "}" : "]");
        }
    }
}

TEST(BatchSplitter, WhatIsPutTogetherComesApartAsItWas) {
    Random random{11};
    for (int round = 0; round < 2'000; ++round) {
        std::vector<std::string> values;
        for (std::uint64_t i = 1 + random.below(8); i > 0; --i) {
            values.push_back(random_value(random, 0));
        }
        for (const BatchFormat format : {kArray, kLines}) {
            Call call(format, values);
            const std::string body = call.body();
            const auto result = call.split(body);  // an application that echoes
            ASSERT_TRUE(result) << body << ": " << result.error();
            for (std::size_t i = 0; i < values.size(); ++i) {
                ASSERT_EQ(result->parts[i].joined(), values[i]);
            }
        }
    }
}

}  // namespace
}  // namespace outrider::policy
