#include "control/agent/attempts.h"

#include <string>

#include <gtest/gtest.h>

#include "control/agent/wire.h"
#include "control/api/errors.h"

namespace outrider::agent {
namespace {

struct Row {
    AttemptEnd end;
    Verdict once;
    Verdict otherwise;
    bool at_fault;
    bool without_effect;
};

AttemptEnd answered(int status, int code, std::string_view text) {
    return {.kind = AttemptEnd::Kind::kAnswered, .http_status = status, .code = code, .text = text};
}

TEST(Attempts, ATableOfEveryEnd) {
    using enum Verdict;
    const Row rows[] = {
        {answered(200, 0, ""), kDeliver, kDeliver, false, false},
        {answered(400, 3, "etcdserver: key is not provided"), kDeliver, kDeliver, false, true},
        {answered(404, 5, "etcdserver: requested lease not found"), kDeliver, kDeliver, false, true},
        {answered(412, 9, "etcdserver: lease already exists"), kDeliver, kDeliver, false, true},
        {answered(400, 11, "etcdserver: mvcc: required revision has been compacted"), kDeliver, kDeliver,
         false, true},
        {answered(429, 8, "etcdserver: mvcc: database space exceeded"), kDeliver, kDeliver, false, true},
        {answered(429, 8, "etcdserver: too many requests"), kElsewhere, kElsewhere, true, true},
        {answered(503, 14, "etcdserver: no leader"), kElsewhere, kElsewhere, true, true},
        {answered(503, 14, "etcdserver: unhealthy cluster"), kElsewhere, kElsewhere, true, true},
        {answered(503, 14, "etcdserver: leader changed"), kUnknown, kElsewhere, true, false},
        {answered(503, 14, "etcdserver: request timed out"), kUnknown, kElsewhere, true, false},
        {answered(503, 14, "etcdserver: request timed out, possibly due to previous leader failure"),
         kUnknown, kElsewhere, true, false},
        {answered(503, 14, "etcdserver: server stopped"), kUnknown, kElsewhere, true, false},
        {answered(503, 14, "transport is closing"), kUnknown, kElsewhere, true, false},
        {answered(504, 4, "context deadline exceeded"), kUnknown, kElsewhere, true, false},
        {answered(500, 2, "json: cannot unmarshal"), kDeliver, kDeliver, false, true},
        {answered(502, 0, "a proxy's page"), kUnknown, kElsewhere, true, false},
        {answered(501, 0, "Unsupported method ('POST')"), kDeliver, kDeliver, false, true},
        {answered(404, 0, "Not Found"), kDeliver, kDeliver, false, true},
        {{.kind = AttemptEnd::Kind::kNotSent}, kElsewhere, kElsewhere, true, true},
        {{.kind = AttemptEnd::Kind::kLost}, kUnknown, kElsewhere, true, false},
        {{.kind = AttemptEnd::Kind::kGarbled}, kUnknown, kElsewhere, true, false},
        {{.kind = AttemptEnd::Kind::kSilent}, kUnknown, kElsewhere, true, false},
    };
    for (const Row& row : rows) {
        SCOPED_TRACE(std::string(row.end.text) + " " + std::to_string(static_cast<int>(row.end.kind)));
        EXPECT_EQ(judge(row.end, Effect::kOnce), row.once);
        EXPECT_EQ(judge(row.end, Effect::kRepeatable), row.otherwise);
        EXPECT_EQ(judge(row.end, Effect::kRead), row.otherwise);
        EXPECT_EQ(endpoint_at_fault(row.end), row.at_fault);
        EXPECT_EQ(without_effect(row.end), row.without_effect);
        // A write goes elsewhere only when it is certain that nothing happened.
        if (judge(row.end, Effect::kOnce) == kElsewhere) {
            EXPECT_TRUE(without_effect(row.end));
        }
    }
}

TEST(Attempts, ATableOfEveryEndInASession) {
    using enum Verdict;
    struct InSession {
        AttemptEnd end;
        Verdict settled;
        Verdict unsettled;  // an attempt before may have taken effect
    };
    const InSession rows[] = {
        {answered(200, 0, ""), kDeliver, kDeliver},
        {answered(404, 5, "etcdserver: requested lease not found"), kDeliver, kDeliver},
        {answered(400, 3, "etcdserver: key is not provided"), kDeliver, kDeliver},
        {answered(503, 14, "etcdserver: no leader"), kElsewhere, kElsewhere},
        {answered(429, 8, "etcdserver: too many requests"), kElsewhere, kElsewhere},
        {answered(503, 14, "etcdserver: leader changed"), kElsewhere, kElsewhere},
        {answered(502, 0, "a proxy's page"), kElsewhere, kElsewhere},
        {answered(404, 5,
                  "the session is not open, or was idle for too long: the command took no effect now"),
         kAnotherSession, kUnknown},
        {answered(412, 9, "a later command of the session has been applied: this one took no effect now"),
         kAnotherSession, kUnknown},
        {answered(412, 9,
                  "the session's command with this sequence was another call: this one took no effect now"),
         kAnotherSession, kUnknown},
        {answered(412, 9,
                  "the command took effect when it was first sent; its answer was too large to be kept"),
         kUnknown, kUnknown},
        {answered(429, 8, "etcdserver: mvcc: database space exceeded"), kDeliver, kUnknown},
        {answered(404, 0, "Not Found"), kDeliver, kUnknown},
        {{.kind = AttemptEnd::Kind::kNotSent}, kElsewhere, kElsewhere},
        {{.kind = AttemptEnd::Kind::kLost}, kElsewhere, kElsewhere},
        {{.kind = AttemptEnd::Kind::kGarbled}, kElsewhere, kElsewhere},
        {{.kind = AttemptEnd::Kind::kSilent}, kElsewhere, kElsewhere},
    };
    for (const InSession& row : rows) {
        SCOPED_TRACE(std::string(row.end.text) + " " + std::to_string(static_cast<int>(row.end.kind)));
        EXPECT_EQ(judge(row.end, Effect::kSession, false), row.settled);
        EXPECT_EQ(judge(row.end, Effect::kSession, true), row.unsettled);
        EXPECT_NE(judge(row.end, Effect::kRepeatable, true), kAnotherSession);
    }
}

// A member's message may go on behind the text that is judged.
TEST(Attempts, AFullStoresRefusalIsJudgedByItsErrorAndNotByItsMessage) {
    const api::Answer answer = api::refuse_without_space(Bytes{1 << 20});
    const v3::Refusal refusal = refusal_from(answer.status, answer.body);
    EXPECT_NE(refusal.error(), refusal.message());
    const AttemptEnd end = end_of_refused(answer.status, refusal);
    EXPECT_EQ(judge(end, Effect::kSession, true), Verdict::kUnknown) << "a copy before it may be on its way";
    EXPECT_EQ(judge(end, Effect::kSession, false), Verdict::kDeliver);
}

}  // namespace
}  // namespace outrider::agent
