// What a key goes through in Redis: one Lua script a transition, which does what filters/policy/idempotency.cc does, atomically and by
// Redis's clock. Here are the scripts, the commands that run them and the reading of their replies. Pure.
//
// In Redis
//   PREFIX<64 hex digits>  a hash: phase (in_flight | done | unknown), fingerprint (32 bytes), token, generation, claimed, lease_end,
//                          expires, again (in flight: a reexecution), why (unknown, or again), status, headers, body (done).
//                          Times are microseconds of Redis's clock. It expires at the end of the window
//   PREFIXgeneration       a counter, never deleted: generations grow with each claim of any key
//   PREFIXdone:<digest>    a channel: told when a key is settled or forgotten
// The layout is stored: a field's meaning does not change.
//
// One clock, that of Redis, decides for all sidecars when a lease has passed and a window is over. It is a wall clock: set forward,
// leases pass early, and an owner that is still at work may be overtaken; set back, keys are kept longer. The worker that owns a
// key counts its lease from before it asked, on its own monotonic clock, so it stops no later than Redis lets another one begin.
//
// Needs Redis 5 (effects of scripts are replicated), or what is compatible with it. A PUBLISH that is not permitted is left out: those
// who wait also ask by themselves now and then.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include <hiredis/hiredis.h>

#include "filters/policy/idempotency.h"
#include "idempotency/redis_error.h"
#include "idempotency/store.h"

namespace outrider::idempotency {

enum class RedisScript : std::uint8_t { kArrive, kAnswered, kReleased, kCut, kForget, kLook };
inline constexpr std::size_t kRedisScripts = 6;

std::string_view script_text(RedisScript script);
const std::string& script_sha(RedisScript script);  // SHA-1, 40 hexadecimal digits, as EVALSHA wants it

// Appends a command in Redis's protocol, for which hiredis has no buffer that is used again.
class RedisCommand {
  public:
    RedisCommand(std::string& out, std::size_t words);
    RedisCommand& word(std::string_view word);
    RedisCommand& number(std::uint64_t value);

  private:
    std::string& out_;
};

enum class ScriptBy : std::uint8_t { kSha, kText };  // kText: after NOSCRIPT

// Writes the commands of one store.
class RedisScripts {
  public:
    explicit RedisScripts(std::string prefix) : prefix_(std::move(prefix)) {}

    struct Arrive {
        policy::Digest key;
        policy::Digest fingerprint;
        policy::OwnerToken token;
        Duration lease{};
        Duration window{};
        bool reexecute = false;
    };
    struct Settle {
        const policy::Digest& key;
        policy::Owner owner;  // generation 0: whatever it is (after a claim whose reply did not come)
        const Report& report;
        bool again = false;  // asked before without a reply: what was done then counts as done now
    };

    // Each replaces what is in `out`.
    void arrive(std::string& out, const Arrive& arrive, ScriptBy by) const;
    void settle(std::string& out, const Settle& settle, ScriptBy by) const;
    void forget(std::string& out, const policy::Digest& key, ScriptBy by) const;
    void look(std::string& out, const policy::Digest& key, ScriptBy by) const;

    std::string channel(const policy::Digest& key) const { return prefix_ + "done:" + key.hex(); }
    // The key of a channel of ours.
    std::optional<policy::Digest> key_of_channel(std::string_view channel) const;
    const std::string& prefix() const { return prefix_; }

    // For tests: what the scripts take for Redis's clock; 0: the clock itself.
    std::uint64_t now_micros = 0;

  private:
    RedisCommand begin(std::string& out, RedisScript script, ScriptBy by, const policy::Digest& key,
                       bool counter, std::size_t arguments) const;

    std::string prefix_;
};

// Replies
// ---------------------------------------------------------------------------------------------------------

struct RedisFailure {
    RedisTrouble trouble = RedisTrouble::kOther;
    std::string error;
};

struct Claimed {
    policy::Generation generation;
    bool reexecution = false;
};
struct InFlight {
    Duration lease_left{};
};
struct Unknown {
    policy::UnknownWhy why{};
    Duration window_left{};
};
struct DoneWithoutAnswer {
    std::uint16_t status = 0;
};
using ArriveReply = std::variant<RedisFailure, Claimed, InFlight, policy::Mismatch, Unknown,
                                 DoneWithoutAnswer, policy::Replay>;

ArriveReply read_arrive(const redisReply& reply);
std::variant<RedisFailure, policy::Settled> read_settle(const redisReply& reply);
std::variant<RedisFailure, policy::Forgotten> read_forget(const redisReply& reply);
std::variant<RedisFailure, KeyView> read_look(const redisReply& reply);

// Nothing when the reply is no error.
std::optional<RedisFailure> error_of(const redisReply& reply);
std::string_view text_of(const redisReply& reply);  // of a string or status; empty for others

}  // namespace outrider::idempotency
