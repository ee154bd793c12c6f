#include "cli/admin_client.h"

#include "base/bytes.h"
#include "cli/http_call.h"
#include "config/load.h"

namespace outrider::cli {

namespace {

constexpr std::size_t kBodyMax = 1 << 20;

}  // namespace

Result<config::HostPort> admin_address(const AdminTarget& target) {
    if (!target.address.empty()) {
        const std::size_t colon = target.address.rfind(':');
        const auto port =
            colon == std::string::npos ? std::nullopt : parse_decimal(target.address.substr(colon + 1));
        if (!port || *port == 0 || *port > 65535) return Error{"'" + target.address + "' is not host:port"};
        std::string host = target.address.substr(0, colon);
        if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
        return config::HostPort{host, static_cast<std::uint16_t>(*port)};
    }
    if (target.config_path.empty()) return config::AdminSettings().listen;
    const config::LoadResult loaded = config::load_file(target.config_path);
    if (!loaded.settings) {
        return Error{loaded.diagnostics.empty() ? target.config_path + " cannot be read"
                                                : config::to_string(loaded.diagnostics.front())};
    }
    return loaded.settings->admin.listen;
}

Result<AdminAnswer> admin_call(const config::HostPort& address, const std::string& method,
                               const std::string& path, Duration timeout) {
    config::HostPort to = address;
    // A sidecar that listens on every address is reached on loopback.
    if (to.host == "0.0.0.0") to.host = "127.0.0.1";
    if (to.host == "::") to.host = "::1";
    AdminAnswer answer;
    const auto status = http_call(to,
                                  {.method = method,
                                   .path = path,
                                   .body = {},
                                   .connect = timeout,
                                   .silence = timeout,
                                   .timeout = timeout},
                                  [&answer](int, std::string_view piece) {
                                      if (answer.body.size() + piece.size() <= kBodyMax)
                                          answer.body.append(piece);
                                      return true;
                                  });
    if (!status) return Error{status.error()};
    answer.status = *status;
    return answer;
}

}  // namespace outrider::cli
