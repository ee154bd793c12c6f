#include "control/agent/pending_call.h"

#include "control/api/errors.h"
#include "control/api/session.h"

namespace outrider::agent {

Client::PendingCall::PendingCall(Client& client, CallId id, std::string path, std::string body, Effect effect,
                                 const CallOptions& options, Instant deadline, RawDone done)
    : client_(client),
      id_(id),
      path_(std::move(path)),
      body_(std::move(body)),
      effect_(effect),
      options_(options),
      deadline_(deadline),
      done_(std::move(done)) {}

Client::PendingCall::~PendingCall() {
    if (channel_ != nullptr) channel_->leave(ride_);
}

void Client::PendingCall::end_later(RawReply reply) {
    ended_ = std::move(reply);
    client_.loop_.schedule(*this, Duration(0));
}

void Client::PendingCall::stand_in_line() {
    in_line_ = true;
    wait_until(deadline_);
}

void Client::PendingCall::not_sent_later() {
    unsent_ = true;
    client_.loop_.schedule(*this, Duration(0));
}

// ---- an attempt -------------------------------------------------------------------------------------------------------

void Client::PendingCall::go_to(std::size_t endpoint) {
    endpoint_ = endpoint;
    tried_.set(endpoint);
    boarding_ = true;
    begun_ = client_.loop_.now();
    wait_until(begun_ + client_.options_.attempt_timeout);
}

void Client::PendingCall::ride(Channel& channel) {
    boarding_ = false;
    status_ = 0;
    answer_.clear();
    channel_ = &channel;
    ride_ = channel.join(*this);
    std::string& out = channel.outgoing();
    out += "POST " + path_ + " HTTP/1.1\r\nHost: " + client_.endpoints_[endpoint_].text +
           "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body_.size()) + "\r\n";
    if (ticket_) {
        out.append(api::kSessionHeader).append(": ").append(std::to_string(ticket_->session)).append("\r\n");
        out.append(api::kSequenceHeader)
            .append(": ")
            .append(std::to_string(ticket_->sequence))
            .append("\r\n");
    }
    out += "\r\n";
    out += body_;
    channel.request_written();
}

void Client::PendingCall::end_attempt(const AttemptEnd& end, std::string reason) {
    const Instant now = client_.loop_.now();
    channel_ = nullptr;
    if (endpoint_at_fault(end)) client_.choice_.failed(endpoint_, now);
    if (end.kind == AttemptEnd::Kind::kAnswered && !endpoint_at_fault(end))
        client_.choice_.succeeded(endpoint_);
    const Verdict verdict = judge(end, effect_, unsettled_);
    note_reason(end, reason, now);
    if (verdict == Verdict::kAnotherSession && now < deadline_ && ++sessions_lost_ <= kSessionsLostMax) {
        client_.change_session(*this);
        return;
    }
    if (verdict == Verdict::kDeliver || verdict == Verdict::kAnotherSession) {
        deliver(end, std::move(reason));
        return;
    }
    if (verdict == Verdict::kUnknown && effect_ == Effect::kSession) {
        end_unknown(end, std::move(reason));
        return;
    }
    if (verdict == Verdict::kUnknown || options_.endpoint != kAnyEndpoint || now >= deadline_ ||
        refusal_stands(now)) {
        give_up();
        return;
    }
    client_.attempt(*this);
}

void Client::PendingCall::leave() {
    Channel* channel = std::exchange(channel_, nullptr);
    channel->leave(ride_);
    if (!channel->has_riders()) channel->give_up();  // nobody waits for what it owes
}

// ---- what the caller hears --------------------------------------------------------------------------------------------

void Client::PendingCall::deliver(const AttemptEnd& end, std::string reason) {
    RawReply reply;
    reply.endpoint = client_.endpoints_[endpoint_].text;
    if (end.http_status == 200) {
        reply.outcome = Outcome::kOk;
        reply.body = std::move(answer_);
    } else {
        reply.outcome = Outcome::kRefused;
        reply.code = end.code;
        reply.reason = std::move(reason);
    }
    client_.finish(*this, std::move(reply));
}

// A refusal that tells nothing of a copy before it, or that the answer is gone.
void Client::PendingCall::end_unknown(const AttemptEnd& end, std::string reason) {
    RawReply reply;
    reply.outcome = Outcome::kUnknown;
    reply.endpoint = client_.endpoints_[endpoint_].text;
    reply.code = end.code;
    reply.reason = std::move(reason);
    client_.finish(*this, std::move(reply));
}

// Of several attempts the caller hears the one that says most: a refusal, else a silence, else no connection. But of a call
// whose outcome is unknown, why it is.
void Client::PendingCall::note_reason(const AttemptEnd& end, const std::string& reason, Instant now) {
    const bool settled = without_effect(end) || effect_ == Effect::kRead;
    const Telling telling = end.kind == AttemptEnd::Kind::kAnswered  ? Telling::kRefusal
                            : end.kind == AttemptEnd::Kind::kNotSent ? Telling::kUnreached
                                                                     : Telling::kSilence;
    if (settled && telling == Telling::kRefusal) {
        refusal_time_ = now - begun_;
        refused_by_ = endpoint_;
        refusal_code_ = end.code;
    }
    if (settled && (unsettled_ || telling < told_)) return;
    unsettled_ |= !settled;
    told_ = telling;
    told_reason_ = client_.endpoints_[endpoint_].text + ": " + reason;
}

// Everyone was asked, and one more try would not be answered in time, going by how long the refusal took: of a write it
// would make the outcome unknown, which is known now.
bool Client::PendingCall::refusal_stands(Instant now) const {
    return refusal_time_ && tried_.count() == client_.endpoints_.size() &&
           deadline_ - now < 2 * *refusal_time_;
}

void Client::PendingCall::give_up() {
    RawReply reply;
    reply.outcome = unsettled_ ? Outcome::kUnknown : Outcome::kUnavailable;
    reply.reason = told_reason_.empty() ? "no endpoint could be reached in time" : told_reason_;
    if (!unsettled_ && refusal_time_) {
        reply.endpoint = client_.endpoints_[refused_by_].text;
        reply.code = refusal_code_;
    }
    client_.finish(*this, std::move(reply));
}

// ---- events -----------------------------------------------------------------------------------------------------------

void Client::PendingCall::on_response_head(http::ResponseHead& head) {
    if (head.status >= 200) status_ = head.status;
}

void Client::PendingCall::on_response_body(std::span<const std::string_view> slices) {
    for (const std::string_view s : slices) {
        if (too_large_) return;
        too_large_ = answer_.size() + s.size() > client_.options_.answer_bytes_max;
        if (!too_large_) answer_.append(s);
    }
    if (!too_large_) return;
    std::string().swap(answer_);
    Channel* channel = std::exchange(channel_, nullptr);
    channel->leave(ride_);
    end_attempt({.kind = AttemptEnd::Kind::kAnswered,
                 .http_status = 413,
                 .code = static_cast<int>(api::Code::kResourceExhausted)},
                "the answer is larger than " + std::to_string(client_.options_.answer_bytes_max) + " bytes");
}

void Client::PendingCall::on_response_end(std::span<const http::Field>) {
    if (status_ == 200) {
        end_attempt({.http_status = 200}, {});
        return;
    }
    const v3::Refusal refusal = refusal_from(status_, answer_);
    end_attempt(end_of_refused(status_, refusal), refusal.message());
}

void Client::PendingCall::on_failed(const http::ClientFailure& failure) {
    const bool unsent = !failure.request_sent || failure.returned;
    const bool garbled = failure.error == http::ClientError::kProtocol;
    end_attempt({.kind = unsent    ? AttemptEnd::Kind::kNotSent
                         : garbled ? AttemptEnd::Kind::kGarbled
                                   : AttemptEnd::Kind::kLost},
                failure.reason);
}

void Client::PendingCall::on_timeout(Instant now) {
    const uv::Loop::Event event(client_.loop_);
    if (ended_) {
        client_.finish(*this, std::move(*ended_));
    } else if (std::exchange(unsent_, false)) {
        boarding_ = false;
        end_attempt({.kind = AttemptEnd::Kind::kNotSent}, "cannot be connected to");
    } else if (now >= deadline_) {
        on_deadline();
    } else if (channel_ != nullptr) {
        on_silence(now);
    } else if (std::exchange(boarding_, false)) {
        end_attempt({.kind = AttemptEnd::Kind::kNotSent}, "cannot be connected to in time");
    } else {
        client_.attempt(*this);
    }
}

void Client::PendingCall::on_deadline() {
    if (channel_ != nullptr) {
        const Instant now = client_.loop_.now();
        client_.choice_.failed(endpoint_, now);
        note_reason({.kind = AttemptEnd::Kind::kSilent}, "no answer in time", now);
        leave();
    } else if (boarding_ && !unsettled_ && told_reason_.empty()) {
        told_reason_ = client_.endpoints_[endpoint_].text + ": cannot be connected to in time";
    } else if (in_line_ && told_reason_.empty()) {
        told_reason_ = "no session was opened or free in time";
    }
    give_up();
}

// The endpoint does not answer: others are asked, and a write that may have taken effect waits on. When there is nobody else
// to ask, it is given as long as a member without a leader needs to say so.
void Client::PendingCall::on_silence(Instant now) {
    const Instant last = begun_ + kLastAnswer * client_.options_.attempt_timeout;
    const bool elsewhere = judge({.kind = AttemptEnd::Kind::kSilent}, effect_) == Verdict::kElsewhere &&
                           options_.endpoint == kAnyEndpoint;
    if (elsewhere && now < last && tried_.count() == client_.endpoints_.size()) {
        client_.choice_.failed(endpoint_, now);
        wait_until(last);
        return;
    }
    if (elsewhere) {
        leave();
        end_attempt({.kind = AttemptEnd::Kind::kSilent}, "no answer in time");
        return;
    }
    client_.choice_.failed(endpoint_, now);
    wait_until(deadline_);
}

}  // namespace outrider::agent
