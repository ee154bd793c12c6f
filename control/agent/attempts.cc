#include "control/agent/attempts.h"

#include <algorithm>
#include <iterator>

#include "control/api/errors.h"

namespace outrider::agent {
namespace {

bool is_code(const AttemptEnd& end, api::Code code) {
    return end.code == static_cast<int>(code);
}

bool is_text(const AttemptEnd& end, std::string_view text) {
    return end.text == text;
}

// Refused by a member that is not able to serve, before anything was proposed.
bool refused_unserved(const AttemptEnd& end) {
    // etcd raises them before it proposes; "unhealthy cluster" of a change of members.
    static constexpr std::string_view kTexts[] = {
        api::kNoLeader.text,      api::kTooManyRequests.text,
        api::kUnhealthy.text,     "etcdserver: rpc not supported for learner",
        "etcdserver: not leader", "etcdserver: not capable",
    };
    return std::any_of(std::begin(kTexts), std::end(kTexts),
                       [&](std::string_view text) { return is_text(end, text); });
}

bool is_refusal(const AttemptEnd& end, store::Status status) {
    return is_text(end, api::problem_of(status).text);
}

// A refusal that is no reason to go elsewhere.
Verdict judge_refused_in_session(const AttemptEnd& end, bool unsettled) {
    if (is_refusal(end, store::Status::kSessionAnswerGone)) return Verdict::kUnknown;
    // The last two: somebody else uses the session.
    const bool lost = is_refusal(end, store::Status::kSessionUnknown) ||
                      is_refusal(end, store::Status::kSessionStale) || is_text(end, api::kAnotherCall.text);
    if (lost) return unsettled ? Verdict::kUnknown : Verdict::kAnotherSession;
    const bool by_the_way = is_refusal(end, store::Status::kNoSpace) || end.code == 0;
    return unsettled && by_the_way ? Verdict::kUnknown : Verdict::kDeliver;
}

// The member, or something in front of it, could not say.
bool uncertain(const AttemptEnd& end) {
    if (is_code(end, api::Code::kUnavailable) || is_code(end, api::Code::kDeadlineExceeded)) return true;
    // Not the API's words: a proxy's, or another server's, of which 501 says that it does not know the method (RFC 9110
    // section 15.6.2).
    return end.code == 0 && end.http_status >= 500 && end.http_status != 501;
}

}  // namespace

bool without_effect(const AttemptEnd& end) {
    switch (end.kind) {
        case AttemptEnd::Kind::kNotSent:
            return true;
        case AttemptEnd::Kind::kAnswered:
            return end.http_status != 200 && (refused_unserved(end) || !uncertain(end));
        case AttemptEnd::Kind::kLost:
        case AttemptEnd::Kind::kGarbled:
        case AttemptEnd::Kind::kSilent:
            return false;
    }
    return false;
}

Verdict judge(const AttemptEnd& end, Effect effect, bool unsettled) {
    const Verdict uncertain_verdict = effect == Effect::kOnce ? Verdict::kUnknown : Verdict::kElsewhere;
    switch (end.kind) {
        case AttemptEnd::Kind::kNotSent:
            return Verdict::kElsewhere;
        case AttemptEnd::Kind::kLost:
        case AttemptEnd::Kind::kGarbled:
        case AttemptEnd::Kind::kSilent:
            return uncertain_verdict;
        case AttemptEnd::Kind::kAnswered:
            break;
    }
    if (end.http_status == 200) return Verdict::kDeliver;
    if (refused_unserved(end)) return Verdict::kElsewhere;
    if (uncertain(end)) return uncertain_verdict;
    return effect == Effect::kSession ? judge_refused_in_session(end, unsettled) : Verdict::kDeliver;
}

bool endpoint_at_fault(const AttemptEnd& end) {
    if (end.kind != AttemptEnd::Kind::kAnswered) return true;
    return end.http_status != 200 && (refused_unserved(end) || uncertain(end));
}

}  // namespace outrider::agent
