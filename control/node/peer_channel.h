// One connection of Peers (control/node/peers.h): its frames in both directions, its silence, and its end. For peers.cc and
// peers_greeting.cc.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/uv/tcp_stream.h"
#include "control/node/frame.h"
#include "control/node/peers.h"

namespace outrider::node {

// Of what is queued for a peer, so much is collected before it goes to the kernel within a turn.
inline constexpr std::size_t kChannelBufferKept = std::size_t{1} << 20;

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
        keep_alive();
        watch();
    }
    // Sets aside what comes from now on, of the node that has greeted like this.
    void hold(const proto::Hello& greeting) {
        greeting_ = greeting;
        held_ = true;
        reader_.set_payload_max(kPeerFrameBytesMax);
    }
    bool held() const { return held_; }
    const proto::Hello& greeting() const { return greeting_; }
    // Takes what was set aside. The channel is open.
    void go_on() {
        held_ = false;
        std::vector<std::string> aside;
        aside.swap(aside_);
        aside_bytes_ = 0;
        for (const std::string& payload : aside) {
            if (!take(payload)) return;
        }
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
        if (outgoing_.size() > kChannelBufferKept) send_queued();
    }
    void send_queued() {
        if (outgoing_.empty()) return;
        if (!closing()) {
            write_stable(outgoing_);
            loop().flush();
        }
        outgoing_.clear();
        if (outgoing_.capacity() > 4 * kChannelBufferKept) std::string().swap(outgoing_);
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
    // What no node sends.
    void end_of_nonsense(const std::string& why) {
        if (!dialled_ && !open_ && !closing()) owner_.note_stranger(TcpStream::peer().text(), why);
        end(why);
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
                end_of_nonsense(payload.error());
                return;
            }
            if (!*payload) return;
            if (!take(**payload)) return;
        }
    }
    // False: nothing more is to be taken.
    bool take(std::string_view payload) {
        if (held_) {
            aside_bytes_ += payload.size();
            if (aside_bytes_ > kPeerFrameBytesMax) {
                end("it sends too much while it is being remembered");
                return false;
            }
            aside_.emplace_back(payload);
            return true;
        }
        proto::Frame& frame = owner_.incoming_;
        if (!frame.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
            end_of_nonsense("a frame that is no message: the other end is no outrider node");
            return false;
        }
        if (!open_) return owner_.on_first_frame(*this, frame);
        if (frame.has_reject()) {
            owner_.on_reject(*this, frame.reject());
            return false;
        }
        if (!dialled_ && !std::exchange(taken_, true)) owner_.handler_.on_peer_taken(peer_);
        if (!frame.has_ping()) owner_.handler_.on_frame(peer_, frame);
        return !closing();
    }
    void on_eof() override { end(uv::end_text(0)); }
    void on_error(int error) override { end(uv::end_text(error)); }
    void on_closed() override {
        owner_.gone(*this);
        delete this;
    }

    Peers& owner_;
    raft::NodeId peer_;
    const bool dialled_ = false;
    bool open_ = false;
    bool taken_ =
        false;  // by the node that dialled: it has answered the greeting with something else than a Reject
    bool held_ = false;
    proto::Hello greeting_;
    std::vector<std::string> aside_;  // payloads that came while held
    std::size_t aside_bytes_ = 0;
    Instant heard_{};
    FrameReader reader_{kGreetingBytesMax};
    std::string outgoing_;
    std::unique_ptr<Alarm> watch_;
};

}  // namespace outrider::node
