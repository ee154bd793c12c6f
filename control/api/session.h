// How a request says that it is one of a client session's commands (store/sessions.h): two header fields of HTTP, since the
// bodies are etcd's.
//
// Both or neither, each once, in decimal digits; the sequence begins at 1. On the calls that a session carries they bind: what
// cannot be understood is refused, never passed over, for a client that counts on them would repeat a write that has nothing
// to know it by. For the same reason they are refused on every other call, reads included: a read has no effect to repeat, and a
// change of members is none that the store remembers. A transaction with them is a command even if it only reads.
//
// What a client sees as a session's id is the store's, which is an index of the log, mixed with the cluster's id. A cluster that
// was restored from a backup goes on at the backup's index and could give an index again that the old one has given since
// the backup; so a client of the old one meets "not open" there, and not somebody else's answer.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <variant>

#include "control/api/errors.h"
#include "control/api/requests.h"
#include "control/store/types.h"

namespace outrider::api {

inline constexpr std::string_view kSessionHeader = "outrider-session";
inline constexpr std::string_view kSequenceHeader = "outrider-sequence";

// Both 0: no session.
struct SessionUse {
    store::SessionId session;
    std::uint64_t sequence = 0;
};

// A write that the store remembers with its session.
bool takes_session(Call call);

// Of a request with these values of the two fields, in the order they came.
std::variant<SessionUse, Answer> session_use(Call call, std::span<const std::string_view> sessions,
                                             std::span<const std::string_view> sequences,
                                             std::uint64_t cluster_id);

// Below 2^63. Each is the other's inverse.
std::uint64_t session_name(store::SessionId session, std::uint64_t cluster_id);
store::SessionId session_named(std::uint64_t name, std::uint64_t cluster_id);

}  // namespace outrider::api
