#include "proxy/admin.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/metrics.h"
#include "config/document.h"
#include "config/load.h"
#include "config/syntax.h"
#include "proxy/problem.h"
#include "proxy/server.h"

#ifndef OUTRIDER_VERSION
#define OUTRIDER_VERSION "0.0.0"
#endif

namespace outrider::proxy {

namespace {
using namespace std::chrono_literals;
using Json = nlohmann::ordered_json;

constexpr std::size_t kConnectionsMax = 256;  // a port
constexpr Duration kIdle = 60s;
constexpr Duration kStatusIdle = 5s;           // `status_listen` is open to more peers
constexpr std::uint64_t kBodyMax = 64 * 1024;  // read and thrown away

AdminReply json_reply(const Json& json, int status = 200) {
    return {status, "application/json", json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n", {}};
}

AdminReply problem(int status, std::string_view detail) {
    return {status, "application/problem+json", problem_json({{}, status, detail, {}, {}, {}}), {}};
}

AdminReply text(int status, std::string body) {
    return {status, "text/plain; charset=utf-8", std::move(body), {}};
}

bool is_loopback(std::string_view ip) {
    return ip.substr(0, 4) == "127." || ip == "::1";
}

std::string query_value(std::string_view query, std::string_view name) {
    while (!query.empty()) {
        const std::size_t end = query.find('&');
        const std::string_view pair = query.substr(0, end);
        const std::size_t equals = pair.find('=');
        if (pair.substr(0, equals) == name)
            return std::string(equals == std::string_view::npos ? "1" : pair.substr(equals + 1));
        if (end == std::string_view::npos) break;
        query.remove_prefix(end + 1);
    }
    return {};
}

void append_html(std::string& out, std::string_view s) {
    for (const char c : s) {
        switch (c) {
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '&':
                out += "&amp;";
                break;
            case '"':
                out += "&quot;";
                break;
            default:
                out += c;
        }
    }
}

void append_html_value(std::string& out, const Json& json);

// What an operator looks for first is coloured.
void append_html_text(std::string& out, const std::string& text) {
    const bool good = text == "healthy" || text == "ready";
    const bool bad = text == "unhealthy" || text == "ejected";
    if (good || bad) out += good ? "<b class=\"ok\">" : "<b class=\"bad\">";
    append_html(out, text);
    if (good || bad) out += "</b>";
}

// A row for each object, a column for each key that any of them has.
void append_html_rows(std::string& out, const Json& objects) {
    std::vector<std::string> columns;
    for (const Json& object : objects) {
        for (const auto& [key, value] : object.items()) {
            if (std::find(columns.begin(), columns.end(), key) == columns.end()) columns.push_back(key);
        }
    }
    out += "<table><tr>";
    for (const std::string& column : columns) {
        out += "<th>";
        append_html(out, column);
        out += "</th>";
    }
    out += "</tr>";
    for (const Json& object : objects) {
        out += "<tr>";
        for (const std::string& column : columns) {
            out += "<td>";
            if (const auto it = object.find(column); it != object.end()) append_html_value(out, *it);
            out += "</td>";
        }
        out += "</tr>";
    }
    out += "</table>";
}

// Objects as two-column tables, lists of objects as one table.
void append_html_value(std::string& out, const Json& json) {
    const auto is_object = [](const Json& value) { return value.is_object(); };
    if (json.is_array() && !json.empty() && std::all_of(json.begin(), json.end(), is_object)) {
        append_html_rows(out, json);
        return;
    }
    if (json.is_object()) {
        out += "<table>";
        for (const auto& [key, value] : json.items()) {
            out += "<tr><th>";
            append_html(out, key);
            out += "</th><td>";
            append_html_value(out, value);
            out += "</td></tr>";
        }
        out += "</table>";
    } else if (json.is_array()) {
        out += "<ul>";
        for (const auto& value : json) {
            out += "<li>";
            append_html_value(out, value);
            out += "</li>";
        }
        out += "</ul>";
    } else {
        append_html_text(out, json.is_string() ? json.get<std::string>() : json.dump());
    }
}

std::string html_page(std::string_view title, std::string_view body) {
    std::string out = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>outrider: ";
    append_html(out, title);
    out +=
        "</title><meta name=\"viewport\" content=\"width=device-width\"><style>"
        "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 "
        "1rem;color:#1c2430}"
        "nav a{margin-right:1rem}table{border-collapse:collapse;margin:.3rem 0}"
        "th,td{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0;border-bottom:1px solid "
        "#e3e7ee}"
        "th{font-weight:600;color:#4a5568}ul{margin:0;padding-left:1.1rem}h1{font-size:1.3rem}h2{font-size:1."
        "05rem;margin-top:1.6rem}"
        ".ok{color:#0a7d33}.bad{color:#b3261e}</style></head><body><nav>";
    for (const char* page :
         {"/", "/clusters", "/listeners", "/routes", "/server_info", "/config", "/metrics", "/help"}) {
        out += std::string("<a href=\"") + page + "\">" + (page[1] == '\0' ? "dashboard" : page + 1) + "</a>";
    }
    out += "</nav><h1>";
    append_html(out, title);
    out += "</h1>";
    out += body;
    out += "</body></html>\n";
    return out;
}

bool wants_html(const AdminRequest& request) {
    return request.accept.find("text/html") != std::string::npos;
}

// A page for a person with a browser.
AdminReply as_html(const AdminRequest& request, AdminReply reply) {
    if (!wants_html(request)) return reply;
    std::string body;
    if (reply.content_type == "application/json") {
        append_html_value(body, Json::parse(reply.body, nullptr, false));
    } else {
        body = "<pre>";
        append_html(body, reply.body);
        body += "</pre>";
    }
    return {reply.status, "text/html; charset=utf-8", html_page(request.path.substr(1), body), reply.allow};
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
            send(problem(413, "no body is wanted here"));
        } else if (request().expects_continue && !client_is_http10()) {
            send_informational(100, http::reason_phrase(100), 0, [](http::HeadWriter&) {});
        }
    }
    void on_request_body(std::span<const std::string_view>) override {
        if (request_bytes() > kBodyMax && !response_started()) send(problem(413, "no body is wanted here"));
    }
    void on_request_end(std::span<const http::Field>) override {
        if (!response_started()) answer();
    }
    void on_bad_request(int status, const char* reason) override {
        if (response_started()) {
            abort_response();
        } else {
            send(problem(status, reason));
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
            send(
                problem(403,
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
        const auto address =
            uv::SocketAddress::parse(where.host == "localhost" ? "127.0.0.1" : where.host, where.port);
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

void Admin::handle(const AdminRequest& request, bool status_only, bool may_change, const Done& done) {
    const auto& all = routes();
    const auto route =
        std::find_if(all.begin(), all.end(), [&](const Route& r) { return r.path == request.path; });
    if (route == all.end() || (status_only && !route->status)) {
        AdminReply reply = help();
        if (status_only) reply = text(404, "only /ready, /live and /metrics are served here\n");
        reply.status = 404;
        done(std::move(reply));
        return;
    }
    const std::string_view wanted = route->method;
    const bool matches = request.method == wanted || (wanted == "GET" && request.method == "HEAD");
    if (!matches) {
        AdminReply reply = problem(405, "this path takes " + std::string(wanted));
        reply.allow = wanted == "GET" ? "GET, HEAD" : "POST";
        done(std::move(reply));
        return;
    }
    if (wanted == "POST" && !may_change) {
        done(problem(403,
                     "changes are taken from loopback only, and neither from web pages nor through a proxy"));
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
    if (path == "/live") return done(text(200, "live\n"));
    if (path == "/metrics") return done(metrics(request));
    if (path == "/config") return done(config(request));
    if (path == "/listeners") return done(as_html(request, listeners()));
    if (path == "/routes") return done(as_html(request, route_list()));
    if (path == "/server_info") return done(as_html(request, server_info()));
    if (path == "/clusters") {
        return clusters([request, done](AdminReply reply) { done(as_html(request, std::move(reply))); });
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

AdminReply Admin::ready() const {
    const std::string reason = server_.not_ready_reason();
    return reason.empty() ? text(200, "ready\n") : text(503, "not ready: " + reason + "\n");
}

AdminReply Admin::metrics(const AdminRequest& request) const {
    const Exposition wanted = negotiate(request.accept);
    return {200, std::string(wanted.content_type), server_.metrics().render(wanted.format), {}};
}

namespace {

// The same tree; to_toml() writes no dates and no times.
Json to_json(const config::Value& value) {
    switch (value.kind) {
        case config::Value::Kind::kString:
        case config::Value::Kind::kTime:
            return value.string;
        case config::Value::Kind::kInteger:
            return value.integer;
        case config::Value::Kind::kNumber:
            return value.number;
        case config::Value::Kind::kBoolean:
            return value.boolean;
        case config::Value::Kind::kArray: {
            Json out = Json::array();
            for (const config::Value& element : value.elements)
                out.push_back(to_json(element));
            return out;
        }
        case config::Value::Kind::kTable: {
            Json out = Json::object();
            for (const config::Member& member : value.members)
                out[member.key] = to_json(member.value);
            return out;
        }
    }
    return {};
}

}  // namespace

AdminReply Admin::config(const AdminRequest& request) const {
    const Snapshot& snapshot = server_.snapshot();
    if (!query_value(request.query, "source").empty()) {
        return as_html(request, {200, "application/toml", config::hide_secrets(snapshot.source), {}});
    }
    std::string toml = config::to_toml(snapshot.settings);
    if (query_value(request.query, "format") == "toml") return {200, "application/toml", std::move(toml), {}};
    if (wants_html(request)) return as_html(request, {200, "application/toml", std::move(toml), {}});
    config::Diagnostics none("");
    return json_reply(to_json(config::parse_document(toml, none)));
}

AdminReply Admin::listeners() const {
    Json out = Json::array();
    for (const ListenerEntry& entry : server_.snapshot().listeners) {
        Json addresses = Json::array();
        for (const auto& [name, address] : server_.bound()) {
            if (name == entry.settings->name) addresses.push_back(address.text());
        }
        std::int64_t open = 0;
        for (const Gauge* g : entry.connections)
            open += g->value();
        out.push_back({{"name", entry.settings->name},
                       {"address", addresses.size() == 1 ? addresses[0] : addresses},
                       {"connections", open},
                       {"routes", entry.routes.size()},
                       {"trust_forwarded", entry.settings->trust_forwarded}});
    }
    return json_reply({{"listeners", out}});
}

namespace {

template <typename Get>
std::uint64_t total(const std::vector<PolicyCells>& cells, Get get) {
    std::uint64_t sum = 0;
    for (const PolicyCells& c : cells)
        sum += static_cast<std::uint64_t>(get(c)->value());
    return sum;
}

void add_policies(Json& entry, const RouteEntry& route) {
    const config::RouteSettings& s = *route.settings;
    const auto& cells = route.policy_cells;
    if (s.retry) {
        entry["retry"] = {
            {"attempts", s.retry->attempts},
            {"retries", total(cells, [](const PolicyCells& c) { return c.retries; })},
            {"budget_exhausted", total(cells, [](const PolicyCells& c) { return c.budget_exhausted; })}};
    }
    if (route.hedge) {
        Json hedge = {{"after", config::hedge_after(*s.hedge)},
                      {"hedges", total(cells, [](const PolicyCells& c) { return c.hedges; })},
                      {"won", total(cells, [](const PolicyCells& c) { return c.hedges_won; })}};
        std::int64_t wait = 0;
        bool fallback = false;
        for (std::size_t w = 0; w < route.hedge->wait_us.size(); ++w) {
            wait = std::max(wait, route.hedge->wait_us[w].value());
            fallback |= route.hedge->fallback[w].value() != 0;
        }
        if (wait != 0) hedge["wait_ms"] = static_cast<double>(wait) / 1000;
        if (fallback) hedge["fallback"] = "too few recent answers for a percentile";
        entry["hedge"] = hedge;
    }
    if (route.rate_limiter) {
        const auto count = route.rate_limiter->count();
        entry["rate_limit"] = {{"rate", s.rate_limit->rate},
                               {"burst", s.rate_limit->burst},
                               {"limited", total(cells, [](const PolicyCells& c) { return c.rate_limited; })},
                               {"keys", count.keys},
                               {"overflowed", count.overflowed}};
    }
    if (s.concurrency) {
        entry["concurrency"] = {
            {"limit", total(cells, [](const PolicyCells& c) { return c.concurrency_limit; })},
            {"in_flight", total(cells, [](const PolicyCells& c) { return c.concurrency_in_flight; })},
            {"shed", total(cells, [](const PolicyCells& c) { return c.shed; })}};
    }
    if (s.fault) {
        entry["fault"] = {{"percent", s.fault->percent},
                          {"delays", total(cells, [](const PolicyCells& c) { return c.fault_delays; })},
                          {"aborts", total(cells, [](const PolicyCells& c) { return c.fault_aborts; })}};
    }
}

}  // namespace

AdminReply Admin::route_list() const {
    Json out = Json::array();
    for (const ListenerEntry& listener : server_.snapshot().listeners) {
        for (const RouteEntry& route : listener.routes) {
            const auto& s = *route.settings;
            Json match = Json::object();
            if (!s.match.host.empty()) match["host"] = s.match.host;
            if (!s.match.path.empty()) match["path"] = s.match.path;
            if (!s.match.path_prefix.empty()) match["path_prefix"] = s.match.path_prefix;
            if (!s.match.methods.empty()) match["methods"] = s.match.methods;
            Json names = Json::array();
            for (const auto& h : s.match.headers)
                names.push_back(h.name);
            if (!names.empty()) match["headers"] = names;
            Json entry = {{"name", s.name}, {"listener", s.listener}, {"match", match}};
            if (s.respond) entry["respond"] = s.respond->status;
            if (s.redirect) entry["redirect"] = s.redirect->status;
            Json to = Json::array();
            for (const auto& c : s.clusters)
                to.push_back({{"cluster", c.name}, {"weight", c.weight}});
            if (!to.empty()) entry["clusters"] = to;
            if (s.mirror) entry["mirror"] = {{"cluster", s.mirror->cluster}, {"percent", s.mirror->percent}};
            entry["timeout"] = to_string(s.timeout);
            add_policies(entry, route);
            std::uint64_t requests = 0;
            for (const auto& choice : route.cells) {
                for (const RouteCells& cell : choice) {
                    for (int code = 100; code < 600; ++code)
                        requests += cell.requests->value(code);
                }
            }
            entry["requests"] = requests;
            out.push_back(std::move(entry));
        }
    }
    return json_reply({{"routes", out}});
}

AdminReply Admin::server_info() const {
    const config::Settings& s = server_.snapshot().settings;
    const Duration uptime = server_.loop().now() - server_.started_at();
    return json_reply({{"version", OUTRIDER_VERSION},
                       {"pid", ::getpid()},
                       {"node",
                        {{"name", s.node.name},
                         {"service", s.node.service},
                         {"address", s.node.address},
                         {"zone", s.node.zone}}},
                       {"uptime_seconds", uptime / 1s},
                       {"ready", server_.not_ready_reason().empty()},
                       {"not_ready_reason", server_.not_ready_reason()},
                       {"draining", server_.draining()},
                       {"workers", server_.worker_count()},
                       {"connections", server_.connections()},
                       {"connections_by_worker", server_.connections_by_worker()},
                       {"in_flight", server_.in_flight()},
                       {"config",
                        {{"file", server_.config_path()},
                         {"generation", server_.snapshot().generation},
                         {"rejected", server_.rejected_configurations()}}},
                       {"log_level", log_level()}});
}

namespace {

// RFC 3339, whole seconds, UTC.
std::string rfc3339(WallTime time) {
    const std::time_t seconds = time.unix_seconds();
    std::tm parts{};
    ::gmtime_r(&seconds, &parts);
    char text[32];
    return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

std::vector<EndpointVerdict> verdicts_of(const Snapshot& snapshot, const std::string& cluster) {
    for (const ClusterEntry& entry : snapshot.clusters) {
        if (entry.settings->name == cluster) return entry.health->verdicts();
    }
    return {};
}

void add_verdict(Json& endpoint, const EndpointVerdict& verdict) {
    endpoint["state"] = verdict.state;
    if (!verdict.reason.empty()) endpoint["reason"] = verdict.reason;
    if (verdict.since.unix_micros != 0) endpoint["since"] = rfc3339(verdict.since);
    if (verdict.ejections != 0) endpoint["ejections"] = verdict.ejections;
}

}  // namespace

void Admin::clusters(const Done& done) const {
    server_.collect_clusters([this, done](const std::vector<ClusterReport>& reports) {
        Json out = Json::array();
        for (const ClusterReport& report : reports) {
            Json endpoints = Json::array();
            const std::vector<EndpointVerdict> verdicts = verdicts_of(server_.snapshot(), report.name);
            for (const EndpointReport& e : report.endpoints) {
                endpoints.push_back({{"endpoint", e.id},
                                     {"in_flight", e.in_flight},
                                     {"connections", e.connections},
                                     {"idle", e.idle},
                                     {"requests", e.requests},
                                     {"failures", e.failures},
                                     {"latency_ewma_ms", std::round(e.latency_ewma_us) / 1000.0}});
                for (const EndpointVerdict& verdict : verdicts) {
                    if (verdict.id == e.id) add_verdict(endpoints.back(), verdict);
                }
            }
            Json cluster = {{"name", report.name}, {"endpoints", endpoints}};
            cluster["pending"] = report.pending;
            cluster["panic"] = report.panic;
            if (const std::string failure = server_.discovery().failure(report.name); !failure.empty()) {
                cluster["discovery_failure"] = failure;
            }
            out.push_back(std::move(cluster));
        }
        done(json_reply({{"clusters", out}}));
    });
}

AdminReply Admin::help() const {
    Json out = Json::array();
    for (const Route& r : routes())
        out.push_back({{"method", r.method}, {"path", r.path}, {"what", r.what}});
    return json_reply({{"paths", out}});
}

AdminReply Admin::dashboard(const AdminRequest& request, const AdminReply& cluster_page) const {
    const Json clusters = Json::parse(cluster_page.body)["clusters"];
    const Json info = Json::parse(server_info().body);
    if (!wants_html(request)) {
        return json_reply({{"server", info},
                           {"clusters", clusters},
                           {"listeners", Json::parse(listeners().body)["listeners"]},
                           {"routes", Json::parse(route_list().body)["routes"]}});
    }
    std::string body = "<p>";
    body += info["ready"].get<bool>() ? "<b class=\"ok\">ready</b>" : "<b class=\"bad\">not ready</b> ";
    append_html(body, info["not_ready_reason"].get<std::string>());
    body += "</p><h2>Clusters</h2>";
    append_html_value(body, clusters);
    body += "<h2>Routes</h2>";
    append_html_value(body, Json::parse(route_list().body)["routes"]);
    body += "<h2>Listeners</h2>";
    append_html_value(body, Json::parse(listeners().body)["listeners"]);
    body += "<h2>Server</h2>";
    append_html_value(body, info);
    return {200, "text/html; charset=utf-8", html_page(server_.snapshot().settings.node.name, body), {}};
}

AdminReply Admin::reload(const AdminRequest& request) {
    const bool dry_run = !query_value(request.query, "dry_run").empty();
    const ReloadResult result = server_.reload(dry_run);
    return json_reply({{"ok", result.ok},
                       {"dry_run", dry_run},
                       {"generation", result.generation},
                       {"messages", result.messages}},
                      result.ok ? 200 : 422);
}

AdminReply Admin::logging(const AdminRequest& request) {
    const std::string level = query_value(request.query, "level");
    if (auto set = set_log_level(level); !set) return problem(400, set.error());
    return json_reply({{"level", log_level()}});
}

}  // namespace outrider::proxy
