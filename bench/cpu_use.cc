#include "bench/cpu_use.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>

namespace outrider::bench {
namespace {

std::uint64_t run_ns_of(const std::filesystem::path& process) {
    std::uint64_t total = 0;
    std::error_code gone;
    for (const auto& task : std::filesystem::directory_iterator(process / "task", gone)) {
        std::ifstream file(task.path() / "schedstat");
        std::uint64_t run_ns = 0;
        if (file >> run_ns) total += run_ns;
    }
    return total;
}

// Adds utime and stime: fields 14 and 15 of proc(5), counted behind the command in parentheses.
void add_ticks_of(const std::filesystem::path& process, CpuUse& use) {
    std::ifstream file(process / "stat");
    std::string line;
    std::getline(file, line);
    const std::size_t command_end = line.rfind(')');
    if (command_end == std::string::npos) return;
    std::istringstream fields(line.substr(command_end + 1));
    std::string skipped;
    for (int field = 3; field < 14; ++field)
        fields >> skipped;
    std::uint64_t user = 0;
    std::uint64_t system = 0;
    if (fields >> user >> system) {
        use.user_ticks += user;
        use.system_ticks += system;
    }
}

}  // namespace

CpuUse cpu_use_of(const std::vector<pid_t>& pids) {
    CpuUse use;
    for (const pid_t pid : pids) {
        const auto process = std::filesystem::path("/proc") / std::to_string(pid);
        use.run_ns += run_ns_of(process);
        add_ticks_of(process, use);
    }
    return use;
}

}  // namespace outrider::bench
