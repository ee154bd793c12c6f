#include "base/uv/acceptor.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"

namespace outrider::uv {

namespace {
constexpr int kBacklog = 4096;          // the kernel's somaxconn bounds it
constexpr int kUnsentMax = 256 * 1024;  // bytes that the kernel holds and has not sent yet, a connection
constexpr unsigned kAcceptsATurn = 64;  // then others get their turn; poll is level-triggered
constexpr std::int64_t kShedReportMillis = 60'000;  // of the whole process: a flood sheds thousands a second

int open_reserve() {
    return ::open("/dev/null", O_RDONLY | O_CLOEXEC);
}

std::atomic<std::uint64_t> shared_max{~std::uint64_t{0}};  // OpenFiles::shared
std::atomic<std::uint64_t> shed{0};
std::atomic<std::uint64_t> shed_reported{0};
std::atomic<std::int64_t> shed_report_due{0};

void count_shed(Instant now) {
    const std::uint64_t total = shed.fetch_add(1, std::memory_order_relaxed) + 1;
    const std::int64_t millis = millis_of(now.time_since_epoch());
    std::int64_t due = shed_report_due.load(std::memory_order_relaxed);
    if (millis < due || !shed_report_due.compare_exchange_strong(due, millis + kShedReportMillis)) return;
    log_warning(
        "out of file descriptors: connections are closed unserved, {} since the last such message (raise the "
        "limit of open files, or lower runtime.max_connections)",
        total - shed_reported.exchange(total));
}

// The whole hard limit for as long as this lives. It is every thread's, so the others give back what they accept meanwhile.
class HeldBackOpen {
  public:
    HeldBackOpen() {
        if (::getrlimit(RLIMIT_NOFILE, &before_) != 0) return;
        const rlimit all{before_.rlim_max, before_.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &all);
    }
    ~HeldBackOpen() {
        if (before_.rlim_max != 0) ::setrlimit(RLIMIT_NOFILE, &before_);
    }
    HeldBackOpen(const HeldBackOpen&) = delete;
    HeldBackOpen& operator=(const HeldBackOpen&) = delete;

  private:
    rlimit before_{};
};
}  // namespace

Result<int> open_listening_socket(const SocketAddress& address, bool reuse_port, bool ask_first) {
    const auto failed = [&](const char* what, int fd) {
        const int error = errno;
        if (fd >= 0) ::close(fd);
        return Error{std::string("cannot ") + what + " " + address.text() + ": " + error_text(-error)};
    };
    const int fd = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return failed("open a socket for", fd);
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (reuse_port && ask_first && address.port() != 0) {
        // Taken by somebody else? SO_REUSEPORT would share the port with another process of the same user without a
        // word, so a plain bind asks first.
        const int probe = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ::setsockopt(probe, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (::bind(probe, address.raw(), address.size()) != 0) {
            const auto error = failed("listen on", fd);
            ::close(probe);
            return error;
        }
        ::close(probe);
    }
    if (reuse_port) ::setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (address.storage.ss_family == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    // Accepted sockets inherit it. Without it the kernel takes up to tcp_wmem's maximum (4 MiB) for each client that does
    // not read: 600 of them put a machine of 24 GiB under TCP memory pressure.
    const int unsent_max = kUnsentMax;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_max, sizeof unsent_max);
    if (::bind(fd, address.raw(), address.size()) != 0) return failed("listen on", fd);
    if (::listen(fd, kBacklog) != 0) return failed("listen on", fd);
    return fd;
}

SocketAddress local_address(int fd) {
    SocketAddress out;
    socklen_t size = sizeof out.storage;
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&out.storage), &size);
    return out;
}

Acceptor::Acceptor(Loop& loop, int fd, OnAccept on_accept, Descriptors from)
    : loop_(loop), fd_(fd), reserve_(open_reserve()), on_accept_(std::move(on_accept)), from_(from) {
    require(uv_poll_init(loop.raw(), &poll_, fd) == 0, "a listening socket can be polled");
    poll_.data = this;
    uv_poll_start(&poll_, UV_READABLE, [](uv_poll_t* handle, int, int) {
        auto* acceptor = static_cast<Acceptor*>(handle->data);
        const Loop::Event event(acceptor->loop_);
        acceptor->accept_some(kAcceptsATurn);
    });
}

void Acceptor::accept_some(unsigned most) {
    for (unsigned i = 0; i < most; ++i) {
        const int fd = accept_one();
        if (fd >= 0) {
            if (from_ == Descriptors::kShared && static_cast<std::uint64_t>(fd) >= shared_max) {
                ::close(fd);
                count_shed(loop_.now());
            } else {
                on_accept_(fd);
            }
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED) continue;
        if (errno == EMFILE || errno == ENFILE) shed_one();
        return;
    }
}

// The descriptor, or -1 with errno.
int Acceptor::accept_one() {
    const auto accept = [this] { return ::accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC); };
    const int fd = accept();
    if (fd >= 0 || errno != EMFILE || from_ != Descriptors::kHeldBack) return fd;
    int error = 0;
    int taken = -1;
    {
        const HeldBackOpen open;
        taken = accept();
        error = errno;
    }
    errno = error;
    return taken;
}

std::uint64_t Acceptor::shed_total() {
    return shed.load(std::memory_order_relaxed);
}

// Out of descriptors: take the connection with the reserved one and close it, or the loop would spin on it.
void Acceptor::shed_one() {
    count_shed(loop_.now());
    if (reserve_ >= 0) ::close(reserve_);
    const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0) ::close(fd);
    reserve_ = open_reserve();
}

void Acceptor::refuse_new() {
    // A classic BPF program on the listening socket sees its TCP headers: segments with SYN and without ACK are dropped,
    // the last ACKs of handshakes pass. Whoever is dropped tries again a second later and is refused by then.
    sock_filter program[] = {
        {BPF_LD | BPF_B | BPF_ABS, 0, 0, 13},     // the flags
        {BPF_ALU | BPF_AND | BPF_K, 0, 0, 0x12},  // ACK | SYN
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0x02},  // SYN alone
        {BPF_RET | BPF_K, 0, 0, 0},               // drop
        {BPF_RET | BPF_K, 0, 0, 0xFFFFFFFFu},     // pass
    };
    const sock_fprog filter{sizeof program / sizeof *program, program};
    ::setsockopt(fd_, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
}

void Acceptor::close(Acceptor* acceptor) {
    {
        const Loop::Event event(acceptor->loop_);
        acceptor->accept_some(4 * kBacklog);
    }
    const int fd = acceptor->fd_;
    uv_close(reinterpret_cast<uv_handle_t*>(&acceptor->poll_), [](uv_handle_t* handle) {
        auto* done = static_cast<Acceptor*>(handle->data);
        if (done->reserve_ >= 0) ::close(done->reserve_);
        delete done;
    });
    // Now, not in the callback: nobody may complete a handshake in between. And after uv_close, which takes the number out of
    // epoll: by then another thread may have been given it.
    ::close(fd);
}

std::optional<unsigned> parse_cpu_max(const std::string& line) {
    std::istringstream in(line);
    std::int64_t quota = 0;
    std::int64_t period = 0;
    if (!(in >> quota >> period) || quota <= 0 || period <= 0) return {};
    const std::int64_t processors = (quota - 1) / period + 1;
    return static_cast<unsigned>(std::min<std::int64_t>(processors, 4096));
}

unsigned processor_count() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    const auto usable = static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
    // A container's limit is no affinity: without this, a pod with one CPU on a node of 64 would get 64 workers.
    const auto first_line = [](const char* path) {
        std::ifstream file(path);
        std::string line;
        std::getline(file, line);
        return line;
    };
    std::string quota = first_line("/sys/fs/cgroup/cpu.max");
    if (quota.empty()) {
        quota = first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") + " " +
                first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    }
    const auto limit = parse_cpu_max(quota);
    return limit ? std::min(usable, *limit) : usable;
}

std::uint64_t random_seed() {
    std::uint64_t seed = 0;
    if (::getrandom(&seed, sizeof seed, 0) != sizeof seed) {
        seed = static_cast<std::uint64_t>(read_clock().time_since_epoch().count());
    }
    return seed;
}

bool is_held_back(int fd) {
    return static_cast<std::uint64_t>(fd) >= shared_max.load(std::memory_order_relaxed);
}

OpenFiles raise_open_files(std::uint64_t held_back) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return {};
    const std::uint64_t shared = limit.rlim_max - std::min<std::uint64_t>(held_back, limit.rlim_max / 4);
    const rlimit wanted{shared, limit.rlim_max};
    if (::setrlimit(RLIMIT_NOFILE, &wanted) == 0) {
        shared_max = shared;
        return {shared, limit.rlim_max};
    }
    return {limit.rlim_cur, limit.rlim_cur};
}

struct Signals::Watch {
    uv_signal_t handle{};
    Signals* owner = nullptr;
    Loop* loop = nullptr;
};

Signals::Signals(Loop& loop, std::initializer_list<int> signums, std::function<void(int)> f)
    : f_(std::move(f)) {
    for (const int signum : signums) {
        auto* watch = new Watch;
        watch->owner = this;
        watch->loop = &loop;
        uv_signal_init(loop.raw(), &watch->handle);
        watch->handle.data = watch;
        uv_signal_start(
            &watch->handle,
            [](uv_signal_t* handle, int number) {
                auto* w = static_cast<Watch*>(handle->data);
                const Loop::Event event(*w->loop);
                w->owner->f_(number);
            },
            signum);
        watches_.push_back(watch);
    }
}

Signals::~Signals() {
    for (Watch* watch : watches_) {
        uv_close(reinterpret_cast<uv_handle_t*>(&watch->handle),
                 [](uv_handle_t* handle) { delete static_cast<Watch*>(handle->data); });
    }
}

}  // namespace outrider::uv
