// A listening socket on a loop. Several loops listen on one address with SO_REUSEPORT.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include <uv.h>

#include "base/result.h"
#include "base/uv/tcp_stream.h"

namespace outrider::uv {

// Opens, binds and listens; the socket is closed on exec and does not block. Port 0: the kernel picks one.
// `reuse_port`: other sockets of this process share the address; `ask_first`: it is an error when anybody listens there.
Result<int> open_listening_socket(const SocketAddress& address, bool reuse_port, bool ask_first = true);
SocketAddress local_address(int fd);

// The process's open files: everybody may have `shared`; what is above, up to `all`, is held back for acceptors that ask for it.
struct OpenFiles {
    std::uint64_t shared = 0;
    std::uint64_t all = 0;
};
// Raises the soft limit of open files to the hard limit, less `held_back` (at most a quarter of it).
OpenFiles raise_open_files(std::uint64_t held_back = 0);

// One that is held back, got by chance in the moment at which an acceptor raised the limit: to be given back.
bool is_held_back(int fd);

// Whose descriptors an acceptor takes. kHeldBack only on the thread that owns every such acceptor: the limit is the process's.
enum class Descriptors : std::uint8_t { kShared, kHeldBack };

class Acceptor {
  public:
    // `on_accept` gets a connected, non-blocking socket that it owns from then on.
    using OnAccept = std::function<void(int fd)>;

    // Takes over a listening socket.
    Acceptor(Loop& loop, int fd, OnAccept on_accept, Descriptors from = Descriptors::kShared);
    // First half of a farewell: no new connection begins, those whose handshake is under way are still accepted. Close a
    // moment later. Closing at once would reset whoever is in between.
    void refuse_new();
    // Deletes itself once the loop let go of it. What already waits in the kernel's queue is accepted first, so that
    // a listener that goes away does not reset connections it has half taken.
    static void close(Acceptor* acceptor);

    SocketAddress address() const { return local_address(fd_); }
    // Connections that all acceptors of the process closed unserved, for want of a descriptor.
    static std::uint64_t shed_total();

  private:
    ~Acceptor() = default;
    void accept_some(unsigned most);
    int accept_one();
    void shed_one();

    Loop& loop_;
    uv_poll_t poll_{};
    int fd_;
    int reserve_;  // a descriptor given up when there is none left, so that the queue can still be emptied
    OnAccept on_accept_;
    Descriptors from_;
};

// Processors that this process may use: its affinity, and its control group's limit rounded up; at least 1.
unsigned processor_count();
// "QUOTA PERIOD" in microseconds (cgroup v2's cpu.max; v1's two files joined): processors, rounded up. Nothing for "max", -1 and
// whatever else is no limit.
std::optional<unsigned> parse_cpu_max(const std::string& line);

// Numbers that only the kernel knows: seeds for Random. Never fails.
std::uint64_t random_seed();

// Calls `f(signum)` on the loop's thread for each of the signals. One instance a process.
class Signals {
  public:
    Signals(Loop& loop, std::initializer_list<int> signums, std::function<void(int)> f);
    ~Signals();
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;

  private:
    struct Watch;
    std::vector<Watch*> watches_;
    std::function<void(int)> f_;
};

}  // namespace outrider::uv
