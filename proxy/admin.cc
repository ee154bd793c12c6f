#include "proxy/admin.h"

#include <algorithm>

#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "proxy/admin_reply.h"
#include "proxy/server.h"

namespace outrider::proxy {

namespace {
using namespace std::chrono_literals;

constexpr std::size_t kConnectionsMax = 256;  // a port
constexpr Duration kIdle = 60s;
constexpr Duration kStatusIdle = 5s;           // `status_listen` is open to more peers
constexpr std::uint64_t kBodyMax = 64 * 1024;  // read and thrown away

bool is_loopback(std::string_view ip) {
    return ip.substr(0, 4) == "127." || ip == "::1";
}

}  // namespace

// ---- the connections -------------------------------------------------------------------------------------------------

class Admin::AdminExchange final : public http::ServerExchange {
  public:
    AdminExchange(Admin& admin, bool status_only)
        : admin_(admin), status_only_(status_only), alive_(std::make_shared<bool>(true)) {}
    ~AdminExchange() override { *alive_ = false; }

  private:
    void on_request() override {
        if (request_complete()) {
            answer();
        } else if (request().content_length > kBodyMax) {
            send(admin_problem(413, "no body is wanted here"));
        } else if (request().expects_continue && !client_is_http10()) {
            send_informational(100, http::reason_phrase(100), 0, [](http::HeadWriter&) {});
        }
    }
    void on_request_body(std::span<const std::string_view>) override {
        if (request_bytes() > kBodyMax && !response_started())
            send(admin_problem(413, "no body is wanted here"));
    }
    void on_request_end(std::span<const http::Field>) override {
        if (!response_started()) answer();
    }
    void on_bad_request(int status, const char* reason) override {
        if (response_started()) {
            abort_response();
        } else {
            send(admin_problem(status, reason));
        }
    }
    void on_aborted(AbortReason) override { *alive_ = false; }

    // Dropped fields count: who writes `Connection: Origin` still sent an Origin.
    bool carries(std::string_view name) const {
        for (const http::FieldRef& field : request().all()) {
            if (iequals(request().name(field), name)) return true;
        }
        return false;
    }
    bool is_for_us() const {
        if (status_only_) return true;
        for (const http::FieldRef& field : request().all()) {
            if (field.id == http::FieldId::kHost && !admin_.is_own_name(request().value(field))) return false;
        }
        return admin_.is_own_name(request().authority());
    }

    void answer() {
        if (!is_for_us()) {
            send(admin_problem(
                403,
                "the Host field must be an IP address, localhost, or the node's name or address: any "
                "other name could be a web page's"));
            return;
        }
        const bool may_change = is_loopback(connection().peer_ip()) && !carries("Origin") && !carries("Via");
        const AdminRequest asked{std::string(request().method_text()), std::string(request().path()),
                                 std::string(request().query()),
                                 std::string(request().value_of(http::FieldId::kAccept))};
        admin_.handle(asked, status_only_, may_change, [this, alive = alive_](const AdminReply& reply) {
            if (*alive) send(reply);
        });
    }

    void send(const AdminReply& reply) {
        start_response(reply.status, http::reason_phrase(reply.status), Body::kLength, reply.body.size(),
                       reply.content_type.size() + reply.allow.size() + 256, [&](http::HeadWriter& out) {
                           out.field("Content-Type", reply.content_type);
                           if (!reply.allow.empty()) out.field("Allow", reply.allow);
                           out.text(
                               "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
                               "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n");
                       });
        const std::string_view body = reply.body;
        write_body({&body, 1}, false);
        finish();
    }

    Admin& admin_;
    bool status_only_;
    std::shared_ptr<bool> alive_;
};

class Admin::Port final : public http::ServerHandler {
  public:
    Port(Admin& admin, int fd, bool status_only) : admin_(admin), status_only_(status_only) {
        limits_.header_timeout = 10s;
        limits_.idle_timeout = status_only ? kStatusIdle : kIdle;
        limits_.body_idle_timeout = 10s;
        acceptor_ = new uv::Acceptor(
            admin.server_.loop(), fd, [this](int accepted) { serve(accepted); }, uv::Descriptors::kHeldBack);
    }
    ~Port() { close(); }

    void close() {
        if (acceptor_ == nullptr) return;
        uv::Acceptor::close(acceptor_);
        acceptor_ = nullptr;
        closing_ = true;
        while (!held_.empty())
            kill(held_.begin());
    }
    uv::SocketAddress address() const { return acceptor_->address(); }

  private:
    void serve(int fd) {
        if (closing_) {
            ::close(fd);
            return;
        }
        // The descriptors held back must go round: a third each for two ports, the rest so that accepting still works.
        // Only one of them is worth closing a connection for; a lower one would be anybody's.
        const uv::OpenFiles& files = admin_.server_.open_files();
        const auto scarce =
            std::count_if(held_.begin(), held_.end(), [&](const Held& h) { return h.fd >= files.shared; });
        if (static_cast<std::uint64_t>(fd) >= files.shared &&
            static_cast<std::uint64_t>(scarce) >= (files.all - files.shared) / 3) {
            make_room(files.shared);
        }
        if (held_.size() >= kConnectionsMax) make_room(0);
        auto* connection = new http::ServerConnection(admin_.server_.loop(), *this, limits_, admin_.scratch_);
        held_.push_back({connection, static_cast<std::uint64_t>(fd)});
        if (!connection->start(fd)) connection->close();
    }

    // Closes a connection whose descriptor is `from` or above: the one idle longest. None idle: peers keep all of them
    // busy, which no honest ones do, so the one whose last request began first goes.
    void make_room(std::uint64_t from) {
        const auto first = [&](auto&& also) {
            return std::find_if(held_.begin(), held_.end(), [&](const Held& h) {
                return h.fd >= from && !h.connection->closing() && also(h);
            });
        };
        auto leaving = first([](const Held& h) { return h.connection->idle(); });
        if (leaving == held_.end()) leaving = first([](const Held&) { return true; });
        if (leaving != held_.end()) kill(leaving);
    }

    struct Held {
        http::ServerConnection* connection;
        std::uint64_t fd;
    };
    void kill(std::vector<Held>::iterator leaving) {
        http::ServerConnection& connection = *leaving->connection;
        held_.erase(leaving);
        connection.kill(http::ServerExchange::AbortReason::kShutdown);
    }
    std::vector<Held>::iterator find(const http::ServerConnection& connection) {
        return std::find_if(held_.begin(), held_.end(),
                            [&](const Held& h) { return h.connection == &connection; });
    }

    http::ServerExchange* new_exchange(http::ServerConnection& connection) override {
        if (const auto it = find(connection); it != held_.end()) std::rotate(it, it + 1, held_.end());
        return new AdminExchange(admin_, status_only_);
    }
    void release_exchange(http::ServerExchange* exchange) override { delete exchange; }
    void on_connection_closed(http::ServerConnection& connection) override {
        if (const auto it = find(connection); it != held_.end()) held_.erase(it);
        delete &connection;
    }

    Admin& admin_;
    bool status_only_;
    uv::Acceptor* acceptor_ = nullptr;
    http::ServerLimits limits_;
    std::vector<Held> held_;  // the one whose last request began first is in front
    bool closing_ = false;
};

Admin::Admin(Server& server) : server_(server) {}

Admin::~Admin() = default;

Result<void> Admin::listen(const config::AdminSettings& settings) {
    const auto open = [&](const config::HostPort& where, bool status_only) -> Result<void> {
        const auto address = uv::SocketAddress::to_listen(where.host, where.port);
        if (!address) return Error{"admin: " + address.error()};
        const auto fd = uv::open_listening_socket(*address, false);
        if (!fd) return Error{"admin: " + fd.error()};
        ports_.push_back(std::make_unique<Port>(*this, *fd, status_only));
        return {};
    };
    host_ = settings.listen.host;
    if (auto ok = open(settings.listen, false); !ok) return ok;
    if (settings.status_listen) return open(*settings.status_listen, true);
    return {};
}

void Admin::close() {
    for (auto& port : ports_)
        port->close();
}

std::string Admin::address_text() const {
    return ports_.front()->address().text();
}

bool Admin::is_own_name(std::string_view authority) const {
    if (authority.empty()) return true;  // HTTP/1.0 without a Host; no browser
    const bool bracketed = authority.front() == '[';
    const std::string host(bracketed ? authority.substr(1, authority.find(']') - 1)
                                     : authority.substr(0, authority.find(':')));
    const auto& node = server_.snapshot().settings.node;
    return iequals(host, "localhost") || iequals(host, host_) || iequals(host, node.name) ||
           iequals(host, node.address) || uv::SocketAddress::parse(host, 0);
}

// ---- the pages -----------------------------------------------------------------------------------------------------------

struct Admin::Route {
    const char* path;
    const char* method;
    const char* what;
    bool status;  // also on status_listen
};

const std::vector<Admin::Route>& Admin::routes() {
    static const std::vector<Route> all = {
        {"/", "GET", "dashboard", false},
        {"/help", "GET", "this list", false},
        {"/ready", "GET", "200 when traffic should come here, else 503 with the reason", true},
        {"/live", "GET", "200 while the process works", true},
        {"/metrics", "GET", "Prometheus text, OpenMetrics when asked for", true},
        {"/config", "GET",
         "the configuration in use, defaults spelled out; ?format=toml as TOML, ?source=1 the file as it was "
         "read",
         false},
        {"/clusters", "GET", "clusters and endpoints with their load", false},
        {"/listeners", "GET", "listeners and the addresses they are bound to", false},
        {"/routes", "GET", "routes in the order in which they match", false},
        {"/idempotency", "GET", "stores of idempotency keys: how many keys, how full, how old", false},
        {"/idempotency/{store}/{key}", "GET",
         "one key: its digest (in the problems of idempotency keys), or the client's key with ?route=NAME "
         "and "
         "&scope=VALUE for each entry of the route's scope",
         false},
        {"/idempotency/{store}/{key}/forget", "POST", "forget a key: the next request with it is a first one",
         false},
        {"/server_info", "GET", "version, node, uptime, generation", false},
        {"/reload", "POST", "read the configuration again; ?dry_run only checks it", false},
        {"/drain", "POST", "become unready, stop accepting, end when idle", false},
        {"/logging", "POST", "?level=debug changes the log level", false},
        {"/health/fail", "POST", "make /ready answer 503", false},
        {"/health/ok", "POST", "let /ready tell the truth again", false},
        {"/shutdown", "POST", "end at once", false},
    };
    return all;
}

namespace {

// "/idempotency/{store}/{key}": a segment in braces stands for any one segment that is not empty.
bool path_matches(std::string_view pattern, std::string_view path) {
    while (!pattern.empty() && !path.empty()) {
        const std::string_view want = pattern.substr(0, std::min(pattern.find('/', 1), pattern.size()));
        const std::string_view have = path.substr(0, std::min(path.find('/', 1), path.size()));
        const bool any = want.size() > 1 && want[1] == '{';
        if (any ? have.size() < 2 : have != want) return false;
        pattern.remove_prefix(want.size());
        path.remove_prefix(have.size());
    }
    return pattern.empty() && path.empty();
}

}  // namespace

AdminReply Admin::help() const {
    Json out = Json::array();
    for (const Route& r : routes())
        out.push_back({{"method", r.method}, {"path", r.path}, {"what", r.what}});
    return json_reply({{"paths", out}});
}

void Admin::handle(const AdminRequest& request, bool status_only, bool may_change, const Done& done) {
    const auto& all = routes();
    const auto route = std::find_if(all.begin(), all.end(),
                                    [&](const Route& r) { return path_matches(r.path, request.path); });
    if (route == all.end() || (status_only && !route->status)) {
        AdminReply reply = help();
        if (status_only) reply = text_reply(404, "only /ready, /live and /metrics are served here\n");
        reply.status = 404;
        done(std::move(reply));
        return;
    }
    const std::string_view wanted = route->method;
    const bool matches = request.method == wanted || (wanted == "GET" && request.method == "HEAD");
    if (!matches) {
        AdminReply reply = admin_problem(405, "this path takes " + std::string(wanted));
        reply.allow = wanted == "GET" ? "GET, HEAD" : "POST";
        done(std::move(reply));
        return;
    }
    if (wanted == "POST" && !may_change) {
        done(admin_problem(
            403, "changes are taken from loopback only, and neither from web pages nor through a proxy"));
        return;
    }
    reply_page(request, done);
}

void Admin::reply_page(const AdminRequest& request, const Done& done) {
    const std::string& path = request.path;
    if (path == "/") {
        return clusters([this, request, done](const AdminReply& reply) { done(dashboard(request, reply)); });
    }
    if (path == "/help") return done(as_html(request, help()));
    if (path == "/ready") return done(ready());
    if (path == "/live") return done(text_reply(200, "live\n"));
    if (path == "/metrics") return done(metrics(request));
    if (path == "/config") return done(config(request));
    if (path == "/listeners") return done(as_html(request, listeners()));
    if (path == "/routes") return done(as_html(request, route_list()));
    if (path == "/server_info") return done(as_html(request, server_info()));
    if (path == "/clusters") {
        return clusters([request, done](AdminReply reply) { done(as_html(request, std::move(reply))); });
    }
    if (path == "/idempotency") {
        return stores([request, done](AdminReply reply) { done(as_html(request, std::move(reply))); });
    }
    if (path.starts_with("/idempotency/")) {
        return idempotency_key(
            request, [request, done](AdminReply reply) { done(as_html(request, std::move(reply))); });
    }
    if (path == "/reload") return done(reload(request));
    if (path == "/logging") return done(logging(request));
    if (path == "/drain") {
        server_.begin_drain();
        return done(json_reply({{"draining", true}}));
    }
    if (path == "/health/fail" || path == "/health/ok") {
        server_.set_health_override(path == "/health/fail");
        return done(json_reply({{"ready", server_.not_ready_reason().empty()}}));
    }
    // /shutdown: the answer leaves first.
    done(json_reply({{"shutdown", true}}));
    server_.loop().after(20ms, [this] { server_.shutdown_now(); });
}

}  // namespace outrider::proxy
