#include "base/http/pipelined_connection.h"

#include <algorithm>

#include "base/check.h"

namespace outrider::http {

namespace {
constexpr std::uint8_t kInformationalMax = 16;  // 1xx responses before a final one
constexpr std::size_t kInformationalBytesMax = 64 * 1024;
constexpr Duration kLastWords = std::chrono::seconds(1);  // for the answers of an upstream that takes no more
}  // namespace

PipelinedConnection::PipelinedConnection(uv::Loop& loop, const ParserLimits& limits, ParserScratch& scratch)
    : TcpStream(loop), parser_(Http1Parser::Side::kResponse, limits, scratch) {}

void PipelinedConnection::open(const uv::SocketAddress& to, const Timeouts& timeouts) {
    timeouts_ = timeouts;
    if (auto begun = connect(to); !begun) {
        refused_ = true;  // reported from the loop, so that nobody is called back from within open()
        loop().schedule(*this, Duration(0));
        return;
    }
    loop().schedule(*this, timeouts_.connect);
}

void PipelinedConnection::on_connected() {
    connected_ = true;
    if (unread() != 0) {  // asked once a connection
        finish(Over::kExtra);
        return;
    }
    start_reading();
    await_bytes();
    line_opened();
}

// ---- requests ---------------------------------------------------------------------------------------------------------

void PipelinedConnection::push(Id id, ClientHandler& handler, bool head) {
    require(connected_ && !gone_, "a request rides on a connection that stands");
    if (line_.empty() && !ending_) parser_.reset(head);
    line_.push_back({.id = id, .handler = &handler, .end = 0, .head = head});
    loop().add_turn_end(*this);
}

void PipelinedConnection::request_written() {
    require(line_.size() > begun_, "a request is written by whoever rides");
    line_.back().end = written_ + outgoing_.size();
}

// All that this turn has collected.
void PipelinedConnection::on_turn_end() {
    if (gone_ || outgoing_.empty()) return;
    if (begun_ == 0 && timeouts_.read != Duration(0)) loop().schedule(*this, timeouts_.read);
    if (begun_ == 0 && timeouts_.read == Duration(0)) loop().cancel(*this);  // it is not idle any more
    write_stable(outgoing_);
    loop().flush();
    written_ += outgoing_.size();
    outgoing_.clear();
    if (outgoing_.capacity() > kKeptMax) std::string().swap(outgoing_);
    for (; begun_ < line_.size(); ++begun_) {
        line_sending(line_[begun_].id);
        if (line_[begun_].handler == nullptr) line_left(line_[begun_].id);
    }
    note_sent();
}

void PipelinedConnection::note_sent() {
    const std::uint64_t handed_over = written_ - (blocked() ? std::min<std::uint64_t>(kept(), written_) : 0);
    for (; sent_ < begun_ && line_[sent_].end <= handed_over; ++sent_)
        line_sent(line_[sent_].id);
}

void PipelinedConnection::on_drained() {
    note_sent();
}

void PipelinedConnection::leave(Id id) {
    for (Leaving& l : leaving_) {
        if (l.id == id) l.handler = nullptr;
    }
    for (std::size_t i = 0; i < line_.size(); ++i) {
        if (line_[i].id != id) continue;
        line_[i].handler = nullptr;
        if (i < begun_) line_left(id);  // otherwise when it is written
        if (i == 0) resume(id);         // its answer is read and dropped
        return;
    }
}

bool PipelinedConnection::has_riders() const {
    return std::any_of(line_.begin(), line_.end(), [](const Ride& r) { return r.handler != nullptr; });
}

void PipelinedConnection::pause(Id id) {
    if (!responding_ || line_.front().id != id || paused_) return;
    paused_ = was_paused_ = true;
    held_ = 0;
}

void PipelinedConnection::resume(Id id) {
    if (!paused_ || line_.front().id != id) return;
    paused_ = false;
    if (!held_up_) return;
    held_up_ = false;
    start_reading();
    await_bytes();
}

// ---- responses --------------------------------------------------------------------------------------------------------

// The upstream has its time while something is outstanding that has left, and while we read.
void PipelinedConnection::await_bytes() {
    if (gone_ || held_up_ || broken_) return;
    const Duration wait = begun_ > 0 ? timeouts_.read : timeouts_.idle;
    wait == Duration(0) ? loop().cancel(*this) : loop().schedule(*this, wait);
}

void PipelinedConnection::on_read(std::string_view data) {
    if (blocked()) note_sent();
    read_responses(data);
    await_bytes();
    settle();
}

void PipelinedConnection::read_responses(std::string_view data) {
    while (!gone_) {
        if (begun_ == 0) {  // bytes without a request are nobody's answer
            if (!data.empty()) {
                over_reason_ = "the upstream sent what nobody asked for";
                finish(Over::kExtra);
            }
            return;
        }
        const Step step = parser_.step(data);
        data.remove_prefix(step.consumed);
        switch (step.kind) {
            case Step::Kind::kNeedMore:
                return;
            case Step::Kind::kError:
                fail_front(ClientError::kProtocol, parser_.error_reason());
                finish(Over::kBroke);
                return;
            case Step::Kind::kHead:
                if (!on_head()) return;
                break;
            case Step::Kind::kBody:
                on_body();
                break;
            case Step::Kind::kEnd:
                if (!responding_) {  // of a 1xx
                    parser_.reset(line_.front().head);
                } else if (!on_end()) {
                    return;
                }
                break;
        }
    }
}

// False when the connection is no longer to be read.
bool PipelinedConnection::on_head() {
    ResponseHead& head = parser_.response();
    if (head.status < 200) return on_informational(head);
    if (!line_answers(head.version_minor, head.keep_alive && head.framing != Framing::kUntilClose)) {
        finish(Over::kExtra);
        return false;
    }
    responding_ = true;
    paused_ = was_paused_ = false;
    held_ = dropped_ = 0;
    if (ClientHandler* handler = line_.front().handler) handler->on_response_head(head);
    return !gone_;
}

bool PipelinedConnection::on_informational(ResponseHead& head) {
    if (head.status == 101) {  // what asks for it does not ride
        fail_front(ClientError::kProtocol, "the upstream switched protocols unasked");
        finish(Over::kBroke);
        return false;
    }
    informational_bytes_ += head.bytes_size;
    if (++informational_ > kInformationalMax || informational_bytes_ > kInformationalBytesMax) {
        fail_front(ClientError::kProtocol, "too many informational responses");
        finish(Over::kBroke);
        return false;
    }
    if (ClientHandler* handler = line_.front().handler) handler->on_response_head(head);
    return !gone_;
}

void PipelinedConnection::on_body() {
    std::size_t size = 0;
    for (const std::string_view s : parser_.body())
        size += s.size();
    if (ClientHandler* handler = line_.front().handler) {
        if (paused_) held_ += size;
        handler->on_response_body(parser_.body());
        if (gone_ || !paused_ || held_up_ || held_ <= kHeldMax) return;
        held_up_ = true;
        stop_reading();
        loop().schedule(*this, timeouts_.stall);
    } else if ((dropped_ += size) > kDroppedMax) {
        over_reason_ = "the answer in front was too long for a client that had left";
        finish(Over::kGivenUp);
    }
}

// The front's response has ended whole. False when nothing more is to be read.
bool PipelinedConnection::on_end() {
    ClientHandler* handler = line_.front().handler;
    const bool goes_on = line_answered(was_paused_) && parser_.error() == ParseError::kNone;
    line_.pop_front();
    --begun_;
    if (sent_ > 0) --sent_;
    responding_ = paused_ = false;
    informational_ = 0;
    informational_bytes_ = 0;
    if (held_up_) {
        held_up_ = false;
        start_reading();
    }
    // The trailers lie in the parser: the handler comes before it is reset, also by what the handler sends next.
    ending_ = true;
    if (handler != nullptr) handler->on_response_end(parser_.trailers());
    ending_ = false;
    if (gone_) return false;
    if (!goes_on) {
        finish(Over::kGivenUp);
        return false;
    }
    parser_.reset(!line_.empty() && line_.front().head);
    return true;
}

// ---- ends -------------------------------------------------------------------------------------------------------------

void PipelinedConnection::on_eof() {
    if (responding_ && parser_.finish()) {  // the body of the last response ends so
        if (on_end()) finish(Over::kBroke);
    } else {
        broken_off("the upstream closed the connection");
    }
    settle();
}

void PipelinedConnection::on_error(int) {
    broken_off("the upstream reset the connection");
    settle();
}

// What has been answered waits to be read perhaps (RFC 9112 section 9.5).
void PipelinedConnection::on_write_error(int os_error) {
    if (!connected_ || line_.empty() || !reading()) {
        on_error(os_error);
        return;
    }
    broken_ = true;
    loop().schedule(*this, kLastWords);
}

void PipelinedConnection::broken_off(const char* reason) {
    over_reason_ = reason;
    finish(Over::kBroke);
}

void PipelinedConnection::give_up() {
    over_reason_ = "the connection was given up";
    finish(Over::kGivenUp);
    settle();
}

void PipelinedConnection::on_timeout(Instant) {
    if (gone_) return;
    const uv::Loop::Event event(loop());
    if (refused_ || !connected_) {
        finish(Over::kBroke);
    } else if (held_up_) {
        over_reason_ = "the connection was left to a client that reads slowly";
        line_stuck();
    } else if (line_.empty()) {
        finish(Over::kGivenUp);
    } else if (broken_) {
        broken_off("the upstream closed the connection");
    } else {
        const bool taken = sent_ > 0;
        fail_front(
            taken ? ClientError::kReadTimeout : ClientError::kWriteTimeout,
            taken ? "the upstream did not answer in time" : "the upstream did not take the request in time");
        over_reason_ = "the answer in front did not come in time";
        finish(Over::kGivenUp);
    }
    settle();
}

// The front's own failure, as opposed to that of those behind it.
void PipelinedConnection::fail_front(ClientError error, const char* reason) {
    Ride& front = line_.front();
    over_reason_ = reason;
    if (front.handler == nullptr) return;
    leaving_.push_back({front.id, front.handler, {error, true, true, reason, false}});
    front.handler = nullptr;
    line_left(front.id);
}

void PipelinedConnection::finish(Over over) {
    if (gone_) return;
    line_over(over);
    drop();
}

void PipelinedConnection::drop() {
    gone_ = true;
    line_.clear();
    begun_ = sent_ = 0;
    outgoing_.clear();
    loop().cancel(*this);
    line_gone();
    close();
}

void PipelinedConnection::hand_back(Id id) {
    take_out(id, {ClientError::kReset, true, true, over_reason_, true});
}

void PipelinedConnection::fail_ride(Id id) {
    const bool begun = responding_ && line_.front().id == id;
    take_out(id, {begun ? ClientError::kIncomplete : ClientError::kReset, true, true, over_reason_, false});
}

void PipelinedConnection::take_out(Id id, const ClientFailure& failure) {
    for (std::size_t i = 0; i < line_.size(); ++i) {
        Ride& ride = line_[i];
        if (ride.id != id) continue;
        leaving_.push_back({id, ride.handler, failure});
        leaving_.back().failure.request_sent = i < begun_;
        // Those that have not begun to leave go all together, so none of them is written any more.
        if (i >= begun_) outgoing_.clear();
        ride.handler = nullptr;  // its place in the line stays until its answer or the end
        return;
    }
}

// Last in an event: whoever is told may begin anew elsewhere, or end others.
void PipelinedConnection::settle() {
    if (settling_) return;
    settling_ = true;
    for (std::size_t i = 0; i < leaving_.size(); ++i) {  // may grow
        const ClientFailure failure = leaving_[i].failure;
        if (ClientHandler* handler = std::exchange(leaving_[i].handler, nullptr)) handler->on_failed(failure);
    }
    leaving_.clear();
    settling_ = false;
}

}  // namespace outrider::http
