// outrider demo: the ledger application and a sidecar in front of it, real processes on loopback, until Ctrl-C.
#pragma once

#include <cstdint>
#include <string>

namespace outrider::cli {

struct DemoOptions {
    std::uint16_t port = 8080;        // of the sidecar; another free one when taken
    std::uint16_t admin_port = 9901;  // likewise
    std::string program;              // how this binary was started
};

int demo(const DemoOptions& options);

}  // namespace outrider::cli
