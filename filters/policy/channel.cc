#include "filters/policy/channel.h"

#include <algorithm>

#include "base/check.h"

namespace outrider::policy {

std::string_view to_text(ChannelEnd end) {
    switch (end) {
        case ChannelEnd::kBroke:
            return "broke";
        case ChannelEnd::kClosed:
            return "closed";
        case ChannelEnd::kIdle:
            return "idle";
        case ChannelEnd::kHttp10:
            return "http10";
        case ChannelEnd::kUnasked:
            return "unasked_response";
        case ChannelEnd::kAnsweredEarly:
            return "answered_early";
        case ChannelEnd::kGivenUp:
            return "given_up";
    }
    return "unknown";
}

Channel::Refusal Channel::refusal(bool safe_to_repeat, Instant now) const {
    if (end_ || last_response_) return Refusal::kEnded;
    if (!safe_to_repeat) return Refusal::kNotRepeatable;
    if (alone_ && !line_.empty()) return Refusal::kAlone;
    if (line_.size() >= limits_.depth) return Refusal::kFull;
    const auto stall = stalls_at();
    if (stall && now >= *stall) return Refusal::kStalled;
    return Refusal::kNone;
}

void Channel::push(RideId id, bool repeated, Instant now) {
    require(refusal(true, now) == Refusal::kNone, "a request rides only where nothing speaks against it");
    if (line_.empty()) front_since_ = now;
    line_.push_back({.id = id, .repeated = repeated, .pushed = now});
    in_flight_most_ = std::max(in_flight_most_, line_.size());
}

Channel::Ride* Channel::find(RideId id) {
    if (line_.empty()) return nullptr;
    // Ids mostly follow each other, and the line may be hundreds long.
    const std::uint64_t guess = static_cast<std::uint64_t>(id) - static_cast<std::uint64_t>(line_.front().id);
    if (guess < line_.size() && line_[guess].id == id) return &line_[guess];
    const auto found = std::find_if(line_.begin(), line_.end(), [id](const Ride& r) { return r.id == id; });
    return found == line_.end() ? nullptr : &*found;
}

void Channel::sending(RideId id) {
    Ride* ride = find(id);
    if (ride != nullptr && ride->stage == Stage::kWritten) ride->stage = Stage::kSending;
}

void Channel::sent(RideId id) {
    if (Ride* ride = find(id)) ride->stage = Stage::kSent;
}

bool Channel::leave(RideId id) {
    const auto found = std::find_if(line_.begin(), line_.end(), [id](const Ride& r) { return r.id == id; });
    if (found == line_.end()) return false;
    if (found->stage != Stage::kWritten) {
        found->left = true;
        return false;
    }
    line_.erase(found);
    return true;
}

std::optional<RideId> Channel::front() const {
    if (line_.empty()) return std::nullopt;
    return line_.front().id;
}

std::optional<RideId> Channel::front_client() const {
    if (line_.front().left) return std::nullopt;
    return line_.front().id;
}

std::optional<Instant> Channel::stalls_at() const {
    if (line_.empty() || end_) return std::nullopt;
    return front_since_ + limits_.stall_timeout;
}

Channel::Delivery Channel::response_head(ResponseHead head) {
    if (end_) return {};
    if (line_.empty() || line_.front().stage == Stage::kWritten || responding_)
        return {.to = std::nullopt, .left = finish(ChannelEnd::kUnasked)};
    responding_ = true;
    Delivery delivery{.to = front_client(), .left = {}};
    const bool http10 = head.version_minor == 0;
    if (http10 || !head.keep_alive) {
        last_response_ = http10 ? ChannelEnd::kHttp10 : ChannelEnd::kClosed;
        hand_back(1, true, delivery.left);
    } else if (line_.front().stage != Stage::kSent) {
        last_response_ = ChannelEnd::kAnsweredEarly;
        hand_back(1, true, delivery.left);  // what lies behind an unfinished body cannot have left
    }
    return delivery;
}

Channel::Delivery Channel::response_end(Instant now) {
    if (end_) return {};
    require(responding_, "a response ends after it began");
    Delivery delivery{.to = front_client(), .left = {}};
    responding_ = false;
    alone_ = false;
    ++answered_;
    if (line_.size() > 1) ++answered_pipelined_;
    line_.pop_front();
    if (last_response_) {
        delivery.left = finish(*last_response_);
    } else if (!line_.empty()) {
        front_since_ = now;
    }
    return delivery;
}

LeftBehind Channel::broke() {
    return finish(line_.empty() ? ChannelEnd::kIdle : ChannelEnd::kBroke);
}

LeftBehind Channel::release_behind() {
    LeftBehind left;
    if (end_ || !responding_) return left;
    if (!last_response_) last_response_ = ChannelEnd::kGivenUp;
    hand_back(1, false, left);
    return left;
}

LeftBehind Channel::finish(ChannelEnd end) {
    LeftBehind left;
    if (end_) return left;
    end_ = end;
    std::size_t first = 0;
    if (responding_) {
        if (!line_.front().left) left.failed.push_back(line_.front().id);
        ++unanswered_;
        first = 1;
    }
    left.start_alone = line_.size() > first && end != ChannelEnd::kClosed;
    hand_back(first, false, left);
    line_.clear();
    responding_ = false;
    return left;
}

void Channel::hand_back(std::size_t first, bool unprocessed, LeftBehind& out) {
    for (std::size_t i = first; i < line_.size(); ++i) {
        ++unanswered_;
        const Ride& ride = line_[i];
        if (ride.left) continue;
        const bool executed_perhaps = !unprocessed && ride.stage != Stage::kWritten;
        if (executed_perhaps && ride.repeated) {
            out.failed.push_back(ride.id);
        } else {
            out.send_again.push_back({.id = ride.id, .repeated = ride.repeated || executed_perhaps});
        }
    }
    line_.resize(std::min(first, line_.size()));
}

std::string_view to_text(PipelineSupport::Unfit unfit) {
    switch (unfit) {
        case PipelineSupport::Unfit::kHttp10:
            return "it answers in HTTP/1.0";
        case PipelineSupport::Unfit::kUnasked:
            return "it sent a response that nobody asked for";
        case PipelineSupport::Unfit::kCloses:
            return "it closes its connections after a few responses";
        case PipelineSupport::Unfit::kBreaks:
            return "its connections break whenever more than one request waits on them";
    }
    return "unknown";
}

Channel::Start PipelineSupport::start(bool after_break) const {
    return proved_ && !after_break ? Channel::Start::kTogether : Channel::Start::kAlone;
}

void PipelineSupport::proved() {
    proved_ = true;
    ends_ = 0;
    unfit_.reset();
    retry_after_ = kRetryAfter;
}

std::optional<PipelineSupport::Unfit> PipelineSupport::ended(const Channel& channel, Instant now) {
    if (unfit_ && now < retry_at_) return std::nullopt;  // one of the channels from before
    std::optional<Unfit> verdict;
    const ChannelEnd end = channel.ended().value_or(ChannelEnd::kGivenUp);
    if (end == ChannelEnd::kHttp10) verdict = Unfit::kHttp10;
    // Servers answer an idle connection 408 before they close it: nobody's response either, but no confusion.
    if (end == ChannelEnd::kUnasked && channel.unanswered() > 0) verdict = Unfit::kUnasked;
    const bool broke = end == ChannelEnd::kBroke && channel.in_flight_most() >= 2;
    if (broke || end == ChannelEnd::kClosed) {
        const bool same_event = ends_ > 0 && now - last_end_ < kSameEvent;
        if (channel.answered() < kAnswersMin && !same_event) {
            last_end_ = now;
            if (++ends_ >= kEndsMax) verdict = broke ? Unfit::kBreaks : Unfit::kCloses;
        }
    }
    if (!verdict) return std::nullopt;
    if (unfit_) retry_after_ = std::min(2 * retry_after_, kRetryAfterMax);
    unfit_ = verdict;
    retry_at_ = now + retry_after_;
    proved_ = false;
    ends_ = 0;
    return verdict;
}

}  // namespace outrider::policy
