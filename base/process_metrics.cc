#include "base/process_metrics.h"

#include <array>
#include <limits>
#include <string>

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bytes.h"

namespace outrider {
namespace {

// Files of /proc have no size to ask for; those read here are short, and what exceeds 64 KiB is not
// of use.
std::string read_small_file(const char* path) {
    std::string text(64 * 1024, '\0');
    const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return {};
    std::size_t used = 0;
    while (used < text.size()) {
        const ssize_t n = ::read(fd, text.data() + used, text.size() - used);
        if (n <= 0) break;
        used += static_cast<std::size_t>(n);
    }
    ::close(fd);
    text.resize(used);
    return text;
}

// Open descriptors, without the one that the counting itself needs.
std::optional<double> count_open_fds() {
    DIR* const dir = ::opendir("/proc/self/fd");
    if (dir == nullptr) return std::nullopt;
    double count = -1;
    while (const dirent* entry = ::readdir(dir)) {
        if (entry->d_name[0] != '.') count += 1;
    }
    ::closedir(dir);
    return count;
}

// Seconds of the epoch at which the machine booted; constant, hence read once.
std::optional<std::uint64_t> boot_time() {
    static const std::optional<std::uint64_t> kBoot = []() -> std::optional<std::uint64_t> {
        const std::string text = read_small_file("/proc/stat");
        constexpr std::string_view kKey = "\nbtime ";
        const std::size_t at = text.find(kKey);
        if (at == std::string::npos) return std::nullopt;
        std::string_view value = std::string_view(text).substr(at + kKey.size());
        return parse_decimal(value.substr(0, value.find('\n')));
    }();
    return kBoot;
}

}  // namespace

std::optional<ProcStat> parse_proc_stat(std::string_view text) {
    const std::size_t close = text.rfind(')');
    if (close == std::string_view::npos) return std::nullopt;
    text.remove_prefix(close + 1);
    // What follows is field 3 (the state) and on.
    std::array<std::uint64_t, 25> fields{};
    for (std::size_t number = 3; number < fields.size(); ++number) {
        const std::size_t start = text.find_first_not_of(' ');
        if (start == std::string_view::npos) return std::nullopt;
        text.remove_prefix(start);
        const std::size_t space = text.find_first_of(" \n");
        fields[number] = parse_decimal(text.substr(0, space)).value_or(0);
        text.remove_prefix(space == std::string_view::npos ? text.size() : space);
    }
    return ProcStat{fields[14] + fields[15], fields[20], fields[22], fields[23], fields[24]};
}

void collect_process_metrics(Samples& samples) {
    if (const auto stat = parse_proc_stat(read_small_file("/proc/self/stat"))) {
        const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
        samples.counter("process_cpu_seconds_total", "User and system CPU time spent in seconds.",
                        static_cast<double>(stat->cpu_ticks) / ticks);
        samples.gauge(
            "process_resident_memory_bytes", "Resident memory size in bytes.",
            static_cast<double>(stat->resident_pages) * static_cast<double>(::sysconf(_SC_PAGESIZE)));
        samples.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.",
                      static_cast<double>(stat->virtual_bytes));
        samples.gauge("process_threads", "Threads of the process.", static_cast<double>(stat->threads));
        if (const auto boot = boot_time()) {
            samples.gauge("process_start_time_seconds",
                          "Start time of the process since the epoch in seconds.",
                          static_cast<double>(*boot) + static_cast<double>(stat->start_ticks) / ticks);
        }
    }
    if (const auto open = count_open_fds()) {
        samples.gauge("process_open_fds", "Open file descriptors.", *open);
    }
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        const double max = limit.rlim_cur == RLIM_INFINITY ? std::numeric_limits<double>::infinity()
                                                           : static_cast<double>(limit.rlim_cur);
        samples.gauge("process_max_fds", "Most file descriptors that may be open.", max);
    }
}

}  // namespace outrider
