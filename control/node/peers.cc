#include "control/node/peers.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"
#include "base/uv/tcp_stream.h"
#include "config/syntax.h"
#include "control/node/backoff.h"
#include "control/node/frame.h"
#include "control/node/identity.h"

namespace outrider::node {
namespace {

constexpr std::size_t kBufferKept = std::size_t{1} << 20;

config::HostPort host_port_of(const std::string& text) {
    const auto parsed = config::parse_host_port(text);
    return parsed ? *parsed : config::HostPort{};
}

// For the log: no line of it can be made by what another process calls itself.
std::string escaped(std::string_view text) {
    std::string out;
    append_json_escaped(out, text);
    return out;
}

}  // namespace

// ---- one connection -------------------------------------------------------------------------------------------------

class Peers::Channel final : public uv::TcpStream {
  public:
    // Dialled, to `peer`.
    Channel(Peers& owner, raft::NodeId peer)
        : TcpStream(owner.loop_), owner_(owner), peer_(peer), dialled_(true), watch_(make_watch()) {}
    // Accepted, from nobody known.
    explicit Channel(Peers& owner) : TcpStream(owner.loop_), owner_(owner), watch_(make_watch()) {}

    raft::NodeId peer() const { return peer_; }
    bool dialled() const { return dialled_; }
    bool open() const { return open_; }
    void become_open(raft::NodeId peer) {
        peer_ = peer;
        open_ = true;
        reader_.set_payload_max(kPeerFrameBytesMax);
        keep_alive();
        watch();
    }
    // The handshake, or the silence, is bounded from now on.
    void watch() {
        heard_ = loop().now();
        loop().schedule(*watch_, open_ ? owner_.patience_ / 3 : owner_.patience_);
    }
    void queue(const proto::Frame& frame) {
        if (closing()) return;
        if (outgoing_.empty()) owner_.unsent_.push_back(this);
        const std::size_t at = outgoing_.size();
        outgoing_.resize(at + kPeerFrameHeaderBytes);
        frame.AppendToString(&outgoing_);
        seal_frame(outgoing_, at);
        if (outgoing_.size() > kBufferKept) send_queued();
    }
    void send_queued() {
        if (outgoing_.empty()) return;
        if (!closing()) {
            write_stable(outgoing_);
            loop().flush();
        }
        outgoing_.clear();
        if (outgoing_.capacity() > 4 * kBufferKept) std::string().swap(outgoing_);
        if (!closing() && queued() > kQueuedBytesMax) end("it does not read what is sent to it");
    }
    void end(const std::string& why) {
        if (closing()) return;
        loop().cancel(*watch_);
        close();
        owner_.ended(*this, why);
    }

  private:
    ~Channel() override = default;

    std::unique_ptr<Alarm> make_watch() {
        return std::make_unique<Alarm>([this](Instant now) { on_watch(now); });
    }
    void on_watch(Instant now) {
        if (closing()) return;
        if (now >= heard_ + owner_.patience_) {
            const uv::Loop::Event event(loop());
            end(open_ ? "it has been silent for too long" : "no answer");
            return;
        }
        loop().schedule(*watch_, open_ ? owner_.patience_ / 3 : heard_ + owner_.patience_ - now);
        if (!open_) return;
        proto::Frame frame;
        frame.mutable_ping();
        const uv::Loop::Event event(loop());
        queue(frame);
        send_queued();
    }
    void on_connected() override {
        start_reading();
        owner_.greet(*this);
    }
    void on_read(std::string_view data) override {
        if (open_) heard_ = loop().now();  // before, whatever comes: the handshake has its time
        reader_.add(data);
        while (!closing()) {
            auto payload = reader_.next();
            if (!payload) {
                end(payload.error());
                return;
            }
            if (!*payload) return;
            proto::Frame& frame = owner_.incoming_;
            if (!frame.ParseFromArray((**payload).data(), static_cast<int>((**payload).size()))) {
                end("a frame that is no message: the other end is no outrider node");
                return;
            }
            if (!open_) {
                if (!owner_.on_first_frame(*this, frame)) return;
            } else if (!frame.has_ping()) {
                owner_.handler_.on_frame(peer_, frame);
            }
        }
    }
    void on_eof() override { end("it closed the connection"); }
    void on_error(int error) override { end(uv::error_text(error)); }
    void on_closed() override {
        owner_.gone(*this);
        delete this;
    }

    Peers& owner_;
    raft::NodeId peer_;
    const bool dialled_ = false;
    bool open_ = false;
    Instant heard_{};
    FrameReader reader_{kGreetingBytesMax};
    std::string outgoing_;
    std::unique_ptr<Alarm> watch_;
};

// ---- the set of them ------------------------------------------------------------------------------------------------

Peers::Peers(uv::Loop& loop, Self self, Duration patience, std::uint64_t seed, PeersHandler& handler)
    : loop_(loop),
      self_(std::move(self)),
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
        peer.listed = false;
    for (const raft::Member& member : members.members) {
        if (member.id == self_.id) continue;
        Peer& known = peer(member.id);
        const MemberAddress address = parse_member_address(member.address);
        const config::HostPort where = host_port_of(address.peer);
        const bool news = known.address != where;
        known.listed = true;
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
}

// Once: it is tried again for ever.
void Peers::note_problem(Peer& peer, const std::string& why) {
    if (peer.last_problem == why) return;
    peer.last_problem = why;
    log_warning("peer {} ({}): {}", peer.name, config::to_string(peer.address), why);
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

proto::Hello Peers::hello(raft::NodeId to) const {
    proto::Hello out;
    out.set_protocol(kPeerProtocol);
    out.set_cluster_id(self_.cluster_id);
    out.set_node_id(self_.id.value);
    out.set_name(self_.name);
    out.set_api_address(self_.api_address);
    out.set_to(to.value);
    return out;
}

void Peers::greet(Channel& channel) {
    proto::Frame frame;
    *frame.mutable_hello() = hello(channel.peer());
    channel.queue(frame);
    channel.send_queued();
}

bool Peers::on_first_frame(Channel& channel, proto::Frame& frame) {
    if (frame.has_reject()) {
        channel.end("it refuses: " + escaped(frame.reject().reason().substr(0, 500)));
        return false;
    }
    if (frame.has_hello()) return on_hello(channel, frame.hello());
    if (frame.has_join_ask() && !channel.dialled()) {
        proto::Frame answer;
        handler_.on_join_ask(frame.join_ask(), *answer.mutable_join_tell());
        channel.queue(answer);
        channel.send_queued();
        return true;
    }
    channel.end("it did not begin with a greeting");
    return false;
}

bool Peers::on_hello(Channel& channel, const proto::Hello& hello) {
    std::string why;
    const raft::NodeId from{hello.node_id()};
    const Peer* known = find(from);
    const bool listed = known != nullptr && known->listed;
    if (hello.name().size() > kNameBytesMax || hello.api_address().size() > kNameBytesMax ||
        escaped(hello.name()) != hello.name()) {
        why = fmt::format("a name or address of more than {} bytes, or of signs that no name has",
                          kNameBytesMax);
    } else if (hello.protocol() != kPeerProtocol) {
        why = fmt::format("protocol {} is spoken here, and {} there: upgrade one version at a time",
                          kPeerProtocol, hello.protocol());
    } else if (hello.cluster_id() != self_.cluster_id) {
        why = fmt::format(
            "node {} belongs to another cluster than {} ({:016x}, not {:016x}): are control.peers and "
            "control.cluster the same on both, and is the data directory of this cluster?",
            hello.name(), self_.name, hello.cluster_id(), self_.cluster_id);
    } else if (from == self_.id || from == raft::kNoNode) {
        why = fmt::format("node {} has the id of {}: two processes must not be one node", hello.name(),
                          self_.name);
    } else if (channel.dialled() ? from != channel.peer()
                                 : hello.to() != 0 && raft::NodeId{hello.to()} != self_.id) {
        why = fmt::format("another node was expected at this address: {} met {}", hello.name(), self_.name);
    }
    if (why.empty() && !listed && unlisted_open() >= kStrangersMax)
        why = fmt::format("{} nodes that are no members are connected already", kStrangersMax);
    // Also one that is no member (any more) may connect: it is told so, and one that was just added may be unknown here.
    if (!why.empty()) {
        reject(channel, why);
        return false;
    }
    opened(channel, hello);
    return true;
}

std::size_t Peers::unlisted_open() const {
    return static_cast<std::size_t>(std::count_if(peers_.begin(), peers_.end(), [](const auto& entry) {
        return !entry.second.listed && entry.second.channel != nullptr;
    }));
}

void Peers::reject(Channel& channel, const std::string& why) {
    proto::Frame frame;
    frame.mutable_reject()->set_reason(why);
    channel.queue(frame);
    channel.send_queued();
    if (!channel.dialled()) log_warning("a peer was refused: {}", why);
    channel.end(why);
}

void Peers::opened(Channel& channel, const proto::Hello& greeting) {
    const raft::NodeId id{greeting.node_id()};
    Peer& known = peer(id);
    if (known.dialling == &channel) known.dialling = nullptr;
    if (known.channel != nullptr) {
        Channel* const old = std::exchange(known.channel, nullptr);
        old->end("a newer connection takes its place");
        handler_.on_peer_lost(id, true);
    }
    known.channel = &channel;
    known.name = greeting.name();
    known.api_address = greeting.api_address();
    known.failures = 0;
    known.last_problem.clear();
    loop_.cancel(*known.redial);
    channel.become_open(id);
    if (!channel.dialled()) {
        proto::Frame frame;
        *frame.mutable_hello() = hello({});
        channel.queue(frame);
        channel.send_queued();
    }
    log_info("peer {} is connected", known.name);
    handler_.on_peer_connected(id);
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
