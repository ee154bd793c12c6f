// Which client session (store/sessions.h) carries which write. Pure: the caller sends, and opens sessions when told to.
//
// A session carries one write at a time, so that writes beside each other need several; they are opened one after the other as
// writes wait, up to sessions_max, and kept. The rest waits in line, in the order of the calls.
//
// A session is free again as soon as its write has ended, whatever its end was: the next one has a higher number, and once that
// is applied no copy of the former that is still on its way can take effect.
//
// Invariants
//   * a write is in line, or has a session that no other has, or is unknown here
//   * numbers of a session begin at 1 and rise; a write that gets another session gets another ticket
//   * while writes wait, a session is being opened, or is to be (wants_session()), or another write's end makes one free
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/time.h"

namespace outrider::agent {

using CallId = std::uint64_t;  // a later call's is larger

class SessionPool {
  public:
    struct Ticket {
        std::uint64_t session = 0;  // as the API names it
        std::uint64_t sequence = 0;
    };
    struct Boarding {
        CallId write = 0;
        Ticket ticket;
    };

    explicit SessionPool(std::size_t sessions_max) : sessions_max_(sessions_max) {}

    // The write stands in line.
    void join(CallId write) { line_.insert(write); }
    // The first in line and what it is sent with, while there is a free session.
    std::optional<Boarding> next();
    // The write has ended, wherever it stood.
    void leave(CallId write);
    // Its session is not open any more: it stands in line again, before those that came later. The free ones go as well, since
    // what ended one session, an hour without writes or another cluster behind the endpoints, is likely to have ended them.
    void lost(CallId write);

    // To be asked after each of these.
    bool wants_session(Instant now) const;
    void opening() { opening_ = true; }
    void opened(std::uint64_t session);
    // Nobody could say: asked again.
    void not_opened() { opening_ = false; }
    // None is to be had. Those in line, when there is no session that they could wait for; they are forgotten. While there is one,
    // another is not asked for before kRefusedRest has passed.
    std::vector<CallId> refused(Instant now);

    // The free ones, which are not ours any more: to be closed.
    std::vector<std::uint64_t> take_free();

    std::size_t sessions() const { return free_.size() + busy_.size(); }
    std::size_t waiting() const { return line_.size(); }

  private:
    static constexpr Duration kRefusedRest = std::chrono::seconds(10);

    const std::size_t sessions_max_;
    std::set<CallId> line_;
    std::vector<Ticket>
        free_;  // with the last number used; the last freed goes first, so that the others may end
    std::unordered_map<CallId, Ticket> busy_;
    bool opening_ = false;
    Instant refused_until_{};
};

}  // namespace outrider::agent
