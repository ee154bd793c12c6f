// What owners report, on its way to Redis until it is there.
//
// The owner is told within operation_timeout whether its report is recorded (its client waits for that). A report that was not, is kept
// and sent again, once connected and then each second: recorded late is better than "unknown", as long as nobody took over, which the
// scripts see. So are claims that may have been made without our hearing of it: nothing was forwarded for them, so they are released
// (by token: the generation is not known), lest duplicates wait for an owner that does not exist.
//
// Kept at most: kKeptMax reports, kKeptBytes of answers, each for kKeptFor. Above it the oldest are given up: their leases end.
#pragma once

#include <list>
#include <memory>

#include "idempotency/redis_link.h"
#include "idempotency/redis_scripts.h"
#include "idempotency/store.h"

namespace outrider::idempotency {

class RedisReports final : private Timer {
  public:
    static constexpr std::size_t kKeptMax = 1000;
    static constexpr std::size_t kKeptBytes = std::size_t{16} << 20;
    static constexpr Duration kKeptFor = std::chrono::minutes(1);

    class Owner {
      public:
        // Whoever waits for the key here may ask again.
        virtual void on_key_settled(const policy::Digest& key) = 0;

      protected:
        ~Owner() = default;
    };

    RedisReports(uv::Loop& loop, const config::StoreSettings& settings, const RedisScripts& scripts,
                 RedisLink& link, const StoreCells& cells, Owner& owner);
    ~RedisReports() override;

    void settle(Call& call, const policy::Digest& key, const policy::Owner& owner, Report report);
    // A claim that nobody will use. Generation 0: not known. `until`: the end of its lease.
    void disown(const policy::Digest& key, const policy::Owner& owner, Instant until);
    // The link is up.
    void resume();

    std::size_t kept() const { return kept_.size(); }

  private:
    struct Entry;
    class Ask;

    void send(std::unique_ptr<Entry> entry, ScriptBy by);
    void keep(std::unique_ptr<Entry> entry, Duration until_next);
    void tell(Entry& entry, policy::Settled settled, bool durable);
    void heard(std::unique_ptr<Entry> entry, const redisReply& reply, ScriptBy by);
    void on_timeout(Instant now) override;
    void arm();

    uv::Loop& loop_;
    const config::StoreSettings& settings_;
    const RedisScripts& scripts_;
    RedisLink& link_;
    StoreCells cells_;
    Owner& owner_;
    std::list<std::unique_ptr<Entry>> kept_;  // not on their way
    std::size_t kept_bytes_ = 0;
    std::string command_;
};

}  // namespace outrider::idempotency
