#include "idempotency/redis_notices.h"

namespace outrider::idempotency {

void RedisNotices::watch(const policy::Digest& key) {
    watched_.insert(key);
    if (link_ == nullptr) {
        RedisLink::Owner& self = *this;
        link_ = std::make_unique<RedisLink>(loop_, settings_, report_, self, RedisLink::Use::kChannels);
        return;
    }
    send("SUBSCRIBE", scripts_.channel(key));
}

void RedisNotices::unwatch(const policy::Digest& key) {
    if (watched_.erase(key) != 0) send("UNSUBSCRIBE", scripts_.channel(key));
}

void RedisNotices::send(std::string_view command, std::string_view channel) {
    if (!link_->ready()) return;
    std::string out;
    RedisCommand(out, 2).word(command).word(channel);
    link_->channel_command(out);
}

void RedisNotices::on_link_up() {
    // One that is never left: without any, hiredis takes the connection for an ordinary one.
    send("SUBSCRIBE", scripts_.prefix() + "done");
    for (const policy::Digest& key : watched_)
        send("SUBSCRIBE", scripts_.channel(key));
}

void RedisNotices::on_channel(std::string_view kind, std::string_view channel) {
    const auto key = scripts_.key_of_channel(channel);
    if (!key || !watched_.contains(*key)) return;
    if (kind == "subscribe") owner_.on_watched(*key);
    if (kind == "message") owner_.on_told(*key);
}

}  // namespace outrider::idempotency
