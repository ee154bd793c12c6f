#include "control/agent/channel.h"

#include <utility>

namespace outrider::agent {

http::PipelinedConnection::Id Channel::join(http::ClientHandler& handler) {
    const Id id = next_++;
    line_.push_back(id);
    push(id, handler, false);
    return id;
}

void Channel::orphan() {
    owner_ = nullptr;
    give_up();
}

void Channel::line_opened() {
    if (owner_ != nullptr) owner_->on_channel_open(*this);
}

bool Channel::line_answers(std::uint8_t version_minor, bool keep_alive) {
    keep_alive_ = keep_alive && version_minor != 0;
    return true;
}

bool Channel::line_answered(bool) {
    if (!line_.empty()) line_.pop_front();
    return keep_alive_;
}

void Channel::line_over(Over over) {
    at_fault_ = !connected() || (keep_alive_ && !line_.empty()) || over == Over::kExtra;
    // Who said that it closes does not act on what came behind (RFC 9112 section 9.6).
    for (const Id id : std::exchange(line_, {})) {
        if (keep_alive_) {
            fail_ride(id);
        } else {
            hand_back(id);
        }
    }
}

void Channel::line_gone() {
    if (owner_ != nullptr) owner_->on_channel_gone(*this, at_fault_);
}

}  // namespace outrider::agent
