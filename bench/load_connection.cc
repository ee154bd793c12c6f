#include "bench/load_connection.h"

#include <array>
#include <cerrno>
#include <charconv>

#include <sys/socket.h>

namespace outrider::bench {
namespace {

constexpr std::size_t kReadBytes = std::size_t{256} * 1024;
constexpr std::size_t kHeadBytesMax = std::size_t{64} * 1024;

// Shared by all connections: what a connection does not use up at once it keeps in its head_.
std::array<char, kReadBytes> scratch;

}  // namespace

bool LoadConnection::open(std::uint16_t port, Epoll& epoll) {
    close();
    socket_ = connect_to_loopback(port);
    if (!socket_.open()) return false;
    epoll.add(socket_.fd(), this);
    return true;
}

void LoadConnection::close() {
    socket_.close();
    unsent_.clear();
    copies_.clear();
    outstanding_.clear();
    head_.clear();
    in_body_ = last_ = broken_ = false;
}

void LoadConnection::send(const std::string& request, const Sent& about) {
    outstanding_.push_back(about);
    send_part(request);
}

void LoadConnection::send_copy(std::string_view request, const Sent& about) {
    const bool first = unsent_.empty();
    outstanding_.push_back(about);
    if (first) {
        send_part(request);
        if (unsent_.empty()) return;
        request = unsent_.front();
        unsent_.pop_front();
    }
    unsent_.emplace_back(copies_.emplace_back(request));
}

void LoadConnection::send_part(std::string_view bytes) {
    unsent_.push_back(bytes);
    if (unsent_.size() == 1 && !flush()) broken_ = true;
}

bool LoadConnection::flush() {
    while (!unsent_.empty()) {
        std::string_view& next = unsent_.front();
        const ssize_t sent = ::send(socket_.fd(), next.data(), next.size(), MSG_NOSIGNAL);
        if (sent < 0) return errno == EAGAIN;
        next.remove_prefix(static_cast<std::size_t>(sent));
        if (!next.empty()) return true;  // writability will be reported
        unsent_.pop_front();
    }
    copies_.clear();
    return true;
}

bool LoadConnection::on_event(std::uint32_t events, std::vector<Completed>& completed) {
    if ((events & EPOLLOUT) != 0 && !flush()) broken_ = true;
    const bool ended = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if ((events & EPOLLIN) == 0 && !ended) return !broken_;
    while (true) {
        const ssize_t count = recv(socket_.fd(), scratch.data(), scratch.size(), 0);
        if (count < 0 && errno == EAGAIN) return !broken_;
        if (count <= 0) {
            if (count == 0 && in_body_ && body_.until_close()) complete(now_ns(), completed);
            return false;
        }
        bytes_received_ += static_cast<std::uint64_t>(count);
        const std::string_view bytes(scratch.data(), static_cast<std::size_t>(count));
        if (!take(bytes, now_ns(), completed)) return false;
        if (bytes.size() < scratch.size() && !ended) return !broken_;
    }
}

bool LoadConnection::take(std::string_view bytes, std::uint64_t now, std::vector<Completed>& completed) {
    while (!bytes.empty()) {
        if (in_body_) {
            bytes.remove_prefix(body_.take(bytes));
            if (body_.failed()) return false;
        } else {
            std::size_t length = 0;
            if (head_.empty()) {
                length = head_length(bytes);
                if (length > 0 && !take_head(bytes.substr(0, length))) return false;
            } else {
                const std::size_t had = head_.size();
                head_.append(bytes);
                const std::size_t whole = head_length(head_);
                if (whole > 0) {
                    length = whole - had;
                    if (!take_head(std::string_view(head_).substr(0, whole))) return false;
                }
            }
            if (length == 0) {
                if (head_.empty()) head_.assign(bytes);
                return head_.size() <= kHeadBytesMax;
            }
            head_.clear();
            bytes.remove_prefix(length);
        }
        if (in_body_ && body_.done()) complete(now, completed);
        if (last_ && !in_body_) return false;
    }
    return true;
}

// False: not an answer to anything.
bool LoadConnection::take_head(std::string_view head) {
    if (outstanding_.empty() || !head.starts_with("HTTP/1.") || head.size() < 13) return false;
    std::from_chars(head.data() + 9, head.data() + 12, status_);
    if (status_ >= 100 && status_ < 200) return true;  // an interim answer: the real one follows
    const Fields fields = read_fields(head);
    last_ = fields.close;
    replayed_ = fields.replayed;
    if (status_ == 204 || status_ == 304) {
        body_.start_length(0);
    } else if (fields.chunked) {
        body_.start_chunked();
    } else if (fields.has_length) {
        body_.start_length(fields.length);
    } else {
        body_.start_until_close();
    }
    in_body_ = true;
    return true;
}

void LoadConnection::complete(std::uint64_t now, std::vector<Completed>& completed) {
    in_body_ = false;
    completed.push_back({outstanding_.front(), now, status_, replayed_});
    outstanding_.pop_front();
}

}  // namespace outrider::bench
