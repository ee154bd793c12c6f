#include "demo/ledger_server.h"

#include <ctime>

#include "base/check.h"
#include "base/log.h"
#include "demo/ledger_exchange.h"

namespace outrider::demo {

namespace {
constexpr std::size_t kFreeExchangesMax = 256;
}

LedgerServer::LedgerServer(uv::Loop& loop, LedgerApi& api, const ServerOptions& options,
                           std::uint64_t random_seed)
    : loop_(loop), api_(api), options_(options), random_(random_seed) {
    limits_.parser.body_bytes_max = options.body_bytes_max;
    limits_.header_timeout = options.header_timeout;
    limits_.idle_timeout = options.idle_timeout;
    limits_.body_idle_timeout = options.body_idle_timeout;
}

LedgerServer::~LedgerServer() {
    require(acceptor_ == nullptr && connections_.empty(), "a ledger's server is drained before it dies");
}

Result<uv::SocketAddress> LedgerServer::listen(const uv::SocketAddress& address) {
    const auto fd = uv::open_listening_socket(address, false);
    if (!fd) return Error{fd.error()};
    acceptor_ = new uv::Acceptor(loop_, *fd, [this](int accepted) { accept(accepted); });
    return acceptor_->address();
}

void LedgerServer::accept(int fd) {
    auto* connection = new http::ServerConnection(loop_, *this, limits_, scratch_);
    connections_.insert(connection);
    if (auto started = connection->start(fd); !started) {
        log_warning("{}", started.error());
        connection->close();
        return;
    }
    if (draining()) connection->drain();
}

void LedgerServer::drain(std::function<void()> done) {
    require(!draining(), "a server is drained once");
    done_ = std::move(done);
    if (acceptor_ != nullptr) uv::Acceptor::close(acceptor_);
    acceptor_ = nullptr;
    for (http::ServerConnection* connection : connections_)
        connection->drain();
    tell_when_idle();
}

void LedgerServer::kill() {
    for (http::ServerConnection* connection : connections_) {
        connection->kill(http::ServerExchange::AbortReason::kShutdown);
    }
}

void LedgerServer::tell_when_idle() {
    if (draining() && connections_.empty()) done_();
}

void LedgerServer::on_connection_closed(http::ServerConnection& connection) {
    connections_.erase(&connection);
    delete &connection;
    tell_when_idle();
}

http::ServerExchange* LedgerServer::new_exchange(http::ServerConnection&) {
    if (free_exchanges_.empty()) return new LedgerExchange(*this);
    LedgerExchange* exchange = free_exchanges_.back().release();
    free_exchanges_.pop_back();
    return exchange;
}

void LedgerServer::release_exchange(http::ServerExchange* released) {
    std::unique_ptr<LedgerExchange> exchange(static_cast<LedgerExchange*>(released));
    hanging_.erase(exchange.get());
    if (free_exchanges_.size() >= kFreeExchangesMax) return;
    exchange->reset();
    free_exchanges_.push_back(std::move(exchange));
}

bool LedgerServer::draws_failure() {
    const double percent = api_.controls().fail_percent;
    if (percent <= 0) return false;
    constexpr std::uint64_t kSteps = 1'000'000;
    return static_cast<double>(scale64(random_.next(), kSteps)) * 100 < percent * static_cast<double>(kSteps);
}

void LedgerServer::release_hanging() {
    // Not here and now: this is called from within another exchange.
    loop_.post([this] {
        if (api_.controls().hang) return;
        const uv::Loop::Event event(loop_);
        while (!hanging_.empty()) {
            LedgerExchange* exchange = *hanging_.begin();
            hanging_.erase(hanging_.begin());
            exchange->answer_now();
        }
    });
}

// IMF-fixdate of RFC 9110 section 5.6.7, made once a second.
std::string_view LedgerServer::date() {
    const std::int64_t second = loop_.wall().unix_seconds();
    if (second != date_second_) {
        const std::time_t when = second;
        std::tm utc{};
        ::gmtime_r(&when, &utc);
        std::array<char, 40> text{};
        date_.assign(text.data(), std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &utc));
        date_second_ = second;
    }
    return date_;
}

}  // namespace outrider::demo
