#include "base/http/server_connection.h"

#include <algorithm>

#include "base/check.h"

namespace outrider::http {

namespace {
using namespace std::chrono_literals;

constexpr std::uint64_t kNotMeasured = ~std::uint64_t{0};
constexpr Duration kLingerMax = 2s;  // waiting for the client's FIN so that our last bytes are not reset away
constexpr Duration kDrainIdle = 1s;  // while draining, a connection idle for so long is closed
constexpr std::size_t kPendingMax = 64 * 1024;
constexpr std::uint64_t kUnsentWatch =
    16 * 1024;  // below it the kernel holds too little to be worth an attack

// What may wait for its turn before no further request of the connection is begun.
constexpr std::size_t kHeldMax = 64 * 1024;

std::uint64_t bytes_in(Duration window, std::uint64_t rate) {
    return rate * static_cast<std::uint64_t>(millis_of(window)) / 1000;
}
}  // namespace

ServerConnection::ServerConnection(uv::Loop& loop, ServerHandler& handler, const ServerLimits& limits,
                                   ParserScratch& scratch)
    : TcpStream(loop),
      handler_(handler),
      limits_(limits),
      parser_(Http1Parser::Side::kRequest, limits.parser, scratch) {}

Result<void> ServerConnection::start(int fd) {
    if (auto adopted = adopt(fd); !adopted) return adopted;
    peer_ip_ = peer().ip();
    phase_began_ = loop().now();
    start_reading();
    arm();
    return {};
}

// ---- input --------------------------------------------------------------------------------------------------------

void ServerConnection::on_read(std::string_view data) {
    if (lingering_ || failed_) return;  // discarded: the answer that closes is on its way
    if (tunnel_) {
        if (front_->response_finished_) phase_began_ = loop().now();
        front_->request_bytes_ += data.size();
        front_->on_request_body({&data, 1});
        return;
    }
    if (pending_) {
        keep_pending(data);
        process_pending();
    } else {
        process(data);
    }
    if (!closing()) arm();
}

std::size_t ServerConnection::large_read_limit() {
    return (receiving_ || tunnel_) && back_ != nullptr ? back_->request_room() : kRead;
}

bool ServerConnection::must_wait() const {
    if (waiting_start_) return true;
    // Behind an upgrade nobody knows yet whether a request or the tunnel's first bytes follow (RFC 9110 section 7.8).
    if (back_ != nullptr && back_->request_.upgrade && !tunnel_ && !back_->response_finished_) return true;
    // A client that asks on without reading must not make us keep its answers.
    if (!receiving_ && blocked()) return true;
    return !receiving_ && exchange_count_ >= limits_.pipelined_max;
}

void ServerConnection::process(std::string_view input) {
    processing_ = true;
    for (;;) {
        if (closing() || lingering_ || failed_) break;
        if (tunnel_ && front_ != nullptr) {  // upgraded while input was waiting
            if (!input.empty()) front_->on_request_body({&input, 1});
            break;
        }
        if (must_wait()) {
            keep_pending(input);
            break;
        }
        const Step step = parser_.step(input);
        input.remove_prefix(step.consumed);
        input_left_ = !input.empty();
        const bool more = handle_step(step);
        advance_queue();
        if (!more) break;
    }
    processing_ = input_left_ = false;
    if (closing()) return;
    advance_queue();
    tunnel_input_ended();
    if (!closing() && !lingering_) update_reading();
}

// False when there is nothing more to do with this input.
bool ServerConnection::handle_step(const Step& step) {
    switch (step.kind) {
        case Step::Kind::kNeedMore:
            if (parser_.in_head() && !parser_.blank() && !head_begun_) {
                head_begun_ = true;
                phase_began_ = loop().now();
            }
            if (receiving_) back_->request_bytes_ += step.consumed;
            return false;
        case Step::Kind::kHead:
            begin_exchange();
            return true;
        case Step::Kind::kBody: {
            if (back_ == nullptr || !receiving_) return true;
            back_->request_bytes_ += step.consumed;
            body_received_ += step.consumed;
            awaits_continue_ = false;
            progress_at_ = loop().now();
            back_->on_request_body(parser_.body());
            return true;
        }
        case Step::Kind::kEnd: {
            if (receiving_) {
                receiving_ = false;
                body_paused_ = false;
                window_open_ = false;
                ServerExchange& exchange = *back_;
                exchange.request_complete_ = true;
                exchange.on_request_end(parser_.trailers());
            }
            parser_.reset();
            return true;
        }
        case Step::Kind::kError:
            reject(status_for(parser_.error()), parser_.error_reason());
            return false;
    }
    return false;
}

void ServerConnection::begin_exchange() {
    head_begun_ = false;
    served_ = true;
    ServerExchange* exchange = handler_.new_exchange(*this);
    exchange->connection_ = this;
    exchange->request_ = parser_.request();
    exchange->storage_.keep(exchange->request_);
    exchange->started_at_ = loop().now();
    exchange->keep_alive_ = exchange->request_.keep_alive;
    exchange->request_complete_ = exchange->request_.framing == Framing::kNone;
    receiving_ = !exchange->request_complete_;
    body_rests_ = false;
    awaits_continue_ = receiving_ && exchange->request_.expects_continue;
    body_paused_ = false;
    window_open_ = false;
    if (front_ == nullptr) {
        front_ = exchange;
        exchange->front_ = true;
    } else {
        back_->next_ = exchange;
    }
    back_ = exchange;
    ++exchange_count_;
    if (may_start(*exchange)) {
        exchange->started_ = true;
        exchange->on_request();
    } else {
        waiting_start_ = true;
    }
}

bool ServerConnection::may_start(const ServerExchange& exchange) const {
    if (&exchange == front_) return true;
    // In parallel only while everything outstanding is safe (RFC 9112 section 9.3.2), and never beside an upgrade.
    std::size_t held = 0;
    for (const ServerExchange* other = front_; other != nullptr; other = other->next_) {
        held += other->held_.size();
        if (held > kHeldMax) return false;
        if (!is_safe(other->request_.method) || other->request_.upgrade) return false;
        if (!other->keep_alive_ && other != &exchange) return false;
    }
    return true;
}

// From here on the client owes the body that it held back.
void ServerConnection::let_body_rest(const ServerExchange& exchange) {
    if (&exchange != back_ || !receiving_) return;
    body_rests_ = true;
    window_open_ = false;
    arm();
}

void ServerConnection::continue_sent(const ServerExchange& exchange) {
    if (&exchange != back_ || !awaits_continue_) return;
    awaits_continue_ = false;
    window_open_ = false;
    arm();
}

void ServerConnection::start_waiting() {
    if (!waiting_start_ || back_ == nullptr || !may_start(*back_)) return;
    waiting_start_ = false;
    window_open_ = false;  // the body was not owed before
    back_->started_ = true;
    back_->on_request();
}

void ServerConnection::keep_pending(std::string_view input) {
    if (input.empty()) return;
    if (!pending_) pending_ = std::make_unique<std::string>();
    pending_->append(input);
}

void ServerConnection::process_pending() {
    if (!pending_ || processing_ || closing()) return;
    const std::unique_ptr<std::string> input = std::move(pending_);
    process(*input);
    loop().flush();  // slices of `input` may still wait for the event's end
}

void ServerConnection::update_reading() {
    const bool want = !eof_ && !(receiving_ && body_paused_) && !(tunnel_ && body_paused_) &&
                      (!pending_ || pending_->size() < kPendingMax / 2);
    if (want) {
        start_reading();
    } else {
        stop_reading();
    }
}

void ServerConnection::pause_body(ServerExchange& exchange) {
    if (&exchange != back_ || body_paused_ || !(receiving_ || tunnel_)) return;
    body_paused_ = true;
    window_open_ = false;
    update_reading();
    if (!processing_) arm();
}

void ServerConnection::resume_body(ServerExchange& exchange) {
    if (&exchange != back_ || !body_paused_) return;
    body_paused_ = false;
    window_open_ = false;  // the client gets its grace again
    update_reading();
    if (!processing_) arm();
}

void ServerConnection::reject(int status, const char* reason) {
    failed_ = true;
    head_begun_ = false;
    if (receiving_ || waiting_start_) {
        receiving_ = waiting_start_ = false;
        back_->started_ = true;
        back_->keep_alive_ = false;
        back_->on_bad_request(status, reason);
        return;
    }
    ServerExchange* exchange = handler_.new_exchange(*this);
    exchange->connection_ = this;
    exchange->started_at_ = loop().now();
    exchange->keep_alive_ = false;
    exchange->request_complete_ = true;
    exchange->started_ = true;
    if (front_ == nullptr) {
        front_ = exchange;
        exchange->front_ = true;
    } else {
        back_->next_ = exchange;
    }
    back_ = exchange;
    ++exchange_count_;
    exchange->on_bad_request(status, reason);
}

void ServerConnection::enter_tunnel() {
    tunnel_ = true;
    keep_alive();
    receiving_ = false;
    body_paused_ = false;
    failed_ = false;
    process_pending();
    if (!processing_) tunnel_input_ended();
}

// The client had ended its direction, perhaps before there was a tunnel.
void ServerConnection::tunnel_input_ended() {
    if (!tunnel_ || !eof_ || closing() || front_ == nullptr || front_->request_complete_) return;
    front_->request_complete_ = true;
    ServerExchange& exchange = *front_;
    exchange.on_request_end({});
    if (!closing() && front_ != nullptr) advance_queue();
}

// ---- ends ---------------------------------------------------------------------------------------------------------

void ServerConnection::response_done(ServerExchange& exchange) {
    if (!exchange.request_complete_ && !exchange.tunnel_) {
        // The answer overtook its request: what is left of that is never read as a request.
        receiving_ = false;
        failed_ = true;
        exchange.keep_alive_ = false;
    }
    if (!processing_) {
        advance_queue();
        if (closing()) return;
        process_pending();
        if (eof_ && !tunnel_ && !closing()) input_ended();
        if (!closing()) {
            if (!lingering_) update_reading();
            arm();
        }
    }
}

// Retires finished exchanges from the front, then lets the next one speak and start.
void ServerConnection::advance_queue() {
    while (front_ != nullptr && front_->response_finished_) {
        if (front_->tunnel_ && !front_->request_complete_) {
            shutdown_write();  // our direction of the tunnel is over, theirs is not
            phase_began_ = loop().now();
            return;
        }
        ServerExchange* done = front_;
        front_ = done->next_;
        if (front_ == nullptr) back_ = nullptr;
        --exchange_count_;
        const bool close_now = !done->keep_alive_;
        handler_.release_exchange(done);
        if (close_now) {
            abort_all(ServerExchange::AbortReason::kShutdown);
            linger();
            return;
        }
        if (front_ == nullptr) {
            phase_began_ = loop().now();
            window_open_ = false;
            break;
        }
        front_->front_ = true;
        if (!front_->held_.empty()) {
            write_copy(front_->held_);
            std::string().swap(front_->held_);
            if (!front_->response_finished_) front_->on_response_drained();
        }
        start_waiting();
    }
    const bool no_more = failed_ || (eof_ && !pending_);
    if (front_ == nullptr && !closing() && no_more && !processing_) linger();
}

void ServerConnection::abort_exchange(ServerExchange& exchange, bool reset) {
    // Those in front still get their answers; everything from here on is lost with the connection.
    if (&exchange != front_) {
        // Nothing of it has been sent, and nothing will be: a part could look like a whole (RFC 9112 section 8).
        std::string().swap(exchange.held_);
        exchange.response_finished_ = true;
        exchange.keep_alive_ = false;
        return;
    }
    ServerExchange* done = front_;
    front_ = done->next_;
    if (front_ == nullptr) back_ = nullptr;
    --exchange_count_;
    handler_.release_exchange(done);
    abort_all(ServerExchange::AbortReason::kShutdown);
    failed_ = true;
    if (reset) {
        close(true);
    } else {
        linger();
    }
}

void ServerConnection::abort_all(ServerExchange::AbortReason reason) {
    receiving_ = waiting_start_ = false;
    while (front_ != nullptr) {
        ServerExchange* gone = front_;
        front_ = gone->next_;
        --exchange_count_;
        if (gone->started_ && !gone->response_finished_) gone->on_aborted(reason);
        handler_.release_exchange(gone);
    }
    back_ = nullptr;
}

void ServerConnection::linger() {
    if (closing() || lingering_) return;
    lingering_ = true;
    failed_ = true;
    pending_.reset();
    phase_began_ = loop().now();
    shutdown_write();
    if (eof_ && queued() == 0) {
        close();
        return;
    }
    if (!eof_) start_reading();
    arm();
}

void ServerConnection::on_eof() {
    eof_ = true;
    if (lingering_) {
        if (queued() == 0) close();
        return;
    }
    if (tunnel_ && front_ != nullptr) {
        tunnel_input_ended();
        return;
    }
    input_ended();
}

// A half-closed client still gets the answers it waits for; a request that broke off gets none.
void ServerConnection::input_ended() {
    if (pending_ || lingering_) return;
    if (!receiving_) {
        front_ == nullptr ? linger() : front_->on_client_ended();
        return;
    }
    constexpr auto kGone = ServerExchange::AbortReason::kClientGone;
    if (back_ == front_) {
        const bool reset = cut_looks_whole();
        abort_all(kGone);
        reset ? close(true) : linger();
        return;
    }
    receiving_ = waiting_start_ = body_paused_ = false;
    ServerExchange& broken = *back_;
    std::string().swap(broken.held_);
    broken.response_finished_ = true;
    broken.keep_alive_ = false;
    if (broken.started_) broken.on_aborted(kGone);
}

// Of a body that ends with the connection nobody could tell that it was cut.
bool ServerConnection::cut_looks_whole() const {
    return front_ != nullptr && front_->until_close_ && !front_->response_finished_;
}

void ServerConnection::on_error(int) {
    abort_all(ServerExchange::AbortReason::kClientGone);
    close();
}

void ServerConnection::kill(ServerExchange::AbortReason reason) {
    if (closing()) return;
    const bool reset = cut_looks_whole() || blocked();
    abort_all(reason);
    close(reset);
}

void ServerConnection::refuse(int status, const char* reason) {
    if (closing() || lingering_) return;
    reject(status, reason);
    advance_queue();
}

void ServerConnection::drain() {
    if (drain_) return;
    drain_ = true;
    // The deadline may now be nearer than the timer knows.
    if (!closing()) arm();
}

void ServerConnection::on_blocked() {
    window_open_ = false;
    arm();
    if (front_ != nullptr && !front_->response_finished_) front_->on_response_blocked();
}

void ServerConnection::on_drained() {
    window_open_ = false;
    if (lingering_) {
        phase_began_ = loop().now();
        if (eof_) {
            close();
            return;
        }
    }
    if (front_ != nullptr && !front_->response_finished_) front_->on_response_drained();
    if (closing()) return;
    process_pending();
    if (closing()) return;
    if (!lingering_) update_reading();
    arm();
}

void ServerConnection::on_closed() {
    handler_.on_connection_closed(*this);
}

// ---- deadlines ----------------------------------------------------------------------------------------------------

// Bytes that the client has sent of the body it owes, or taken of the answer we owe.
std::uint64_t ServerConnection::progress() const {
    return owes_body() ? body_received_ : bytes_written() - unsent();
}

bool ServerConnection::client_owes_reading() const {
    if (blocked()) return true;
    // Everything left for the kernel, but does the client take it? Asked only by the timer.
    return front_ == nullptr && bytes_written() - idle_written_ > kUnsentWatch;
}

void ServerConnection::begin_window(Instant now) {
    window_open_ = true;
    window_later_ = false;
    window_began_ = progress_at_ = now;
    if (owes_body() || blocked()) {
        window_base_ = progress();
    } else {
        // Between requests nothing is measured until the timer comes: no system call an exchange.
        window_base_ = kNotMeasured;
        window_later_ = true;
    }
}

Instant ServerConnection::next_deadline() {
    const Instant now = loop().now();
    const bool sending = client_owes_reading();
    if (owes_body() || sending) {
        if (!window_open_) begin_window(now);
    }
    Instant deadline = Instant::max();
    if (window_open_ && (owes_body() || sending)) deadline = window_began_ + window_length();
    if (owes_body()) deadline = std::min(deadline, progress_at_ + limits_.body_idle_timeout);
    if (lingering_ && !blocked()) return std::min(deadline, phase_began_ + kLingerMax);
    if (front_ == nullptr && !lingering_) {
        const bool in_head = head_begun_ || !served_;
        Duration allowed = in_head ? limits_.header_timeout : limits_.idle_timeout;
        if (drain_ && !head_begun_) allowed = std::min(allowed, kDrainIdle);
        deadline = std::min(deadline, phase_began_ + allowed);
    } else if (head_begun_) {
        deadline = std::min(deadline, phase_began_ + limits_.header_timeout);
    } else if (tunnel_ && front_->response_finished_) {
        deadline = std::min(deadline, phase_began_ + limits_.idle_timeout);
    }
    return deadline;
}

void ServerConnection::arm() {
    const Instant deadline = next_deadline();
    if (deadline == Instant::max()) {
        loop().cancel(*this);
    } else {
        loop().timers().schedule(*this, deadline);
    }
}

void ServerConnection::body_timed_out(ServerExchange::AbortReason reason) {
    if (owes_body() && !back_->response_started_) {
        reject(408, "the request body came too slowly");
        advance_queue();
        return;
    }
    abort_all(reason);
    close(true);
}

void ServerConnection::on_timeout(Instant now) {
    if (closing()) return;
    const bool sending = client_owes_reading();
    if (owes_body() && now >= progress_at_ + limits_.body_idle_timeout) {
        body_timed_out(ServerExchange::AbortReason::kBodyTimeout);
        return;
    }
    if (window_open_ && (owes_body() || sending) && now >= window_began_ + window_length()) {
        const std::uint64_t done = progress();
        const std::uint64_t moved = done - window_base_;
        const std::uint64_t rate = owes_body() ? limits_.body_rate_min : limits_.read_rate_min;
        const bool all_gone = !owes_body() && unsent() == 0;
        if (all_gone) {
            idle_written_ = bytes_written();
            window_open_ = false;
        } else {
            if (moved != 0) progress_at_ = now;
            const std::uint64_t least = bytes_in(window_length(), rate);
            const bool measured = window_base_ != kNotMeasured;
            if ((measured && moved < least) || now - progress_at_ >= limits_.body_idle_timeout) {
                body_timed_out(owes_body() ? ServerExchange::AbortReason::kBodyTimeout
                                           : ServerExchange::AbortReason::kReadTimeout);
                return;
            }
            window_began_ = now;
            window_base_ = done;
            window_later_ = true;
        }
    }
    if (now >= next_deadline()) {
        if (lingering_) {
            close();
            return;
        }
        if (head_begun_) {
            reject(408, "the request head came too slowly");
            advance_queue();
            return;
        }
        if (front_ == nullptr || tunnel_) {
            kill(ServerExchange::AbortReason::kShutdown);
            return;
        }
    }
    arm();
}

}  // namespace outrider::http
