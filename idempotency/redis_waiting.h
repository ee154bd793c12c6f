// Duplicates of one worker that wait until a key is settled, in lines: one a key.
//
// The first in line asks for all of them. What it hears holds for those behind it too, but for a claim, which is one's alone: they go on
// waiting, for it. A line asks when the key's channel tells something, once the channel is heard at all (what happened between the
// last question and that may have been missed), when the lease it waits for has passed, and otherwise now and then, since channels lose
// messages: after 250 ms, later each second, with jitter.
//
// While Redis is out of reach they go on waiting: whose time is up then, is told so.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>

#include "base/random.h"
#include "filters/policy/idempotency_waiting.h"
#include "idempotency/redis_notices.h"
#include "idempotency/store.h"

namespace outrider::idempotency {

// A request that has asked and is not answered. Its call's store_slot.
struct RedisQuestion {
    Call* call = nullptr;  // null: answered
    policy::Digest key;
    policy::Digest fingerprint;
    policy::IdempotencyPolicy policy;
    Instant arrived{};
    bool left = false;
    bool waited = false;                     // it was parked once
    std::optional<policy::WaiterId> waiter;  // it waits
};
using RedisQuestionRef = std::shared_ptr<RedisQuestion>;

class RedisWaiting final : private RedisNotices::Owner, private Timer {
  public:
    class Owner {
      public:
        virtual bool ask_again(const RedisQuestionRef& question) = 0;  // false: it cannot be asked now
        virtual void answer(RedisQuestion& question, const policy::Verdict& verdict) = 0;

      protected:
        ~Owner() = default;
    };

    // `waiting`: of all workers, bounded by max_waiting.
    RedisWaiting(uv::Loop& loop, const config::StoreSettings& settings, const RedisScripts& scripts,
                 RedisReport& report, std::atomic<std::uint64_t>& waiting, Owner& owner);
    ~RedisWaiting() override;

    // False: full.
    bool park(const RedisQuestionRef& question, Instant until, Duration lease_left);
    // It waits no more; nobody is told.
    void remove(RedisQuestion& question);

    // What the first in line heard, or with `failed` that it heard nothing.
    void heard(const RedisQuestionRef& question, const ArriveReply& reply);
    void failed(const RedisQuestion& question);
    // A key was settled here.
    void settled(const policy::Digest& key) { on_told(key); }

  private:
    class Line;
    using Lines = std::map<policy::Digest, std::unique_ptr<Line>>;

    Line* line_of(const policy::Digest& key);
    void ask(Line& line);
    void on_watched(const policy::Digest& key) override { on_told(key); }
    void on_told(const policy::Digest& key) override;
    void on_timeout(Instant now) override;
    void arm();

    uv::Loop& loop_;
    std::uint64_t waiting_max_;
    std::atomic<std::uint64_t>& waiting_;
    Owner& owner_;
    Random random_;
    policy::WaitingList list_;
    std::map<policy::WaiterId, RedisQuestionRef> waiters_;
    Lines lines_;
    RedisNotices notices_;
};

// What a verdict is made of when a key is settled, for anybody with its fingerprint; nothing for what is one's own.
std::optional<policy::Verdict> common_verdict(const ArriveReply& reply, Instant now);

}  // namespace outrider::idempotency
