// One request to the admin endpoint, for commands: blocks until the answer is there or the time is over.
#pragma once

#include <string>

#include "base/result.h"
#include "base/time.h"
#include "cli/commands.h"
#include "config/settings.h"

namespace outrider::cli {

struct AdminAnswer {
    int status = 0;
    std::string body;
};

Result<config::HostPort> admin_address(const AdminTarget& target);
Result<AdminAnswer> admin_call(const config::HostPort& address, const std::string& method,
                               const std::string& path, Duration timeout);

}  // namespace outrider::cli
