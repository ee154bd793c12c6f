#include "cli/http_call.h"

#include <utility>
#include <variant>

#include "base/http/client_connection.h"
#include "base/uv/loop.h"
#include "base/uv/resolver.h"

namespace outrider::cli {
namespace {

class Exchange final : public http::ClientOwner, public http::ClientHandler, private Timer {
  public:
    Exchange(const HttpCall& call, std::string request, HttpSink sink)
        : call_(call), request_(std::move(request)), sink_(std::move(sink)) {}

    Result<int> run(const uv::SocketAddress& address) {
        connection_ = new http::ClientConnection(loop_, *this, limits_, scratch_);
        connection_->open(address, call_.connect);
        connection_->bind(*this, {call_.method == "HEAD", false, call_.silence});
        loop_.schedule(*this, call_.timeout);
        loop_.run();
        if (!error_.empty()) return Error{error_};
        return status_;
    }

  private:
    void on_connected() override {
        connection_->write_copy(request_);
        connection_->request_finished();
    }
    void on_response_head(http::ResponseHead& head) override { status_ = head.status; }
    void on_response_body(std::span<const std::string_view> slices) override {
        for (const std::string_view s : slices) {
            if (error_.empty() && !sink_(status_, s)) error_ = "the answer was not taken";
        }
        if (!error_.empty()) connection_->abandon();
    }
    void on_response_end(std::span<const http::Field>) override { done_ = true; }
    void on_failed(const http::ClientFailure& failure) override {
        if (error_.empty()) error_ = failure.reason;
    }
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
    const HttpCall& call_;
    const std::string request_;
    const HttpSink sink_;
    std::string error_;
    int status_ = 0;
    bool done_ = false;
};

Result<uv::SocketAddress> resolve(const config::HostPort& address) {
    const std::string host = address.host == "localhost" ? "127.0.0.1" : address.host;
    if (auto literal = uv::SocketAddress::parse(host, address.port)) return literal;
    uv::Loop loop;
    Result<uv::SocketAddress> found = Error{"it cannot be resolved"};
    {
        uv::Resolver resolver(loop.raw());
        resolver.resolve_addresses(host, [&](uv::Resolution<uv::ResolvedAddresses> resolved) {
            if (const auto* error = std::get_if<uv::ResolveError>(&resolved)) {
                found = Error{error->message};
            } else {
                found = uv::SocketAddress::parse(std::get<uv::ResolvedAddresses>(resolved).ips.front(),
                                                 address.port);
            }
            loop.stop();
        });
        loop.run();
    }
    return found;
}

}  // namespace

Result<int> http_call(const config::HostPort& address, const HttpCall& call, HttpSink sink) {
    const auto socket = resolve(address);
    if (!socket) return Error{socket.error()};
    const std::string request =
        call.method + " " + call.path + " HTTP/1.1\r\nHost: " + config::to_string(address) +
        "\r\nUser-Agent: outrider-cli\r\nContent-Length: " + std::to_string(call.body.size()) +
        "\r\nConnection: close\r\n\r\n" + call.body;
    return Exchange(call, request, std::move(sink)).run(*socket);
}

}  // namespace outrider::cli
