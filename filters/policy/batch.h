// Coalesces small requests to one upstream call (natural batching). Pure: the caller owns requests and calls, and arms
// one timer for next_deadline().
//
// With nothing in flight a request leaves at once: a lone client waits for nobody. While a call is in flight the next
// one fills, so the size of the calls follows the load by itself, and no timer has to be guessed. `linger` adds a
// bounded wait for an upstream whose calls are dear: a call then leaves `linger` after its first member came, or full.
//
// One call at a time is the default. With in_flight_max above 1 further ones leave beside it, but only full: one that is
// not full gains by waiting. More than one serves an application that works on several calls at once.
//
// One queue for each set of requests that may share a call: the same route and worker, and the same values of every
// header that is passed on (Authorization above all: a call is made in ONE client's name).
//
// A member that leaves is removed as long as it waits; once it is in flight its part of the answer is dropped.
//
// When a whole call fails, those that may be repeated are sent one by one, if split_on_failure: one of them may have
// spoilt it for the others. The others get the error, as it is not known whether they were executed. A call of one
// member is not split; that would be a retry, which others decide. Nor should the caller split a call for which no
// connection was to be had, or one that timed out: each of its members would fare the same.
//
// Invariants
//   * Members leave in the order in which they came.
//   * A call has 1 to items_max members, of bytes_max at most together (bytes as the caller counts them: with what the
//     format adds to a member).
//   * At most waiting_max wait; at the bound the caller answers 503.
//   * next_deadline() has a value exactly when somebody waits, nothing is in flight and the call is not full.
//   * Each member leaves exactly once: through finished(), failed() or leave().
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "base/time.h"
#include "base/units.h"

namespace outrider::policy {

// Never used twice.
enum class MemberId : std::uint64_t {};
enum class CallId : std::uint64_t {};

// items_max, in_flight_max: at least 1.
struct BatchLimits {
    std::size_t items_max = 100;
    Bytes bytes_max{1 << 20};
    Duration linger{};
    std::size_t in_flight_max = 1;
    std::size_t waiting_max = 1024;
};

class BatchQueue {
  public:
    explicit BatchQueue(BatchLimits limits) : limits_(limits) {}
    void configure(BatchLimits limits) { limits_ = limits; }

    struct Member {
        MemberId id{};
        Bytes bytes;
        bool repeatable = false;  // a safe or idempotent method, or a key
    };
    enum class Arrival : std::uint8_t {
        kQueued,    // ask next()
        kTooLarge,  // for any call: 413
        kFull,      // 503
    };
    Arrival arrive(const Member& member, Instant now);

    struct Call {
        CallId id{};
        std::vector<MemberId> members;
    };
    // The call that is to leave now. Ask until there is none: after an arrival, the end of a call, and at the deadline.
    std::optional<Call> next(Instant now);
    std::optional<Instant> next_deadline() const;

    enum class Left : std::uint8_t { kRemoved, kDropAnswer, kUnknown };
    Left leave(MemberId id);
    // False: its part of the answer is nobody's.
    bool wants_answer(CallId call, MemberId id) const;

    // The call was answered, each member's part is delivered.
    void finished(CallId call);
    struct Split {
        std::vector<MemberId> one_by_one;
        std::vector<MemberId> failed;
    };
    Split failed(CallId call, bool split_on_failure);

    std::size_t waiting() const { return waiting_.size(); }
    std::size_t calls_in_flight() const { return in_flight_.size(); }

  private:
    struct Waiting {
        Member member;
        Instant since{};
    };
    struct Sent {
        MemberId id{};
        bool repeatable = false;
        bool left = false;
    };
    bool full() const;

    BatchLimits limits_;
    std::deque<Waiting> waiting_;
    std::uint64_t waiting_bytes_ = 0;
    std::map<CallId, std::vector<Sent>> in_flight_;
    std::uint64_t next_call_ = 1;
};

}  // namespace outrider::policy
