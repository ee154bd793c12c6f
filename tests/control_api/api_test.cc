#include <gtest/gtest.h>

#include "control/api/command.h"
#include "control/api/requests.h"
#include "control/api/responses.h"

namespace outrider::api {
namespace {

Answer refusal(Call call, std::string_view body) {
    auto parsed = parse_request(call, body);
    const auto* answer = std::get_if<Answer>(&parsed);
    return answer == nullptr ? Answer{} : std::move(*std::get_if<Answer>(&parsed));
}

TEST(Requests, AMisspelledEnumIsRefused) {
    EXPECT_EQ(refusal(Call::kTxn, R"({"compare":[{"key":"YQ==","result":"EQUALS"}]})").status, 400);
    EXPECT_EQ(refusal(Call::kTxn, R"({"compare":[{"key":"YQ==","result":"LESS","unknown":1}]})").status, 200);
}

TEST(Requests, DepthAndSizeAreBoundedBeforeParsing) {
    std::string deep;
    for (std::size_t i = 0; i < kJsonDepthMax + 1; ++i)
        deep += "{\"a\":";
    EXPECT_NE(refusal(Call::kPut, deep).body.find("nested too deep"), std::string::npos);
    const std::string arrays = "{\"a\":" + std::string(100'000, '[');
    EXPECT_NE(refusal(Call::kPut, arrays).body.find("nested too deep"), std::string::npos);
    const std::string large(kBodyBytesMax + 1, ' ');
    EXPECT_NE(refusal(Call::kPut, large).body.find("larger than"), std::string::npos);
}

TEST(Requests, DepthInsideOfStringsDoesNotCount) {
    const std::string body = R"({"key":"YQ==","x":")" + std::string(1000, '[') + R"(\"{"})";
    EXPECT_EQ(refusal(Call::kPut, body).status, 200);
}

TEST(Requests, ARefusalQuotesWithoutBreakingTheJson) {
    const Answer answer = refuse(Code::kInvalidArgument, "a \"quoted\"\n\xff text");
    EXPECT_EQ(answer.body, R"({"error":"a \"quoted\"\u000a\ufffd text",)"
                           R"("message":"a \"quoted\"\u000a\ufffd text","code":3})");
}

TEST(Errors, StatusesAreThoseOfEtcdsGateway) {
    EXPECT_EQ(refuse(store::Status::kNoSpace).status, 429);
    EXPECT_EQ(refuse(store::Status::kNoSpace).body,
              R"({"error":"etcdserver: mvcc: database space exceeded",)"
              R"("message":"etcdserver: mvcc: database space exceeded","code":8})");
    EXPECT_EQ(refuse_without_space(Bytes{2 << 20}).status, 429);
    EXPECT_EQ(refuse_without_space(Bytes{2 << 20}).body,
              R"({"error":"etcdserver: mvcc: database space exceeded",)"
              R"("message":"etcdserver: mvcc: database space exceeded: control.max_store is 2MiB. )"
              R"(Delete keys, then compact: old revisions count too","code":8})");
    EXPECT_EQ(refuse(kNoLeader).status, 503);
    EXPECT_EQ(refuse(Code::kUnknown, "x").status, 500);
    for (int i = 1; i <= static_cast<int>(store::Status::kSessionAnswerGone); ++i)
        EXPECT_GE(refuse(static_cast<store::Status>(i)).status, 400);
}

TEST(MessageSplitter, CutsMessagesFromPiecesOfAnySize) {
    const std::string body = " {\"a\":\"}\\\"{\"}\n{\"b\":[{}]} {\"c\":1";
    MessageSplitter splitter;
    std::vector<std::string> messages;
    for (const char c : body) {
        splitter.add(std::string_view(&c, 1));
        const auto next = splitter.next();
        ASSERT_TRUE(next.ok());
        if (*next) messages.push_back(**next);
    }
    ASSERT_EQ(messages.size(), 2U);
    EXPECT_EQ(messages[0], " {\"a\":\"}\\\"{\"}");
    EXPECT_EQ(messages[1], "\n{\"b\":[{}]}");
    EXPECT_GT(splitter.pending(), 0U);
    splitter.add("}");
    EXPECT_TRUE((*splitter.next()).has_value());
    EXPECT_EQ(splitter.pending(), 0U);
}

TEST(MessageSplitter, RefusesWhatIsNoObjectAndWhatNeverEnds) {
    MessageSplitter scalar;
    scalar.add("7");
    EXPECT_FALSE(scalar.next().ok());
    EXPECT_FALSE(scalar.next().ok());
    MessageSplitter endless;
    const std::string piece(1 << 20, 'x');
    endless.add("{\"");
    bool refused = false;
    for (int i = 0; i < 6 && !refused; ++i) {
        endless.add(piece);
        refused = !endless.next().ok();
    }
    EXPECT_TRUE(refused);
}

store::Command round_trip(const store::Command& command) {
    const auto decoded = decode_command(encode_command(command));
    EXPECT_TRUE(decoded.ok());
    EXPECT_EQ(encode_command(*decoded), encode_command(command));
    return *decoded;
}

TEST(Commands, ComeBackFromTheirBytes) {
    store::Command command;
    command.session = {3};
    command.sequence = 4;
    command.unix_millis = 5;
    store::PutRequest put;
    put.key = std::string("\0\xff", 2);
    put.value = "v";
    put.lease = {-7};
    put.prev_kv = put.ignore_lease = true;
    command.request = put;
    const store::Command back = round_trip(command);
    EXPECT_EQ(back.session.value, 3U);
    EXPECT_EQ(back.sequence, 4U);
    EXPECT_EQ(back.unix_millis, 5);
    EXPECT_EQ(std::get<store::PutRequest>(back.request).lease.value, -7);
    EXPECT_EQ(std::get<store::PutRequest>(back.request).key, put.key);

    store::TxnRequest txn;
    store::Compare compare;
    compare.range = {"a", "b"};
    compare.target = store::Compare::Target::kLease;
    compare.result = store::Compare::Result::kNotEqual;
    compare.number = 9;
    txn.compare = {compare};
    store::TxnRequest inner;
    inner.failure.emplace_back().request = put;
    txn.success.emplace_back().request = inner;
    txn.success.emplace_back().request = store::DeleteRequest{{"x", "y"}, true};
    txn.failure.emplace_back().request = store::RangeRequest{};
    command.request = txn;
    const store::Command txn_back = round_trip(command);
    const auto& got = std::get<store::TxnRequest>(txn_back.request);
    EXPECT_EQ(got.compare.at(0).number, 9);
    EXPECT_EQ(got.success.size(), 2U);
    EXPECT_TRUE(std::holds_alternative<store::RangeRequest>(got.failure.at(0).request));

    command.request = store::CompactRequest{{8}};
    EXPECT_EQ(std::get<store::CompactRequest>(round_trip(command).request).revision.value, 8);
    command.request = store::LeaseGrantRequest{{1}, 60};
    EXPECT_EQ(std::get<store::LeaseGrantRequest>(round_trip(command).request).ttl_seconds, 60);
    command.request = store::LeaseRevokeRequest{{1}, true, 9};
    EXPECT_TRUE(std::get<store::LeaseRevokeRequest>(round_trip(command).request).expired);
    EXPECT_EQ(std::get<store::LeaseRevokeRequest>(round_trip(command).request).granted, 9U);
    command.request = store::LeaseRevokeRequest{{1}, false};
    EXPECT_FALSE(std::get<store::LeaseRevokeRequest>(round_trip(command).request).expired);
    command.request = store::SessionOpenRequest{};
    round_trip(command);
    command.request = store::SessionCloseRequest{{6}};
    EXPECT_EQ(std::get<store::SessionCloseRequest>(round_trip(command).request).id.value, 6U);
}

TEST(Commands, BytesThatAreNoneAreRefused) {
    EXPECT_FALSE(decode_command("\xff\xff").ok());
    EXPECT_FALSE(decode_command("").ok()) << "of no kind";
}

}  // namespace
}  // namespace outrider::api
