// A clock that is wrong, under a real process: LD_PRELOAD=libfaulty_clock.so. integration/faulty_clock.py drives it.
//
// It stands between the process and the reading of clocks, and nowhere else: what the kernel times (epoll_wait, sleeps) takes as
// long as it does. (Debian's libfaketime also rewrites sleeps and timed waits, some of which then fail when its time is changed.)
//
// Invariants
//   * The wall clock is the machine's and `wall_offset_nanos`: it jumps when that is written.
//   * The monotonic clock is the machine's when the library is loaded, and runs from there at the rate that was set then.
//     It never goes back.
//
// FAULTY_CLOCK_CONTROL names a file of struct Control, mapped by both sides.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace {

constexpr std::int64_t kNanos = 1'000'000'000;
constexpr std::int64_t kMillion = 1'000'000;

struct Control {
    std::atomic<std::int64_t> wall_offset_nanos;
    std::atomic<std::int64_t>
        rate_ppm;  // how much faster than the machine's the monotonic clock runs; read once
    std::atomic<std::uint64_t> wall_reads;
};

using Reader = int(clockid_t, timespec*);

Reader* real() {
    static auto* const found = reinterpret_cast<Reader*>(::dlsym(RTLD_NEXT, "clock_gettime"));
    return found;
}

std::int64_t nanos_of(const timespec& at) {
    return at.tv_sec * kNanos + at.tv_nsec;
}

timespec timespec_of(std::int64_t nanos) {
    return {nanos / kNanos, nanos % kNanos};
}

struct Clock {
    Control* control = nullptr;
    std::int64_t rate_ppm = 0;
    std::int64_t begun = 0;  // on the monotonic clock

    Clock() {
        const char* path = std::getenv("FAULTY_CLOCK_CONTROL");
        if (path == nullptr) return;
        const int fd = ::open(path, O_RDWR | O_CLOEXEC);
        void* const mapped = ::mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (mapped == MAP_FAILED) {
            std::fprintf(stderr, "faulty_clock: cannot open %s\n", path);
            std::abort();
        }
        ::close(fd);
        control = static_cast<Control*>(mapped);
        rate_ppm = control->rate_ppm;
        timespec now = {};
        real()(CLOCK_MONOTONIC, &now);
        begun = nanos_of(now);
    }
};

}  // namespace

// NOLINTBEGIN: the C library's own signature
extern "C" __attribute__((visibility("default"))) int clock_gettime(clockid_t id, timespec* at) noexcept {
    static const Clock clock;
    const int result = real()(id, at);
    if (result != 0 || clock.control == nullptr) return result;
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) {
        ++clock.control->wall_reads;
        *at = timespec_of(nanos_of(*at) + clock.control->wall_offset_nanos);
    } else if (id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE) {
        // A coarse clock may still be before the beginning.
        const std::int64_t passed = nanos_of(*at) - clock.begun;
        *at = timespec_of(nanos_of(*at) + passed / kMillion * clock.rate_ppm +
                          passed % kMillion * clock.rate_ppm / kMillion);
    }
    return result;
}
// NOLINTEND
