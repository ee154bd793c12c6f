// A pipelined connection with the rules of policy::Channel: who rides, and what becomes of those an end leaves behind.
//
// The owner decides how many channels there are and which of them a request takes (upstream_pipeline.cc).
//
// Invariants
//   * the Channel's line and the connection's are the same, in the same order
//   * the owner hears on_channel_gone() once, with line().ended() set, and then on_channel_closed()
#pragma once

#include "base/http/pipelined_connection.h"
#include "filters/policy/channel.h"
#include "filters/policy/channel_depth.h"

namespace outrider::proxy {

class PipelinedChannel;

class PipelinedChannelOwner {
  public:
    virtual void on_channel_open(PipelinedChannel& channel) = 0;
    // The front was answered whole. `counts`: its time says something about the upstream.
    virtual void on_channel_answered(PipelinedChannel& channel, bool counts) = 0;
    // `start_alone`: the connection that takes its place starts so.
    virtual void on_channel_gone(PipelinedChannel& channel, bool start_alone) = 0;
    virtual void on_channel_closed(PipelinedChannel& channel) = 0;  // delete it

  protected:
    ~PipelinedChannelOwner() = default;
};

class PipelinedChannel : public http::PipelinedConnection {
  public:
    PipelinedChannel(uv::Loop& loop, PipelinedChannelOwner& owner, const http::ParserLimits& limits,
                     http::ParserScratch& scratch, policy::ChannelLimits channel,
                     policy::Channel::Start start, policy::ChannelDepth::Socket number)
        : PipelinedConnection(loop, limits, scratch), owner_(owner), line_(channel, start), number_(number) {}
    ~PipelinedChannel() override = default;

    // Why a request that is safe to repeat may not ride now.
    policy::Channel::Refusal refusal(Instant now) const;
    // refusal() is kNone. The request is appended to outgoing() next.
    Id join(http::ClientHandler& handler, bool head, Instant now);
    // As PipelinedConnection's; one that is retired ends when nobody waits for an answer.
    void leave(Id id);
    // Takes no more, and ends with its last answer.
    void retire();

    const policy::Channel& line() const { return line_; }
    policy::ChannelDepth::Socket number() const { return number_; }
    // True the first time it is asked about a response in front that is late.
    bool newly_stalled(Instant now);
    bool proved = false;  // the owner's note

  private:
    void line_opened() override { owner_.on_channel_open(*this); }
    void line_sending(Id id) override { line_.sending(policy::RideId{id}); }
    void line_sent(Id id) override { line_.sent(policy::RideId{id}); }
    void line_left(Id id) override { line_.leave(policy::RideId{id}); }
    bool line_answers(std::uint8_t version_minor, bool keep_alive) override;
    bool line_answered(bool paused) override;
    void line_stuck() override { take(line_.release_behind()); }
    void line_over(Over over) override;
    void line_gone() override { owner_.on_channel_gone(*this, start_alone_); }
    void on_closed() override { owner_.on_channel_closed(*this); }
    void take(const policy::LeftBehind& left);

    PipelinedChannelOwner& owner_;
    policy::Channel line_;
    policy::ChannelDepth::Socket number_;
    Id next_ = 1;
    std::optional<policy::RideId> stalled_;  // the front that has been counted
    bool start_alone_ = false;
    bool retired_ = false;
};

}  // namespace outrider::proxy
