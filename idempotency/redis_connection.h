// One connection to Redis: hiredis's asynchronous context on our loop.
//
// Commands of one turn of the loop leave in one write at its end. hiredis asks for writability after each command; that is taken
// as "there is something to flush", and the socket is watched for it only while the kernel has not taken everything.
//
// hiredis ends the process (assert) when something that is no error arrives unasked, so that is looked for before it reads and
// after each reply, and ends the connection instead.
//
// Invariants
//   * Replies come in the order of the commands, one each; on_broken() comes last, at most once, and not after the destructor.
//   * Callbacks come inside a Loop::Event, never from within a call, and may destroy the connection.
//   * SIGPIPE is ignored in the process: hiredis writes with write(2).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <hiredis/async.h>

#include "base/result.h"
#include "base/uv/loop.h"

namespace outrider::idempotency {

struct RedisAddress {
    std::string ip;  // a literal
    std::uint16_t port = 0;
    std::string text() const;  // ip:port
};

class RedisConnection {
  public:
    class Owner {
      public:
        virtual void on_connected() = 0;
        // To the oldest command that has none yet. `reply` is valid during the call.
        virtual void on_reply(const redisReply& reply) = 0;
        // What comes to a subscription: the kind ("subscribe", "message", …) and the channel.
        virtual void on_channel(std::string_view kind, std::string_view channel) = 0;
        virtual void on_broken(const std::string& why) = 0;

      protected:
        ~Owner() = default;
    };

    static constexpr std::size_t kReplyBytesMax = std::size_t{32} << 20;

    // Begins to connect; on_connected() or on_broken() follows.
    static Result<std::unique_ptr<RedisConnection>> open(uv::Loop& loop, const RedisAddress& to,
                                                         Owner& owner);
    ~RedisConnection();
    RedisConnection(const RedisConnection&) = delete;
    RedisConnection& operator=(const RedisConnection&) = delete;

    // A whole command in Redis's protocol. After on_connected().
    void command(std::string_view formatted);
    // A SUBSCRIBE or UNSUBSCRIBE; on_channel() follows. On a connection that sends no other command any more.
    void channel_command(std::string_view formatted);

    // Reads what has arrived and was not read yet, for one who is about to judge that nothing did.
    void read_now();

    std::uint64_t writes() const;  // write(2) calls

  private:
    class Bridge;
    explicit RedisConnection(std::shared_ptr<Bridge> bridge) : bridge_(std::move(bridge)) {}

    std::shared_ptr<Bridge> bridge_;
};

}  // namespace outrider::idempotency
