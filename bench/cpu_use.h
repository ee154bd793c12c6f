// How much processor time other processes have used: the primary figure of the bench.
#pragma once

#include <cstdint>
#include <vector>

#include <sys/types.h>

namespace outrider::bench {

struct CpuUse {
    std::uint64_t run_ns = 0;        // all threads, exact: first field of /proc/PID/task/TID/schedstat
    std::uint64_t user_ticks = 0;    // utime and stime of /proc/PID/stat, in clock ticks (10 ms):
    std::uint64_t system_ticks = 0;  // coarse, used for the share of system time only

    friend CpuUse operator-(const CpuUse& a, const CpuUse& b) {
        return {a.run_ns - b.run_ns, a.user_ticks - b.user_ticks, a.system_ticks - b.system_ticks};
    }
};

// The sum over the processes; those that are gone count nothing.
CpuUse cpu_use_of(const std::vector<pid_t>& pids);

}  // namespace outrider::bench
