// The process_* metrics that every Prometheus client library offers, read from /proc/self at a
// scrape.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/metrics.h"

namespace outrider {

// The fields of /proc/self/stat that are of use (proc(5)), in its own units.
struct ProcStat {
    std::uint64_t cpu_ticks = 0;  // user and system
    std::uint64_t threads = 0;
    std::uint64_t start_ticks = 0;  // after boot
    std::uint64_t virtual_bytes = 0;
    std::uint64_t resident_pages = 0;
};

// The command name in field 2 may hold spaces and parentheses. Nothing when a field is missing.
std::optional<ProcStat> parse_proc_stat(std::string_view text);

// Adds process_cpu_seconds_total, _resident_memory_bytes, _virtual_memory_bytes, _open_fds,
// _max_fds, _start_time_seconds and _threads; what /proc does not tell is left out. For
// Registry::collect.
void collect_process_metrics(Samples& samples);

}  // namespace outrider
