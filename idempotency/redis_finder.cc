#include "idempotency/redis_finder.h"

#include "base/bytes.h"
#include "base/uv/tcp_stream.h"
#include "idempotency/redis_scripts.h"

namespace outrider::idempotency {

RedisFinder::RedisFinder(uv::Loop& loop, const config::RedisUrl& url, Duration connect_timeout)
    : loop_(loop), url_(url), connect_timeout_(connect_timeout) {}

RedisFinder::~RedisFinder() {
    if (resolver_ != nullptr) resolver_->close();
}

void RedisFinder::find(Found found) {
    found_ = std::move(found);
    ++round_;
    if (!url_.sentinel) {
        resolve(url_.hosts.front(), [this](auto result) { finish(std::move(result)); });
        return;
    }
    tried_ = 0;
    ask_sentinel();
}

void RedisFinder::resolve(const config::HostPort& host,
                          std::function<void(Result<std::vector<RedisAddress>>)> then) {
    if (uv::SocketAddress::parse(host.host, host.port).ok()) {
        then(std::vector{RedisAddress{host.host, host.port}});
        return;
    }
    if (resolver_ == nullptr) resolver_ = std::make_unique<uv::Resolver>(loop_.raw());
    auto done = [this, port = host.port, round = round_, then = std::move(then)](auto resolution) {
        if (round != round_) return;
        const uv::Loop::Event event(loop_);
        if (const auto* error = std::get_if<uv::ResolveError>(&resolution)) {
            then(Error{error->message});
            return;
        }
        std::vector<RedisAddress> addresses;
        for (const std::string& ip : std::get_if<uv::ResolvedAddresses>(&resolution)->ips)
            addresses.push_back({ip, port});
        then(std::move(addresses));
    };
    resolver_->resolve_addresses(host.host, std::move(done));
}

void RedisFinder::ask_sentinel() {
    loop_.schedule(*this, connect_timeout_);
    resolve(url_.hosts[current_], [this](Result<std::vector<RedisAddress>> addresses) {
        if (!addresses) {
            next_sentinel(addresses.error());
            return;
        }
        auto connection = RedisConnection::open(loop_, addresses->front(), *this);
        if (!connection) {
            next_sentinel(connection.error());
            return;
        }
        sentinel_ = std::move(connection.value());
    });
}

void RedisFinder::next_sentinel(const std::string& why) {
    loop_.cancel(*this);
    sentinel_.reset();
    ++round_;
    const std::string asked = to_string(url_.hosts[current_]);
    current_ = (current_ + 1) % url_.hosts.size();
    if (++tried_ < url_.hosts.size()) {
        ask_sentinel();
        return;
    }
    finish(Error{"no Sentinel names a master for \"" + url_.service + "\"; the last one, " + asked + ": " +
                 why});
}

void RedisFinder::finish(Result<std::vector<RedisAddress>> result) {
    if (const Found found = std::exchange(found_, nullptr)) found(std::move(result));
}

void RedisFinder::on_connected() {
    std::string command;
    RedisCommand(command, 3).word("SENTINEL").word("get-master-addr-by-name").word(url_.service);
    sentinel_->command(command);
}

void RedisFinder::on_reply(const redisReply& reply) {
    if (reply.type == REDIS_REPLY_NIL) {
        next_sentinel("it knows no master of that name");
        return;
    }
    std::uint64_t port = 0;
    if (reply.type == REDIS_REPLY_ARRAY && reply.elements == 2)
        port = parse_decimal(text_of(*reply.element[1])).value_or(0);
    if (port == 0 || port > 65535) {
        const std::string said(text_of(reply));
        next_sentinel(said.empty() ? "an answer that is no address" : said);
        return;
    }
    const config::HostPort master{std::string(text_of(*reply.element[0])), static_cast<std::uint16_t>(port)};
    sentinel_.reset();
    // The timer still runs: the master may be given by name.
    resolve(master, [this](Result<std::vector<RedisAddress>> addresses) {
        if (!addresses) {
            next_sentinel(addresses.error());
            return;
        }
        loop_.cancel(*this);
        finish(std::move(addresses));
    });
}

}  // namespace outrider::idempotency
