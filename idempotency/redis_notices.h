// Hears when a key is settled, by whichever sidecar: a connection of its own, since one that subscribes can ask nothing else. Made
// when the first key is watched. What is told is a hint: messages get lost when a connection breaks or a master changes.
#pragma once

#include <memory>
#include <set>

#include "idempotency/redis_link.h"
#include "idempotency/redis_scripts.h"

namespace outrider::idempotency {

class RedisNotices final : private RedisLink::Owner {
  public:
    class Owner {
      public:
        // From now on on_told() comes for the key; what happened before may have been missed. Again after a reconnect.
        virtual void on_watched(const policy::Digest& key) = 0;
        virtual void on_told(const policy::Digest& key) = 0;

      protected:
        ~Owner() = default;
    };

    RedisNotices(uv::Loop& loop, const config::StoreSettings& settings, const RedisScripts& scripts,
                 RedisReport& report, Owner& owner)
        : loop_(loop), settings_(settings), scripts_(scripts), report_(report), owner_(owner) {}

    void watch(const policy::Digest& key);
    void unwatch(const policy::Digest& key);

  private:
    void send(std::string_view command, std::string_view channel);
    void on_link_up() override;
    void on_channel(std::string_view kind, std::string_view channel) override;

    uv::Loop& loop_;
    const config::StoreSettings& settings_;
    const RedisScripts& scripts_;
    RedisReport& report_;
    Owner& owner_;
    std::unique_ptr<RedisLink> link_;
    std::set<policy::Digest> watched_;
};

}  // namespace outrider::idempotency
