// A TCP connection on a loop: reads into the loop's shared buffer, writes at once what the kernel takes and keeps
// only the rest.
//
// Derive from it; the object is created with new and destroyed by on_closed() (after close() no other callback
// comes). Callbacks arrive inside a Loop::Event.
//
// Invariants:
//   * data handed to on_read() is valid until on_read()'s event ends
//   * at most one read's worth of output is kept per stream when the producer pauses on on_blocked()
//   * on_blocked() and on_drained() alternate
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <sys/socket.h>
#include <uv.h>

#include "base/result.h"
#include "base/uv/loop.h"

namespace outrider::uv {

// A numeric address with a port, as the kernel has it.
struct SocketAddress {
    sockaddr_storage storage{};

    static Result<SocketAddress> parse(const std::string& ip, std::uint16_t port);
    // Of what can be listened on (config/syntax.h): a literal address, or "localhost", which is 127.0.0.1.
    static Result<SocketAddress> to_listen(const std::string& host, std::uint16_t port) {
        return parse(host == "localhost" ? "127.0.0.1" : host, port);
    }
    std::string ip() const;  // without brackets
    std::uint16_t port() const;
    std::string text() const;  // "ip:port", "[ip6]:port"
    const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&storage); }
    socklen_t size() const;
};

class TcpStream {
  public:
    explicit TcpStream(Loop& loop) : loop_(loop) {}
    TcpStream(const TcpStream&) = delete;
    TcpStream& operator=(const TcpStream&) = delete;

    Loop& loop() { return loop_; }

    // Takes over a connected, non-blocking socket. On failure the socket is closed.
    Result<void> adopt(int fd);
    // on_connected() or on_error() follows.
    Result<void> connect(const SocketAddress& to);

    void start_reading();
    void stop_reading();
    bool reading() const { return reading_; }

    // `data` must stay as it is until the current event ends (it lies in the read buffer, or is static).
    void write_stable(std::string_view data);
    void write_copy(std::string_view data);
    // Room for `size` bytes of text that the caller fills now; commit() says how many it used.
    char* reserve(std::size_t size);
    void commit(std::size_t size);

    // A read of kLargeRead is only for a sink that takes at least half of it at once: what it refuses has to be kept.
    static constexpr std::size_t kRead = 64 * 1024;
    static constexpr std::size_t kLargeRead = Loop::kReadBuffer;
    // How much a source may read for this sink now. A system call: ask only when bodies are known to be large.
    std::size_t read_limit_for_sink() const;

    // Bytes that have arrived and were not read. A system call.
    std::size_t unread() const;

    // Bytes kept because the kernel did not take them.
    std::size_t queued() const { return queued_; }
    bool blocked() const { return queued_ != 0; }
    // Of what is kept, what has not gone to the kernel by now. No system call.
    std::size_t kept() const {
        return uv_stream_get_write_queue_size(reinterpret_cast<const uv_stream_t*>(&tcp_));
    }
    // Bytes that the peer has not acknowledged: kept here and in the kernel. A system call; not for every exchange.
    std::size_t unsent() const;
    std::uint64_t bytes_written() const { return bytes_written_; }

    // Asks a silent peer after a minute whether it is still there, so that one that vanished is heard of. For what may be silent
    // for long on purpose.
    void keep_alive();

    // Sends what is batched and queued, then FIN. Reading goes on.
    void shutdown_write();

    // The end: nothing more is sent, on_closed() follows. reset: RST instead of FIN, so that the peer cannot take a
    // cut body for a whole one.
    void close(bool reset = false);
    bool closing() const { return closing_; }

    int fd() const;
    SocketAddress peer() const;
    SocketAddress local() const;

  protected:
    virtual ~TcpStream() = default;

    virtual void on_connected() {}
    virtual void on_read(std::string_view data) = 0;
    virtual void on_eof() = 0;                // the peer sent FIN
    virtual void on_error(int uv_error) = 0;  // reset, refused, broken pipe; call close()
    virtual void on_write_error(int os_error) {
        on_error(os_error);
    }                              // nothing more can be sent; reading may go on
    virtual void on_blocked() {}   // output is being kept: stop producing
    virtual void on_drained() {}   // everything kept has left
    virtual void on_closed() = 0;  // last call; delete this
    // How much the next read may bring (at most Loop::kReadBuffer) when the last ones were full or nearly so.
    virtual std::size_t large_read_limit() { return kRead; }

  private:
    friend class Loop;
    struct KeptWrite;

    void init_handle();
    void push_piece(const char* data, std::size_t size);
    void make_batch_mine();
    void send_batch(std::span<uv_buf_t> pieces, std::size_t bytes);
    void keep(std::span<uv_buf_t> pieces, std::size_t skip, std::size_t bytes);
    void deliver_notices();
    void finish_shutdown();
    static void read_done(uv_stream_t* stream, ssize_t size, const uv_buf_t* buffer);

    Loop& loop_;
    uv_tcp_t tcp_{};
    std::size_t queued_ = 0;
    std::uint64_t bytes_written_ = 0;
    int write_error_ = 0;
    bool open_ = false;
    bool reading_ = false;
    bool closing_ = false;
    bool shutdown_wanted_ = false;
    bool told_blocked_ = false;
    bool drained_pending_ = false;
    bool notify_pending_ = false;
    bool write_error_told_ = false;
    bool large_ = false;  // the stream carries large bodies: a read was full, and none since was small
};

}  // namespace outrider::uv
