// What becomes of a call whose attempt at one endpoint has ended: delivered, tried elsewhere, or of unknown outcome. Pure.
//
// A write may not be sent again when the first copy may have taken effect, or may still: a delayed copy would undo what
// others wrote since. So it goes elsewhere only when it is certain that nothing happened (never sent; refused before it was
// proposed), and is reported as unknown otherwise. The caller knows more: it reads, or it made the write such that its repetition
// is harmless (Effect::kRepeatable: a lease with an id of its own, a revocation), or the cluster knows a repetition when it
// sees one (Effect::kSession). What is still open then is what the refusal of a repetition says of the copies before it: a refusal that
// applied commands get is theirs too, one that was made without looking at the session is not.
//
// Source of the texts: etcd's api/v3rpc/rpctypes/error.go; where a refusal is raised (before or after the proposal):
// etcdserver/v3_server.go of release 3.4.
#pragma once

#include <cstdint>
#include <string_view>

namespace outrider::agent {

enum class Effect : std::uint8_t {
    kRead,        // changes nothing
    kRepeatable,  // twice is as good as once
    kOnce,
    kSession,  // in a client session: takes effect once, however often it is sent
};

struct AttemptEnd {
    enum class Kind : std::uint8_t {
        kAnswered,  // a status and a text
        kNotSent,   // no byte left, or the endpoint is bound not to act on it (RFC 9112 section 9.6)
        kLost,      // sent, and the connection ended without an answer
        kGarbled,   // an answer that is none
        kSilent,    // no answer for so long that another endpoint is tried
    };
    Kind kind = Kind::kAnswered;
    int http_status = 200;
    int code = 0;  // gRPC's
    std::string_view text =
        {};  // of the refusal: what names it (`error`), not what else its message tells people
};

enum class Verdict : std::uint8_t {
    kDeliver,         // the caller gets the answer, be it a refusal
    kElsewhere,       // tried again, at another endpoint first
    kUnknown,         // the caller hears that it may have taken effect
    kAnotherSession,  // nothing took effect, and nothing will in this session
};
// `unsettled`: an attempt before this one may have taken effect. It matters to kSession only.
Verdict judge(const AttemptEnd& end, Effect effect, bool unsettled = false);

// It says something about the endpoint, which rests for a while.
bool endpoint_at_fault(const AttemptEnd& end);

// Nothing was changed by this attempt, for certain.
bool without_effect(const AttemptEnd& end);

}  // namespace outrider::agent
