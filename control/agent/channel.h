// A connection to one endpoint, with any number of calls in flight on it: pipelined, answered in order.
//
// It knows who rides and whether its end is the endpoint's fault; what becomes of the calls is the client's (client.h), whose
// handlers hear it from PipelinedConnection.
//
// Invariants
//   * on_channel_open() or on_channel_gone() follows open(); on_channel_gone() comes once, on_channel_closed() last
//   * nobody is called after orphan()
#pragma once

#include <deque>

#include "base/http/pipelined_connection.h"

namespace outrider::agent {

class Channel;

class ChannelOwner {
  public:
    virtual void on_channel_open(Channel& channel) = 0;
    // It is closing; forget it. `at_fault`: it never stood, or owed answers.
    virtual void on_channel_gone(Channel& channel, bool at_fault) = 0;

  protected:
    ~ChannelOwner() = default;
};

class Channel final : public http::PipelinedConnection {
  public:
    Channel(uv::Loop& loop, ChannelOwner& owner, const http::ParserLimits& limits,
            http::ParserScratch& scratch)
        : PipelinedConnection(loop, limits, scratch), owner_(&owner) {}

    // The request is appended to outgoing() next. Touches no handler.
    Id join(http::ClientHandler& handler);
    std::size_t in_flight() const { return line_.size(); }
    // The owner goes away: nobody is told of anything any more.
    void orphan();

    // The owner's notes.
    std::size_t endpoint = 0;
    std::size_t lane = 0;

  private:
    ~Channel() override = default;

    void line_opened() override;
    void line_sending(Id) override {}
    void line_sent(Id) override {}
    void line_left(Id) override {}
    bool line_answers(std::uint8_t version_minor, bool keep_alive) override;
    bool line_answered(bool paused) override;
    void line_stuck() override {}
    void line_over(Over over) override;
    void line_gone() override;
    void on_closed() override { delete this; }

    ChannelOwner* owner_;
    std::deque<Id> line_;
    Id next_ = 1;
    bool keep_alive_ = true;
    bool at_fault_ = false;
};

}  // namespace outrider::agent
