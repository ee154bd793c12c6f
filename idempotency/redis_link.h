// One thread's line to the Redis of a store: finds it, connects, introduces itself, and does so again whenever the connection breaks.
//
// Connecting: address (redis_finder.h), TCP, AUTH, SELECT, ROLE (a replica is no store), SCRIPT LOAD, INFO memory (evicting is warned
// of), all in one write, within connect_timeout. Then questions go out, any number at once; replies come in their order. A failed
// try is repeated after a random part of 50 ms, 100 ms … 2 s ("full jitter", Brooker, "Exponential backoff and jitter").
//
// A connection whose oldest question is older than twice the operation_timeout (200 ms at least) counts as broken. One that is merely
// slow is kept, because its late replies tell which claims were made.
//
// Invariants
//   * An ask() that was taken ends with exactly one of on_reply() and on_lost(), unless the link is destroyed; on_timeout() comes at
//     most once before it. None comes from within ask().
//   * At most kOutstandingMax questions are out, and kOutstandingBytes of them unless it is one.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "config/settings.h"
#include "idempotency/redis_connection.h"
#include "idempotency/redis_error.h"
#include "idempotency/redis_finder.h"

namespace outrider::idempotency {

class RedisAsk {
  public:
    virtual ~RedisAsk() = default;
    // Perhaps long after on_timeout(). It may ask again.
    virtual void on_reply(std::unique_ptr<RedisAsk> self, const redisReply& reply) = 0;
    // No reply within operation_timeout.
    virtual void on_timeout() = 0;
    // No reply will come: whether Redis did it is not known.
    virtual void on_lost(std::unique_ptr<RedisAsk> self) = 0;
};

class RedisLink final : private RedisConnection::Owner, private Timer {
  public:
    static constexpr std::size_t kOutstandingMax = 10'000;
    static constexpr std::size_t kOutstandingBytes = std::size_t{64} << 20;

    class Owner {
      public:
        virtual void on_link_up() = 0;
        virtual void on_link_down() {}
        // The first attempt to connect is over, however it went; before on_link_up().
        virtual void on_link_tried() {}
        virtual void on_channel(std::string_view /*kind*/, std::string_view /*channel*/) {}

      protected:
        ~Owner() = default;
    };

    enum class Use : std::uint8_t {
        kCommands,
        kChannels
    };  // kChannels: for subscriptions; no scripts are loaded

    // `report` outlives it. Begins to connect.
    RedisLink(uv::Loop& loop, const config::StoreSettings& settings, RedisReport& report, Owner& owner,
              Use use);
    ~RedisLink() override;

    bool ready() const { return state_ == State::kReady; }
    // False, and `ask` is left as it is: not connected, or too many questions are out.
    bool ask(std::unique_ptr<RedisAsk>& ask, std::string_view command);
    // kChannels, when ready.
    void channel_command(std::string_view command);

    // An error reply came: counted into the report; some end the connection. For whoever reads replies.
    void trouble(RedisTrouble trouble, std::string_view error);

    std::uint64_t writes() const { return connection_ != nullptr ? connection_->writes() : 0; }
    std::size_t outstanding() const { return asks_.size(); }

  private:
    enum class State : std::uint8_t { kFinding, kConnecting, kReady, kBackoff };
    enum class Step : std::uint8_t { kAuth, kSelect, kRole, kScript, kMemory };
    struct Asked {
        std::unique_ptr<RedisAsk> ask;
        Instant at{};
        std::size_t bytes = 0;
        bool overdue = false;
    };

    void find();
    void connect();
    void introduce();
    void stepped(const redisReply& reply);
    void look_at_memory(const redisReply& reply);
    void become_ready();
    void tried();
    // The connection is over, or never was.
    void fail(RedisTrouble trouble, std::string_view error);
    void arm_for_oldest();
    Duration broken_after() const;

    void on_connected() override { introduce(); }
    void on_reply(const redisReply& reply) override;
    void on_channel(std::string_view kind, std::string_view channel) override {
        failures_ = 0;
        owner_.on_channel(kind, channel);
    }
    void on_broken(const std::string& why) override { fail(RedisTrouble::kUnreachable, why); }
    void on_timeout(Instant now) override;

    uv::Loop& loop_;
    const config::StoreSettings& settings_;
    RedisReport& report_;
    Owner& owner_;
    Use use_;
    RedisFinder finder_;
    Random random_;
    State state_ = State::kBackoff;
    std::vector<RedisAddress> addresses_;
    std::string where_;  // for the log
    std::unique_ptr<RedisConnection> connection_;
    std::deque<Step> steps_;
    std::deque<Asked> asks_;
    std::size_t asked_bytes_ = 0;
    std::size_t overdue_ = 0;  // of asks_, the oldest ones
    bool troubled_ = false;    // reported while ready
    bool tried_ = false;
    unsigned failures_ = 0;  // in a row, until a question was answered
};

}  // namespace outrider::idempotency
