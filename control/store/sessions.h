// A retried command takes effect once: the table of client sessions (Ongaro's thesis, section 6.3).
//
// A session is opened by a command and named by that command's index in the log, so an id is never used again, and a
// session that the table no longer knows is refused for certain: a retry can fail, but never take effect twice. A client
// has one command under way in each session; it numbers them from 1 and repeats one with its number until it has the
// answer. The newest answer of each session is kept, encoded, up to kAnswerBytesMax.
//
// The table is bounded: kSessionsMax, beyond which none is opened. A session idle for kSessionIdleMillis goes. Idle by
// the store's time, which moves by commands (SessionsAgeRequest), so that every member drops it at the same entry; for the
// same reason these bounds are constants of the format and not settings.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "control/store/types.h"

namespace outrider::store {

inline constexpr std::size_t kSessionsMax = 16'384;
inline constexpr std::int64_t kSessionIdleMillis = 3'600'000;
inline constexpr std::size_t kAnswerBytesMax = 4'096;

// An answer as it is kept; nothing when it is too large.
std::string encode_answer(const Response& response);
std::optional<Response> decode_answer(std::string_view bytes);

class SessionTable {
  public:
    struct Session {
        std::uint64_t sequence = 0;  // of the last command, 0: none yet
        std::int64_t used_millis = 0;
        Revision revision;   // after it
        std::string answer;  // empty: too large
    };
    enum class Verdict : std::uint8_t { kApply, kRepeat, kStale, kUnknown };

    const std::map<SessionId, Session>& all() const { return sessions_; }

    bool open(SessionId id, std::int64_t now_millis);
    void close(SessionId id);
    // For a command that carries a session.
    Verdict judge(SessionId id, std::uint64_t sequence) const;
    Response repeat(SessionId id) const;
    void remember(SessionId id, std::uint64_t sequence, std::int64_t now_millis, const Response& response);
    void expire(std::int64_t now_millis);
    // From a snapshot.
    void restore(SessionId id, Session session);

  private:
    std::map<SessionId, Session> sessions_;
    std::set<std::pair<std::int64_t, SessionId>> by_use_;
};

}  // namespace outrider::store
