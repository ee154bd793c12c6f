// ServerExchange: how one response is framed and written (RFC 9112 sections 6 and 7).
#include "base/check.h"
#include "base/http/server_connection.h"

namespace outrider::http {

namespace {
constexpr std::size_t kHeldKept = 4096;  // a pooled exchange keeps no larger buffers than this
}

void ServerExchange::recycle() {
    request_ = RequestHead();
    storage_.clear_if_larger_than(kHeldKept);
    if (held_.capacity() > 64) std::string().swap(held_);
    held_.clear();
    connection_ = nullptr;
    next_ = nullptr;
    response_bytes_ = request_bytes_ = 0;
    status_ = 0;
    front_ = started_ = request_complete_ = response_started_ = response_finished_ = false;
    bodiless_ = chunked_ = until_close_ = tunnel_ = false;
    keep_alive_ = true;
}

char* ServerExchange::reserve(std::size_t size) {
    if (front_) return connection_->reserve(size);
    held_reserved_at_ = held_.size();
    held_.resize(held_reserved_at_ + size);
    return held_.data() + held_reserved_at_;
}

void ServerExchange::commit(std::size_t size) {
    response_bytes_ += size;
    if (front_) {
        connection_->commit(size);
        return;
    }
    held_.resize(held_reserved_at_ + size);
}

void ServerExchange::write_text(std::string_view text) {
    std::memcpy(reserve(text.size()), text.data(), text.size());
    commit(text.size());
}

void ServerExchange::begin_informational(HeadWriter& head, int status, std::string_view reason) {
    if (status == 100) connection_->continue_sent(*this);
    head.text("HTTP/1.1 ");
    head.number(static_cast<std::uint64_t>(status));
    head.text(" ");
    head.text(reason);
    head.text("\r\n");
}

void ServerExchange::begin_head(HeadWriter& head, int status, std::string_view reason, Body body) {
    require(!response_started_, "a response starts once");
    response_started_ = true;
    status_ = status;
    bodiless_ = request_.method == Method::kHead || status == 204 || status == 304 || status == 101;
    chunked_ = !bodiless_ && body == Body::kUnknown && request_.version_minor == 1;
    until_close_ = !bodiless_ && body == Body::kUnknown && request_.version_minor == 0;
    if (until_close_ || !request_complete_) keep_alive_ = false;
    begin_informational(head, status, reason);
}

void ServerExchange::end_head(HeadWriter& head, Body body, std::uint64_t length) {
    if (chunked_) {
        head.text("Transfer-Encoding: chunked\r\n");
    } else if (body == Body::kLength && status_ != 204 && status_ != 101 && status_ != 304) {
        head.text("Content-Length: ");
        head.number(length);
        head.text("\r\n");
    } else if (body == Body::kNone && !bodiless_) {
        head.text("Content-Length: 0\r\n");
    }
    // While draining the last answer closes; requests that are already here behind it are answered first.
    if (connection_->drain_ && next_ == nullptr && !connection_->more_has_come()) keep_alive_ = false;
    if (status_ != 101) {
        if (!keep_alive_) {
            head.text("Connection: close\r\n");
        } else if (request_.version_minor == 0) {
            head.text("Connection: keep-alive\r\n");
        }
    }
    head.text("\r\n");
}

void ServerExchange::write_body(std::span<const std::string_view> slices, bool stable) {
    if (bodiless_ && !tunnel_) return;
    std::size_t total = 0;
    for (const std::string_view s : slices)
        total += s.size();
    if (total == 0) return;
    if (chunked_) {
        char line[24];
        write_text(chunk_line(line, total));
    }
    if (front_) {
        for (const std::string_view s : slices) {
            stable ? connection_->write_stable(s) : connection_->write_copy(s);
        }
    } else {
        for (const std::string_view s : slices)
            held_.append(s);
    }
    response_bytes_ += total;
    if (chunked_) write_text("\r\n");
}

void ServerExchange::finish(std::span<const Field> trailers) {
    require(response_started_ && !response_finished_, "a response ends once, after it began");
    if (chunked_) {
        write_text("0\r\n");
        for (const Field& f : trailers) {
            write_text(f.name);
            write_text(": ");
            write_text(f.value);
            write_text("\r\n");
        }
        write_text("\r\n");
    }
    response_finished_ = true;
    connection_->response_done(*this);
}

void ServerExchange::abort_response() {
    keep_alive_ = false;
    connection_->abort_exchange(*this, until_close_);
}

void ServerExchange::start_tunnel() {
    tunnel_ = true;
    keep_alive_ = false;
    request_complete_ = false;
    connection_->enter_tunnel();
}

void ServerExchange::pause_request() {
    connection_->pause_body(*this);
}
void ServerExchange::let_body_rest() {
    connection_->let_body_rest(*this);
}
void ServerExchange::resume_request() {
    connection_->resume_body(*this);
}

std::size_t ServerExchange::response_room() const {
    return front_ ? connection_->read_limit_for_sink() : uv::TcpStream::kRead;
}

bool ServerExchange::response_blocked() const {
    return front_ ? connection_->blocked() : !held_.empty();
}

}  // namespace outrider::http
