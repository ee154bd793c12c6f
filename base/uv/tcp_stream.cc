#include "base/uv/tcp_stream.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include <arpa/inet.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/check.h"
#include "base/uv/acceptor.h"

namespace outrider::uv {

Result<SocketAddress> SocketAddress::parse(const std::string& ip, std::uint16_t port) {
    SocketAddress out;
    auto* v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
    if (::inet_pton(AF_INET, ip.c_str(), &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        return out;
    }
    if (::inet_pton(AF_INET6, ip.c_str(), &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        return out;
    }
    return Error{"'" + ip + "' is not an IP address"};
}

std::string SocketAddress::ip() const {
    char text[INET6_ADDRSTRLEN] = "";
    if (storage.ss_family == AF_INET) {
        ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr, text, sizeof text);
    } else if (storage.ss_family == AF_INET6) {
        const auto& address = reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(&address)) {
            ::inet_ntop(AF_INET, &address.s6_addr[12], text, sizeof text);
        } else {
            ::inet_ntop(AF_INET6, &address, text, sizeof text);
        }
    }
    return text;
}

std::uint16_t SocketAddress::port() const {
    if (storage.ss_family == AF_INET) {
        return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
    }
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
}

std::string SocketAddress::text() const {
    const std::string host = ip();
    const bool v6 = host.find(':') != std::string::npos;
    return (v6 ? "[" + host + "]:" : host + ":") + std::to_string(port());
}

socklen_t SocketAddress::size() const {
    return storage.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
}

// The rest of a write that the kernel did not take, in one block with libuv's request.
struct TcpStream::KeptWrite {
    uv_write_t request;
    TcpStream* stream;
    std::size_t size;
    char data[1];
};

void TcpStream::init_handle() {
    require(uv_tcp_init(loop_.raw(), &tcp_) == 0, "a TCP handle can be made");
    tcp_.data = this;
    open_ = true;
}

Result<void> TcpStream::adopt(int fd) {
    init_handle();
    if (const int error = uv_tcp_open(&tcp_, fd); error != 0) {
        ::close(fd);
        return Error{"cannot use an accepted socket: " + error_text(error)};
    }
    // Small answers must not wait for the peer's delayed acknowledgement.
    uv_tcp_nodelay(&tcp_, 1);
    return {};
}

Result<void> TcpStream::connect(const SocketAddress& to) {
    init_handle();
    const int fd = ::socket(to.raw()->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return Error{error_text(-errno)};
    if (is_held_back(fd)) {
        ::close(fd);
        return Error{error_text(-EMFILE)};
    }
    if (const int error = uv_tcp_open(&tcp_, fd); error != 0) {
        ::close(fd);
        return Error{error_text(error)};
    }
    auto* request = new uv_connect_t;
    request->data = this;
    const int error = uv_tcp_connect(request, &tcp_, to.raw(), [](uv_connect_t* done, int status) {
        auto* stream = static_cast<TcpStream*>(done->data);
        delete done;
        if (stream->closing_) return;
        const Loop::Event event(stream->loop_);
        if (status < 0) {
            stream->on_error(status);
            return;
        }
        uv_tcp_nodelay(&stream->tcp_, 1);
        stream->on_connected();
    });
    if (error != 0) {
        delete request;
        return Error{error_text(error)};
    }
    return {};
}

void TcpStream::start_reading() {
    if (reading_ || closing_ || !open_) return;
    reading_ = true;
    uv_read_start(
        reinterpret_cast<uv_stream_t*>(&tcp_),
        [](uv_handle_t* handle, std::size_t, uv_buf_t* buffer) {
            auto* stream = static_cast<TcpStream*>(handle->data);
            const auto scratch = stream->loop_.read_buffer();
            buffer->base = scratch.data();
            buffer->len = stream->large_ ? stream->large_read_limit() : kRead;
        },
        &TcpStream::read_done);
}

void TcpStream::stop_reading() {
    if (!reading_) return;
    reading_ = false;
    uv_read_stop(reinterpret_cast<uv_stream_t*>(&tcp_));
}

void TcpStream::read_done(uv_stream_t* handle, ssize_t size, const uv_buf_t* buffer) {
    auto* stream = static_cast<TcpStream*>(handle->data);
    if (size == 0 || stream->closing_) return;
    const Loop::Event event(stream->loop_);
    if (size > 0) {
        // The rest of a large body is a smaller read: a stream that carries large bodies goes on to be asked for its limit.
        stream->large_ = static_cast<std::size_t>(size) >= (stream->large_ ? kRead / 4 : kRead);
        stream->on_read({buffer->base, static_cast<std::size_t>(size)});
        return;
    }
    stream->reading_ = false;
    if (size == UV_EOF) {
        // libuv also says EOF when poll reports a hang-up behind a partial read, and a reset is a hang-up: a body that
        // ends with the connection would then look whole. The socket knows.
        int error = 0;
        socklen_t error_size = sizeof error;
        ::getsockopt(stream->fd(), SOL_SOCKET, SO_ERROR, &error, &error_size);
        error == 0 ? stream->on_eof() : stream->on_error(-error);
    } else {
        stream->on_error(static_cast<int>(size));
    }
}

void TcpStream::make_batch_mine() {
    if (loop_.batch_.owner == this) return;
    loop_.flush_batch();
    loop_.batch_.owner = this;
}

void TcpStream::push_piece(const char* data, std::size_t size) {
    auto& batch = loop_.batch_;
    batch.bytes += size;
    if (batch.piece_count != 0) {
        uv_buf_t& last = batch.pieces[batch.piece_count - 1];
        if (last.base + last.len == data) {
            last.len += size;
            return;
        }
    }
    batch.pieces[batch.piece_count++] = uv_buf_init(const_cast<char*>(data), static_cast<unsigned>(size));
}

void TcpStream::write_stable(std::string_view data) {
    if (data.empty() || closing_ || !open_) return;
    // A small piece is cheaper copied than carried as an iovec of its own.
    if (data.size() <= 256) {
        write_copy(data);
        return;
    }
    make_batch_mine();
    if (loop_.batch_.piece_count == Loop::kBatchPieces) {
        loop_.flush_batch();
        loop_.batch_.owner = this;
    }
    push_piece(data.data(), data.size());
}

void TcpStream::write_copy(std::string_view data) {
    if (data.empty() || closing_ || !open_) return;
    std::memcpy(reserve(data.size()), data.data(), data.size());
    commit(data.size());
}

char* TcpStream::reserve(std::size_t size) {
    make_batch_mine();
    auto& batch = loop_.batch_;
    if (batch.text_used + size > Loop::kBatchText || batch.piece_count == Loop::kBatchPieces) {
        loop_.flush_batch();
        batch.owner = this;
    }
    if (size > Loop::kBatchText) {
        batch.large.push_back(std::make_unique_for_overwrite<char[]>(size));
        return batch.large.back().get();
    }
    return batch.text.get() + batch.text_used;
}

void TcpStream::commit(std::size_t size) {
    auto& batch = loop_.batch_;
    require(batch.owner == this, "commit() follows the stream's own reserve()");
    if (size == 0) return;
    if (!batch.large.empty()) {
        push_piece(batch.large.back().get(), size);
        loop_.flush_batch();
        return;
    }
    push_piece(batch.text.get() + batch.text_used, size);
    batch.text_used += size;
}

void TcpStream::send_batch(std::span<uv_buf_t> pieces, std::size_t bytes) {
    if (closing_ || bytes == 0 || write_error_ != 0) return;
    bytes_written_ += bytes;
    std::size_t sent = 0;
    if (queued_ == 0) {
        const int result = uv_try_write(reinterpret_cast<uv_stream_t*>(&tcp_), pieces.data(),
                                        static_cast<unsigned>(pieces.size()));
        if (result < 0 && result != UV_EAGAIN) {
            write_error_ = result;
            loop_.notify_later(*this);
            return;
        }
        if (result > 0) sent = static_cast<std::size_t>(result);
    }
    if (sent < bytes) keep(pieces, sent, bytes);
}

void TcpStream::keep(std::span<uv_buf_t> pieces, std::size_t skip, std::size_t bytes) {
    const std::size_t rest = bytes - skip;
    auto* kept = static_cast<KeptWrite*>(std::malloc(offsetof(KeptWrite, data) + rest));
    require(kept != nullptr, "memory for a kept write");
    kept->stream = this;
    kept->size = rest;
    char* out = kept->data;
    for (const uv_buf_t& piece : pieces) {
        if (skip >= piece.len) {
            skip -= piece.len;
            continue;
        }
        std::memcpy(out, piece.base + skip, piece.len - skip);
        out += piece.len - skip;
        skip = 0;
    }
    uv_buf_t buffer = uv_buf_init(kept->data, static_cast<unsigned>(rest));
    const int error = uv_write(&kept->request, reinterpret_cast<uv_stream_t*>(&tcp_), &buffer, 1,
                               [](uv_write_t* request, int status) {
                                   auto* done = reinterpret_cast<KeptWrite*>(request);
                                   TcpStream* stream = done->stream;
                                   stream->queued_ -= done->size;
                                   std::free(done);
                                   if (stream->closing_) return;
                                   const Loop::Event event(stream->loop_);
                                   if (status < 0) {
                                       stream->write_error_ = status;
                                       stream->loop_.notify_later(*stream);
                                   } else if (stream->queued_ == 0) {
                                       stream->drained_pending_ = true;
                                       stream->loop_.notify_later(*stream);
                                   }
                               });
    if (error != 0) {
        std::free(kept);
        write_error_ = error;
    } else {
        queued_ += rest;
    }
    loop_.notify_later(*this);
}

void TcpStream::deliver_notices() {
    if (closing_) return;
    if (write_error_ != 0) {
        if (!write_error_told_) {
            write_error_told_ = true;
            on_write_error(write_error_);
        }
        return;
    }
    if (queued_ != 0 && !told_blocked_) {
        told_blocked_ = true;
        drained_pending_ = false;
        on_blocked();
    } else if (queued_ == 0 && (told_blocked_ || drained_pending_)) {
        told_blocked_ = drained_pending_ = false;
        if (shutdown_wanted_) finish_shutdown();
        on_drained();
    }
}

void TcpStream::keep_alive() {
    if (open_ && !closing_) uv_tcp_keepalive(&tcp_, 1, 60);
}

void TcpStream::shutdown_write() {
    if (closing_ || shutdown_wanted_ || !open_) return;
    if (loop_.batch_.owner == this) loop_.flush_batch();
    shutdown_wanted_ = true;
    if (queued_ == 0 && write_error_ == 0) finish_shutdown();
}

void TcpStream::finish_shutdown() {
    ::shutdown(fd(), SHUT_WR);
}

void TcpStream::close(bool reset) {
    if (closing_) return;
    if (!reset && loop_.batch_.owner == this) loop_.flush_batch();
    loop_.forget(*this);
    closing_ = true;
    reading_ = false;
    if (!open_) {
        init_handle();  // so that on_closed() comes from the loop like any other
    }
    const auto closed = [](uv_handle_t* handle) {
        auto* stream = static_cast<TcpStream*>(handle->data);
        const Loop::Event event(stream->loop_);
        stream->on_closed();
    };
    if (reset && uv_tcp_close_reset(&tcp_, closed) == 0) return;
    if (uv_is_closing(reinterpret_cast<uv_handle_t*>(&tcp_)) == 0) {
        uv_close(reinterpret_cast<uv_handle_t*>(&tcp_), closed);
    }
}

std::size_t TcpStream::read_limit_for_sink() const {
    if (blocked()) return kRead;
    std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
    socklen_t size = sizeof memory;
    if (::getsockopt(fd(), SOL_SOCKET, SO_MEMINFO, memory.data(), &size) != 0) return kRead;
    const std::uint32_t room =
        memory[SK_MEMINFO_SNDBUF] - std::min(memory[SK_MEMINFO_SNDBUF], memory[SK_MEMINFO_WMEM_QUEUED]);
    // The kernel's own bookkeeping takes a part of its room.
    return room >= kRead + kRead / 2 ? kLargeRead : kRead;
}

std::size_t TcpStream::unread() const {
    int waiting = 0;
    return ::ioctl(fd(), FIONREAD, &waiting) == 0 ? static_cast<std::size_t>(waiting) : 0;
}

std::size_t TcpStream::unsent() const {
    int in_kernel = 0;
    if (::ioctl(fd(), SIOCOUTQ, &in_kernel) != 0) in_kernel = 0;
    return uv_stream_get_write_queue_size(reinterpret_cast<const uv_stream_t*>(&tcp_)) +
           static_cast<std::size_t>(in_kernel);
}

int TcpStream::fd() const {
    uv_os_fd_t fd = -1;
    uv_fileno(reinterpret_cast<const uv_handle_t*>(&tcp_), &fd);
    return fd;
}

SocketAddress TcpStream::peer() const {
    SocketAddress out;
    int size = sizeof out.storage;
    uv_tcp_getpeername(&tcp_, reinterpret_cast<sockaddr*>(&out.storage), &size);
    return out;
}

SocketAddress TcpStream::local() const {
    SocketAddress out;
    int size = sizeof out.storage;
    uv_tcp_getsockname(&tcp_, reinterpret_cast<sockaddr*>(&out.storage), &size);
    return out;
}

}  // namespace outrider::uv
