// One call of the client, from its begin to its callback: the attempts it makes, and which of their ends the caller hears.
//
// Where it is: refused and told so later; in line for a session; resting until an endpoint may be asked; waiting for a connection
// (boarding_); on one (channel_). Its one timer is the next thing that can happen to it without the others.
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "control/agent/client.h"

namespace outrider::agent {

class Client::PendingCall final : public http::ClientHandler, public Timer {
  public:
    PendingCall(Client& client, CallId id, std::string path, std::string body, Effect effect,
                const CallOptions& options, Instant deadline, RawDone done);
    ~PendingCall() override;

    CallId id() const { return id_; }
    const CallOptions& options() const { return options_; }
    bool in_session() const { return effect_ == Effect::kSession; }
    std::size_t bytes() const { return path_.size() + body_.size(); }
    const EndpointSet& tried() const { return tried_; }
    RawDone take_done() { return std::move(done_); }

    // Ends so, without another attempt. Told from the loop, so that callbacks come one by one.
    void end_later(RawReply reply);
    void stand_in_line();
    // Of every attempt from now on.
    void set_ticket(const SessionPool::Ticket& ticket) {
        in_line_ = false;
        ticket_ = ticket;
    }
    void wait_until(Instant at) { client_.loop_.timers().schedule(*this, std::min(at, deadline_)); }
    void go_to(std::size_t endpoint);
    // It waits for a connection to this endpoint.
    bool waits_for(std::size_t endpoint) const { return boarding_ && endpoint_ == endpoint; }
    // The connection does not come; told from the loop likewise.
    void not_sent_later();
    void ride(Channel& channel);

  private:
    enum class Telling : std::uint8_t { kUnreached, kSilence, kRefusal };

    // The attempt has ended. The call may be gone afterwards.
    void end_attempt(const AttemptEnd& end, std::string reason);
    void deliver(const AttemptEnd& end, std::string reason);
    void end_unknown(const AttemptEnd& end, std::string reason);
    void note_reason(const AttemptEnd& end, const std::string& reason, Instant now);
    bool refusal_stands(Instant now) const;
    void give_up();
    void leave();

    void on_connected() override {}
    void on_response_head(http::ResponseHead& head) override;
    void on_response_body(std::span<const std::string_view> slices) override;
    void on_response_end(std::span<const http::Field> trailers) override;
    void on_failed(const http::ClientFailure& failure) override;
    void on_timeout(Instant now) override;
    void on_deadline();
    void on_silence(Instant now);

    static constexpr int kLastAnswer = 3;       // attempt timeouts
    static constexpr int kSessionsLostMax = 3;  // a cluster that opens sessions and then does not know them

    Client& client_;
    const CallId id_;
    const std::string path_;
    const std::string body_;
    const Effect effect_;
    const CallOptions options_;
    const Instant deadline_;
    RawDone done_;
    std::optional<SessionPool::Ticket> ticket_;
    int sessions_lost_ = 0;
    EndpointSet tried_;
    std::size_t endpoint_ = 0;
    Channel* channel_ = nullptr;  // riding
    Channel::Id ride_ = 0;
    std::optional<RawReply> ended_;
    int status_ = 0;
    std::string answer_;
    Instant begun_{};  // the attempt
    std::string told_reason_;
    Telling told_ = Telling::kUnreached;
    std::optional<Duration> refusal_time_;  // the last refusal, after which the call went on, took so long
    std::size_t refused_by_ = 0;
    int refusal_code_ = 0;
    bool too_large_ = false;
    bool in_line_ = false;
    bool boarding_ = false;
    bool unsent_ = false;
    bool unsettled_ = false;  // an attempt may have taken effect
};

}  // namespace outrider::agent
