#include "control/api/session.h"

#include "base/bytes.h"
#include "base/random.h"

namespace outrider::api {
namespace {

constexpr std::uint64_t kNameMask = ~std::uint64_t{0} >> 1;

Answer wrong(std::string_view text) {
    return refuse(Code::kInvalidArgument, text);
}

}  // namespace

bool takes_session(Call call) {
    switch (call) {
        case Call::kPut:
        case Call::kDeleteRange:
        case Call::kTxn:
        case Call::kCompaction:
        case Call::kLeaseGrant:
        case Call::kLeaseRevoke:
            return true;
        default:
            return false;
    }
}

std::variant<SessionUse, Answer> session_use(Call call, std::span<const std::string_view> sessions,
                                             std::span<const std::string_view> sequences,
                                             std::uint64_t cluster_id) {
    if (sessions.empty() && sequences.empty()) return SessionUse{};
    if (!takes_session(call))
        return wrong(
            "outrider-session and outrider-sequence are for put, deleterange, txn, compaction, and "
            "grant and revoke of leases");
    if (sessions.size() != 1 || sequences.size() != 1)
        return wrong("outrider-session and outrider-sequence go together, each once");
    const auto name = parse_decimal(sessions.front());
    if (!name) return wrong("outrider-session is no number as /v3/session/open answers it");
    const auto sequence = parse_decimal(sequences.front());
    if (!sequence || *sequence == 0) return wrong("outrider-sequence is no number from 1 on");
    const store::SessionId session = session_named(*name, cluster_id);
    if (session.value == 0) return refuse(store::Status::kSessionUnknown);  // the store's word for none
    return SessionUse{session, *sequence};
}

std::uint64_t session_name(store::SessionId session, std::uint64_t cluster_id) {
    return (session.value ^ mix64(cluster_id)) & kNameMask;
}

store::SessionId session_named(std::uint64_t name, std::uint64_t cluster_id) {
    return {(name ^ mix64(cluster_id)) & kNameMask};
}

}  // namespace outrider::api
