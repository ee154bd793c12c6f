#include "control/node/peers.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "config/syntax.h"
#include "control/node/backoff.h"
#include "control/node/identity.h"
#include "control/node/peer_channel.h"

namespace outrider::node {
namespace {

config::HostPort host_port_of(const std::string& text) {
    const auto parsed = config::parse_host_port(text);
    return parsed ? *parsed : config::HostPort{};
}

}  // namespace

Peers::Peers(uv::Loop& loop, Self self, KnownLogs known_logs, Duration patience, std::uint64_t seed,
             PeersHandler& handler)
    : loop_(loop),
      self_(std::move(self)),
      logs_(std::move(known_logs)),
      kept_logs_(logs_),
      patience_(patience),
      random_(seed),
      handler_(handler),
      resolver_(loop.raw()) {}

Peers::~Peers() = default;

Result<void> Peers::listen(const config::HostPort& address) {
    const auto at = uv::SocketAddress::to_listen(address.host, address.port);
    if (!at) return Error{"control.peer_listen: " + at.error()};
    const auto fd = uv::open_listening_socket(*at, false);
    if (!fd) return Error{"control.peer_listen: " + fd.error()};
    acceptor_ = new uv::Acceptor(loop_, *fd, [this](int accepted) { accept(accepted); });
    return {};
}

std::uint16_t Peers::port() const {
    return acceptor_ != nullptr ? acceptor_->address().port() : 0;
}

Peers::Peer* Peers::find(raft::NodeId id) {
    const auto it = peers_.find(id);
    return it == peers_.end() ? nullptr : &it->second;
}
const Peers::Peer* Peers::find(raft::NodeId id) const {
    const auto it = peers_.find(id);
    return it == peers_.end() ? nullptr : &it->second;
}

Peers::Peer& Peers::peer(raft::NodeId id) {
    Peer& peer = peers_[id];
    if (peer.redial == nullptr) {
        peer.id = id;
        peer.redial = std::make_unique<Alarm>([this, id](Instant) { dial(id); });
    }
    return peer;
}

void Peers::follow(const raft::Configuration& members) {
    for (auto& [id, peer] : peers_)
        peer.listed = peer.listed && members.find(id) != nullptr;
    for (const raft::Member& member : members.members) {
        if (member.id == self_.id) continue;
        Peer& known = peer(member.id);
        const MemberAddress address = parse_member_address(member.address);
        const config::HostPort where = host_port_of(address.peer);
        const bool news = known.address != where;
        if (!std::exchange(known.listed, true)) hold_new_member(known);
        known.address = where;
        if (known.name.empty()) known.name = address.name.empty() ? address.peer : address.name;
        if (news) known.failures = 0;
        if (news || !known.redial->scheduled()) dial_later(known, true);
    }
    for (auto& [id, peer] : peers_) {
        if (!peer.listed) loop_.cancel(*peer.redial);
    }
}

void Peers::dial_later(Peer& peer, bool at_once) {
    if (closing_ || !peer.listed || peer.channel != nullptr || peer.dialling != nullptr) return;
    Duration wait = at_once ? Duration(0) : reconnect_after(peer.failures, random_);
    if (self_.id > peer.id) wait += kOtherWaits;
    loop_.schedule(*peer.redial, wait);
}

void Peers::dial(raft::NodeId id) {
    Peer* peer = find(id);
    if (closing_ || peer == nullptr || !peer->listed || peer->resolving) return;
    if (peer->channel != nullptr || peer->dialling != nullptr) return;
    if (config::is_ip_literal(peer->address.host)) {
        connect(*peer, peer->address.host);
        return;
    }
    peer->resolving = true;
    resolver_.resolve_addresses(peer->address.host,
                                [this, id](const uv::Resolution<uv::ResolvedAddresses>& result) {
                                    Peer* resolved = find(id);
                                    if (resolved == nullptr) return;
                                    resolved->resolving = false;
                                    if (closing_ || resolved->channel != nullptr) return;
                                    if (const auto* error = std::get_if<uv::ResolveError>(&result)) {
                                        dial_failed(id, error->message);
                                        return;
                                    }
                                    const auto& ips = std::get<uv::ResolvedAddresses>(result).ips;
                                    connect(*resolved, ips[resolved->failures % ips.size()]);
                                });
}

void Peers::connect(Peer& peer, const std::string& ip) {
    const auto address = uv::SocketAddress::parse(ip, peer.address.port);
    if (!address) {
        dial_failed(peer.id, address.error());
        return;
    }
    auto* channel = new Channel(*this, peer.id);
    channels_.push_back(channel);
    peer.dialling = channel;
    channel->watch();
    if (const auto begun = channel->connect(*address); !begun) channel->end(begun.error());
}

void Peers::dial_failed(raft::NodeId id, const std::string& why) {
    Peer* peer = find(id);
    if (peer == nullptr) return;
    note_problem(*peer, why);
    ++peer->failures;
    dial_later(*peer, false);
    handler_.on_peer_not_reached(id);
}

// Not each time: it is tried again for ever.
void Peers::note_problem(Peer& peer, const std::string& why) {
    if (peer.last_problem == why) return;
    peer.last_problem = why;
    if (!peer.problems.due(why, loop_.now())) return;
    log_warning("peer {} ({}): {}", peer.name, config::to_string(peer.address), why);
}

// Whoever it is may come again and again.
void Peers::note_stranger(const std::string& address, const std::string& why) {
    const Instant now = loop_.now();
    if (stranger_told_ && now - *stranger_told_ < kStrangersTold) return;
    stranger_told_ = now;
    log_warning("control.peer_listen: what {} sent is not of a node: {}", address, why);
}

void Peers::accept(int fd) {
    const auto strangers = std::count_if(channels_.begin(), channels_.end(),
                                         [](const Channel* c) { return !c->open() && !c->dialled(); });
    auto* channel = new Channel(*this);
    channels_.push_back(channel);
    const uv::Loop::Event event(loop_);
    if (!channel->adopt(fd) || closing_ || static_cast<std::size_t>(strangers) >= kStrangersMax) {
        channel->close();
        return;
    }
    channel->start_reading();
    channel->watch();
}

void Peers::ended(Channel& channel, const std::string& why) {
    Peer* known = find(channel.peer());
    if (known == nullptr) return;
    if (known->dialling == &channel) {
        known->dialling = nullptr;
        dial_failed(known->id, why);
    } else if (known->channel == &channel) {
        known->channel = nullptr;
        if (!closing_) log_info("peer {} is not connected any more: {}", known->name, why);
        dial_later(*known, false);
        const raft::NodeId id = known->id;
        handler_.on_peer_lost(id, false);
        // Of whoever else says it belongs here nothing is kept.
        known = find(id);
        if (known != nullptr && !known->listed && known->channel == nullptr && !known->resolving)
            peers_.erase(id);
    }
}

void Peers::gone(Channel& channel) {
    std::erase(channels_, &channel);
    std::erase(unsent_, &channel);
    if (closing_ && channels_.empty() && closed_) std::exchange(closed_, nullptr)();
}

bool Peers::connected(raft::NodeId id) const {
    const Peer* known = find(id);
    return known != nullptr && known->channel != nullptr;
}

bool Peers::send(raft::NodeId to, const proto::Frame& frame) {
    Peer* known = find(to);
    if (known == nullptr || known->channel == nullptr) return false;
    known->channel->queue(frame);
    return true;
}

void Peers::flush() {
    // Ending one may queue for others.
    while (!unsent_.empty()) {
        std::vector<Channel*> now;
        now.swap(unsent_);
        for (Channel* channel : now)
            channel->send_queued();
    }
}

Peers::Status Peers::status(raft::NodeId id) const {
    const Peer* known = find(id);
    if (known == nullptr) return {};
    return {known->name, known->api_address, known->channel != nullptr};
}

std::size_t Peers::connected_count() const {
    return static_cast<std::size_t>(std::count_if(peers_.begin(), peers_.end(),
                                                  [](const auto& p) { return p.second.channel != nullptr; }));
}

void Peers::close(std::function<void()> done) {
    closing_ = true;
    resolver_.close();
    if (acceptor_ != nullptr) uv::Acceptor::close(std::exchange(acceptor_, nullptr));
    for (auto& [id, peer] : peers_)
        loop_.cancel(*peer.redial);
    if (channels_.empty()) {
        done();
        return;
    }
    closed_ = std::move(done);
    const uv::Loop::Event event(loop_);
    for (Channel* channel : std::vector<Channel*>(channels_)) {
        channel->send_queued();
        channel->end("this node stops");
    }
}

}  // namespace outrider::node
