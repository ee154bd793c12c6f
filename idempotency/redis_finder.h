// Where the Redis of a store is now: its literal address, what DNS says of its name, or what its Sentinels say is the master.
//
// Sentinels are asked one after the other, beginning with the one that answered last, each for at most connect_timeout. They are asked
// without a password: the url's is the master's. Nothing is kept: who asks again gets the present answer.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/uv/loop.h"
#include "base/uv/resolver.h"
#include "config/settings.h"
#include "idempotency/redis_connection.h"

namespace outrider::idempotency {

class RedisFinder final : private RedisConnection::Owner, private Timer {
  public:
    using Found = std::function<void(Result<std::vector<RedisAddress>>)>;  // not empty

    RedisFinder(uv::Loop& loop, const config::RedisUrl& url, Duration connect_timeout);
    ~RedisFinder() override;

    // One question at a time. `found` may be called before this returns; it is not called after the destructor.
    void find(Found found);

  private:
    void resolve(const config::HostPort& host, std::function<void(Result<std::vector<RedisAddress>>)> then);
    void ask_sentinel();
    void next_sentinel(const std::string& why);
    void finish(Result<std::vector<RedisAddress>> result);

    void on_connected() override;
    void on_reply(const redisReply& reply) override;
    void on_channel(std::string_view, std::string_view) override {}
    void on_broken(const std::string& why) override { next_sentinel(why); }
    void on_timeout(Instant) override { next_sentinel("no answer within connect_timeout"); }

    uv::Loop& loop_;
    config::RedisUrl url_;
    Duration connect_timeout_;
    std::unique_ptr<uv::Resolver> resolver_;  // on first need
    std::unique_ptr<RedisConnection> sentinel_;
    Found found_;
    std::size_t current_ = 0;  // of url_.hosts
    std::size_t tried_ = 0;
    std::uint64_t round_ = 0;  // a look-up that belongs to an earlier one is not heard
};

}  // namespace outrider::idempotency
