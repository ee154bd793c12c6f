// What the two header fields of a client session say, and what a repeated answer looks like.
#include "control/api/session.h"

#include <array>
#include <vector>

#include <gtest/gtest.h>

#include "control/api/responses.h"

namespace outrider::api {
namespace {

constexpr std::uint64_t kCluster = 0xfeed'0000'0001;

using Texts = std::vector<std::string_view>;

std::string refusal(Call call, const Texts& sessions, const Texts& sequences) {
    const auto use = session_use(call, sessions, sequences, kCluster);
    const auto* answer = std::get_if<Answer>(&use);
    return answer == nullptr ? "" : std::to_string(answer->status) + answer->body;
}

TEST(Session, ItsNameIsReadBackInItsClusterAndIsAnotherInEveryOther) {
    for (const std::uint64_t id : {std::uint64_t{1}, std::uint64_t{4711}, std::uint64_t{1} << 62}) {
        const std::uint64_t name = session_name({id}, kCluster);
        EXPECT_LT(name, std::uint64_t{1} << 63);
        EXPECT_EQ(session_named(name, kCluster).value, id);
        EXPECT_NE(session_named(name, kCluster + 1).value, id);
    }
}

TEST(Session, BothFieldsMakeOneUseAndNoneMakesNone) {
    const std::string name = std::to_string(session_name({7}, kCluster));
    const Texts sessions{name};
    const Texts sequences{"12"};
    for (const Call call : {Call::kPut, Call::kDeleteRange, Call::kTxn, Call::kCompaction, Call::kLeaseGrant,
                            Call::kLeaseRevoke}) {
        const auto use = session_use(call, sessions, sequences, kCluster);
        ASSERT_TRUE(std::holds_alternative<SessionUse>(use));
        EXPECT_EQ(std::get<SessionUse>(use).session.value, 7U);
        EXPECT_EQ(std::get<SessionUse>(use).sequence, 12U);
    }
    const auto none = session_use(Call::kRange, {}, {}, kCluster);
    ASSERT_TRUE(std::holds_alternative<SessionUse>(none));
    EXPECT_EQ(std::get<SessionUse>(none).session.value, 0U);
}

TEST(Session, WhatIsNotUnderstoodIsRefusedAndNeverPassedOver) {
    const Texts one{"1"};
    EXPECT_NE(refusal(Call::kPut, one, {}).find("go together"), std::string::npos);
    EXPECT_NE(refusal(Call::kPut, {}, one).find("go together"), std::string::npos);
    EXPECT_NE(refusal(Call::kPut, {"1", "1"}, one).find("each once"), std::string::npos);
    EXPECT_NE(refusal(Call::kPut, one, {"1", "2"}).find("each once"), std::string::npos);
    for (const std::string_view wrong :
         {"", "-1", "+1", "1 ", "0x1", "1.0", "one", "9223372036854775808", "1,1"}) {
        EXPECT_EQ(refusal(Call::kPut, {wrong}, one).substr(0, 13), "400{\"error\":\"") << wrong;
        EXPECT_EQ(refusal(Call::kPut, one, {wrong}).substr(0, 13), "400{\"error\":\"") << wrong;
    }
    EXPECT_NE(refusal(Call::kPut, one, {"0"}).find("from 1 on"), std::string::npos);
    for (const Call call : {Call::kRange, Call::kWatch, Call::kLeaseKeepAlive, Call::kMemberAdd,
                            Call::kSnapshot, Call::kSessionOpen, Call::kSessionClose})
        EXPECT_NE(refusal(call, one, one).find("are for put"), std::string::npos);
}

// The store takes a command of session 0 for one that has none, which would take effect with each repeat.
TEST(Session, ANameThatStandsForNoSessionIsOneThatIsNotOpen) {
    const std::string name = std::to_string(session_name({0}, kCluster));
    EXPECT_EQ(refusal(Call::kPut, {name}, {"1"}).substr(0, 3), "404");
}

// A sequence that was used for a put, repeated as another call: not an answer that looks as if that had been done.
TEST(Session, ARememberedAnswerOfAnotherCallIsRefused) {
    const Responder responder({kCluster, 2, 3});
    store::Response put;
    put.body = store::PutResponse{};
    store::Response grant;
    grant.body = store::LeaseGrantResponse{{5}, 60};
    EXPECT_EQ(responder.command(Call::kPut, put).status, 200);
    EXPECT_EQ(responder.command(Call::kLeaseGrant, grant).status, 200);
    EXPECT_EQ(responder.command(Call::kLeaseRevoke, store::Response{}).status, 200);
    for (const Call call :
         {Call::kDeleteRange, Call::kTxn, Call::kCompaction, Call::kLeaseGrant, Call::kLeaseRevoke})
        EXPECT_EQ(responder.command(call, put).status, 412);
    EXPECT_EQ(responder.command(Call::kPut, store::Response{}).status, 412);
    EXPECT_EQ(responder.command(Call::kPut, grant).status, 412);
}

TEST(Session, OpeningAnswersTheNameAsAString) {
    store::Response opened;
    opened.session = {9};
    const Answer answer = Responder({kCluster, 2, 3}).command(Call::kSessionOpen, opened);
    EXPECT_NE(answer.body.find("\"session\":\"" + std::to_string(session_name({9}, kCluster)) + "\""),
              std::string::npos)
        << answer.body;
}

}  // namespace
}  // namespace outrider::api
