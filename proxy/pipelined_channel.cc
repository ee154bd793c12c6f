#include "proxy/pipelined_channel.h"

namespace outrider::proxy {

policy::Channel::Refusal PipelinedChannel::refusal(Instant now) const {
    if (retired_ || !connected()) return policy::Channel::Refusal::kEnded;
    if (congested()) return policy::Channel::Refusal::kStalled;
    return line_.refusal(true, now);
}

http::PipelinedConnection::Id PipelinedChannel::join(http::ClientHandler& handler, bool head, Instant now) {
    const Id id = next_++;
    line_.push(policy::RideId{id}, false, now);
    push(id, handler, head);
    return id;
}

void PipelinedChannel::leave(Id id) {
    PipelinedConnection::leave(id);
    if (retired_ && !has_riders()) give_up();
}

void PipelinedChannel::retire() {
    retired_ = true;
    if (!has_riders()) give_up();
}

bool PipelinedChannel::newly_stalled(Instant now) {
    const std::optional<Instant> stall = line_.stalls_at();
    if (!stall || now < *stall || stalled_ == line_.front()) return false;
    stalled_ = line_.front();
    return true;
}

bool PipelinedChannel::line_answers(std::uint8_t version_minor, bool keep_alive) {
    const policy::Channel::Delivery delivery =
        line_.response_head({.version_minor = version_minor, .keep_alive = keep_alive});
    take(delivery.left);
    return !line_.ended();
}

bool PipelinedChannel::line_answered(bool paused) {
    const policy::Channel::Delivery delivery = line_.response_end(loop().now());
    take(delivery.left);
    owner_.on_channel_answered(*this, !paused);
    return !line_.ended() && !(retired_ && line_.in_flight() == 0);
}

void PipelinedChannel::line_over(Over over) {
    switch (over) {
        case Over::kBroke:
            take(line_.broke());
            break;
        case Over::kExtra:
            take(line_.extra_bytes());
            break;
        case Over::kGivenUp:
            take(line_.give_up());
            break;
    }
}

void PipelinedChannel::take(const policy::LeftBehind& left) {
    start_alone_ |= left.start_alone;
    for (const policy::Return& r : left.send_again)
        hand_back(static_cast<Id>(r.id));
    for (const policy::RideId id : left.failed)
        fail_ride(static_cast<Id>(id));
}

}  // namespace outrider::proxy
