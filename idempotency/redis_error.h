// What Redis says when it does not do what it was asked, as something to act on. Pure.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "base/time.h"

namespace outrider::idempotency {

enum class RedisTrouble : std::uint8_t {
    kNone,
    kUnreachable,    // no address, no connection, a broken one
    kSlow,           // no answer within operation_timeout
    kCredentials,    // NOAUTH, WRONGPASS, AUTH without a password set
    kNotPermitted,   // NOPERM
    kLoading,        // LOADING: it has been started and reads its data
    kReadOnly,       // READONLY: a replica, perhaps a master until a moment ago
    kMemoryFull,     // OOM: maxmemory is reached
    kCannotPersist,  // MISCONF: its disk fails, and it is configured to refuse writes then
    kNoReplicas,     // NOREPLICAS, MASTERDOWN
    kCluster,        // MOVED, ASK, CLUSTERDOWN, CROSSSLOT: cluster mode
    kBusy,           // BUSY: a script of somebody else runs too long
    kNoScript,       // NOSCRIPT: a restart or SCRIPT FLUSH; nothing is wrong
    kRefused,        // too many clients, protected mode
    kOther,
};

// Of an error reply. Errors from within a script carry the text of the command that failed (before Redis 7 in the middle).
RedisTrouble classify_redis_error(std::string_view error);

// Whether another connection, perhaps to another server, may help and this one will not.
bool ends_connection(RedisTrouble trouble);

// "Redis at 10.0.0.1:6379 is a read-only replica: …". `error` is quoted for kOther and kUnreachable, shortened and without
// control characters; Redis puts no password and no key of ours into those.
std::string redis_sentence(RedisTrouble trouble, std::string_view where, std::string_view error);

// What all connections of a store say in the log: one line when something goes wrong, one when it is well again, however many threads
// find out. The same trouble within kQuiet of its last line is not said again, nor is its end, unless it lasts
// longer. Any thread.
class RedisReport {
  public:
    static constexpr Duration kQuiet = std::chrono::seconds(10);

    explicit RedisReport(std::string store) : store_(std::move(store)) {}

    void trouble(RedisTrouble trouble, std::string_view where, std::string_view error, Instant now);
    void well(std::string_view where);
    // Redis may throw keys away to make room. Once.
    void may_evict(std::string_view where, std::string_view policy);
    // The last trouble as a sentence; empty when all is well.
    std::string problem() const;

  private:
    mutable std::mutex mutex_;
    std::string store_;
    RedisTrouble last_ = RedisTrouble::kNone;
    std::string problem_;
    bool last_said_ = false;
    RedisTrouble said_ = RedisTrouble::kNone;  // in the last line
    Instant quiet_until_{};                    // about it
    bool eviction_said_ = false;
};

}  // namespace outrider::idempotency
