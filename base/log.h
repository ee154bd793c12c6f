// The application log (spdlog behind one door). The access log is proxy/'s own.
//
// Never log a secret: header values of Authorization or Cookie, keys, configuration values from the environment.
#pragma once

#include <string>

#include <spdlog/spdlog.h>

#include "base/result.h"

namespace outrider {

// trace | debug | info | warning | error | off
Result<void> set_log_level(const std::string& level);
std::string log_level();

// To stderr, one line a message: 2026-01-31T12:00:00.123Z level message
void init_log();

template <typename... Args>
void log_debug(fmt::format_string<Args...> f, Args&&... args) {
    spdlog::debug(f, std::forward<Args>(args)...);
}
template <typename... Args>
void log_info(fmt::format_string<Args...> f, Args&&... args) {
    spdlog::info(f, std::forward<Args>(args)...);
}
template <typename... Args>
void log_warning(fmt::format_string<Args...> f, Args&&... args) {
    spdlog::warn(f, std::forward<Args>(args)...);
}
template <typename... Args>
void log_error(fmt::format_string<Args...> f, Args&&... args) {
    spdlog::error(f, std::forward<Args>(args)...);
}

}  // namespace outrider
