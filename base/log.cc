#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>

namespace outrider {

Result<void> set_log_level(const std::string& level) {
    const auto parsed = spdlog::level::from_str(level == "warning" ? "warn" : level);
    if (parsed == spdlog::level::off && level != "off") {
        return Error{"unknown log level '" + level + "' (one of trace, debug, info, warning, error, off)"};
    }
    spdlog::set_level(parsed);
    return {};
}

std::string log_level() {
    const auto name = spdlog::level::to_string_view(spdlog::get_level());
    return {name.data(), name.size()};
}

void init_log() {
    auto logger = spdlog::stderr_logger_mt("outrider");
    // Milliseconds, UTC: the same time stamp as the access log's.
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
    logger->flush_on(spdlog::level::info);
    spdlog::set_default_logger(std::move(logger));
}

}  // namespace outrider
