#include "cli/admin_client.h"

#include "base/bytes.h"
#include "base/http/client_connection.h"
#include "base/uv/loop.h"
#include "config/load.h"

namespace outrider::cli {

namespace {

constexpr std::size_t kBodyMax = 1 << 20;

class Call final : public http::ClientOwner, public http::ClientHandler, private Timer {
  public:
    Call(std::string request, bool head) : request_(std::move(request)), head_(head) {}

    Result<AdminAnswer> run(const uv::SocketAddress& address, Duration timeout) {
        connection_ = new http::ClientConnection(loop_, *this, limits_, scratch_);
        connection_->open(address, timeout);
        connection_->bind(*this, {head_, false, timeout});
        loop_.schedule(*this, timeout);
        loop_.run();
        if (!error_.empty()) return Error{error_};
        return answer_;
    }

  private:
    void on_connected() override {
        connection_->write_copy(request_);
        connection_->request_finished();
    }
    void on_response_head(http::ResponseHead& head) override { answer_.status = head.status; }
    void on_response_body(std::span<const std::string_view> slices) override {
        for (const std::string_view s : slices) {
            if (answer_.body.size() + s.size() <= kBodyMax) answer_.body.append(s);
        }
    }
    void on_response_end(std::span<const http::Field>) override { done_ = true; }
    void on_failed(const http::ClientFailure& failure) override { error_ = failure.reason; }
    void on_connection_idle(http::ClientConnection& connection) override { connection.abandon(); }
    void on_connection_gone(http::ClientConnection&) override {}
    void on_connection_closed(http::ClientConnection& connection) override {
        delete &connection;
        loop_.stop();
    }
    void on_timeout(Instant) override {
        if (done_ || !error_.empty()) return;
        error_ = "no answer in time";
        connection_->abandon();
    }

    uv::Loop loop_;
    http::ParserLimits limits_;
    http::ParserScratch scratch_;
    http::ClientConnection* connection_ = nullptr;
    std::string request_;
    std::string error_;
    AdminAnswer answer_;
    bool head_;
    bool done_ = false;
};

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
    std::string host = address.host;
    // A sidecar that listens on every address is reached on loopback.
    if (host == "0.0.0.0" || host == "localhost") host = "127.0.0.1";
    if (host == "::") host = "::1";
    const auto socket = uv::SocketAddress::parse(host, address.port);
    if (!socket) return Error{socket.error()};
    Call call(method + " " + path + " HTTP/1.1\r\nHost: " + config::to_string(address) +
                  "\r\nUser-Agent: outrider-cli\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
              method == "HEAD");
    return call.run(*socket, timeout);
}

}  // namespace outrider::cli
