// Where the text of a configuration comes from: a file, the process's environment, the machine's name.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "config/diagnostics.h"
#include "config/load.h"

namespace outrider::config {

// At most one byte more than 4 MiB, so that is_text() sees that it is too much. Works for pipes.
Result<std::string> read_file(const std::string& path);
// Reports what is no text at all, or too much of it.
bool is_text(std::string_view text, Diagnostics& diagnostics);

EnvLookup process_environment();
// "" when the kernel does not say.
std::string host_name();
// One that fits where node.name goes (Via, Proxy-Status), whatever the kernel says it is.
std::string usable_host_name(std::string name);

}  // namespace outrider::config
