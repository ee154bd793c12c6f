#include "control/node/known_logs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/node/frame.h"
#include "control/node/wire.h"

namespace outrider::node {
namespace {

using Verdict = KnownLogs::Verdict;

KnownLogs known() {
    KnownLogs out;
    out.remember({1}, 11);
    out.remember({2}, 22);
    return out;
}

std::string wrong(const std::string& bytes) {
    const auto parsed = parse_known_logs(bytes);
    return parsed ? "" : parsed.error();
}

TEST(KnownLogs, TellAMemberThatLostItsLogFromTheOneThatWasMet) {
    const KnownLogs logs = known();
    EXPECT_EQ(logs.judge({1}, 11), Verdict::kKnown);
    EXPECT_EQ(logs.judge({1}, 22), Verdict::kAnother);
    EXPECT_EQ(logs.judge({3}, 11), Verdict::kNew);
    EXPECT_EQ(logs.of({2}), 22U);
    EXPECT_EQ(logs.of({3}), 0U);
}

TEST(KnownLogs, AVersionThatDoesNotTellIsTakenAsEver) {
    EXPECT_EQ(known().judge({1}, 0), Verdict::kUntold);
    EXPECT_EQ(known().judge({3}, 0), Verdict::kUntold);
}

TEST(KnownLogs, WhatAMemberKnowsIsWhatItSaidLast) {
    KnownLogs logs = known();
    EXPECT_EQ(logs.knowledge_of({1}), 0U);
    EXPECT_TRUE(logs.learn({1}, 5));
    EXPECT_FALSE(logs.learn({1}, 5));
    EXPECT_EQ(logs.knowledge_of({1}), 5U);
    const auto parsed = parse_known_logs(encode(logs));
    ASSERT_TRUE(parsed) << parsed.error();
    EXPECT_EQ(*parsed, logs);
    EXPECT_TRUE(logs.learn({1}, 0));
    EXPECT_EQ(logs, known());
    EXPECT_FALSE(logs.learn({3}, 5)) << "it was not met";
    EXPECT_EQ(logs.knowledge_of({3}), 0U);
}

TEST(KnownLogs, OnlyMembersAreRemembered) {
    KnownLogs logs = known();
    const raft::Configuration both{{{{1}, true, "a"}, {{2}, false, "b"}, {{3}, true, "c"}}};
    EXPECT_FALSE(logs.forget_others(both));
    EXPECT_EQ(logs, known());
    const raft::Configuration one{{{{2}, true, "b"}, {{3}, true, "c"}}};
    EXPECT_TRUE(logs.forget_others(one));
    EXPECT_EQ(logs.judge({1}, 12), Verdict::kNew);
    EXPECT_EQ(logs.judge({2}, 22), Verdict::kKnown);
}

TEST(KnownLogs, ComeBackFromTheFileAsTheyWere) {
    for (const KnownLogs& logs : {KnownLogs(), known()}) {
        const auto parsed = parse_known_logs(encode(logs));
        ASSERT_TRUE(parsed) << parsed.error();
        EXPECT_EQ(*parsed, logs);
    }
}

TEST(KnownLogs, AFileThatIsDamagedIsNoFile) {
    const std::string whole = encode(known());
    for (std::size_t size = 0; size < whole.size(); ++size)
        EXPECT_THAT(wrong(whole.substr(0, size)), testing::HasSubstr("its length or its check")) << size;
    EXPECT_THAT(wrong(whole + "x"), testing::HasSubstr("its length or its check"));
    for (std::size_t at = 0; at < whole.size(); ++at) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ 4);
        EXPECT_NE(wrong(damaged), "") << at;
    }
}

TEST(KnownLogs, ANewerFilesFormatIsSaid) {
    proto::KnownLogs file;
    file.set_format(kKnownLogsFormat + 1);
    std::string bytes;
    append_frame(file.SerializeAsString(), bytes);
    EXPECT_THAT(wrong(bytes), testing::HasSubstr("start it with the newer outrider"));
}

TEST(KnownLogs, AFileThatNamesOneTwiceOrWithoutALogIsWrong) {
    proto::KnownLogs file;
    file.set_format(kKnownLogsFormat);
    file.add_logs()->set_node_id(1);
    std::string bytes;
    append_frame(file.SerializeAsString(), bytes);
    EXPECT_NE(wrong(bytes), "");
    file.mutable_logs(0)->set_log_id(11);
    *file.add_logs() = file.logs(0);
    bytes.clear();
    append_frame(file.SerializeAsString(), bytes);
    EXPECT_NE(wrong(bytes), "");
}

}  // namespace
}  // namespace outrider::node
