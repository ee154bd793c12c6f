// One request over HTTP, for commands: blocks until the answer has been taken or the time is over.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"
#include "config/settings.h"

namespace outrider::cli {

struct HttpCall {
    std::string method;
    std::string path;
    std::string body;
    Duration connect{};
    Duration silence{};  // nothing is read for so long
    Duration timeout{};  // all of it
};
// Gets the body as it comes; false ends the call.
using HttpSink = std::function<bool(int status, std::string_view piece)>;

// The status. `localhost` is 127.0.0.1; other names are resolved.
Result<int> http_call(const config::HostPort& address, const HttpCall& call, HttpSink sink);

}  // namespace outrider::cli
