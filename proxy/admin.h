// The admin HTTP endpoint: GET reads, POST changes. Runs on the main loop.
//
// Two listeners: `listen` serves everything, changes only to loopback peers; `status_listen` serves /ready /live /metrics.
// No web page may drain a sidecar, or read its configuration: a change with an Origin field is refused, and so is, on
// `listen`, every request whose Host is a name that is not ours (DNS rebinding). A change with a Via field is refused, too:
// its loopback peer is a proxy, and may be this very process.
//
// A port that has all the connections it may have closes the one that has been idle longest for a new one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/http/server_connection.h"
#include "base/result.h"
#include "base/uv/acceptor.h"
#include "config/settings.h"

namespace outrider::proxy {

class Server;

struct AdminReply {
    int status = 200;
    std::string content_type = "application/json";
    std::string body;
    std::string allow;  // with 405
};

struct AdminRequest {
    std::string method;
    std::string path;
    std::string query;
    std::string accept;
};

class Admin {
  public:
    explicit Admin(Server& server);
    ~Admin();

    Result<void> listen(const config::AdminSettings& settings);
    void close();
    std::string address_text() const;
    // An IP address, localhost, or what the configuration calls this node; a port behind it does not matter.
    bool is_own_name(std::string_view authority) const;

    // Answers through `done`, at once or later.
    using Done = std::function<void(AdminReply)>;
    void handle(const AdminRequest& request, bool status_only, bool may_change, const Done& done);

  private:
    class Port;
    class AdminExchange;
    struct Route;
    static const std::vector<Route>& routes();

    void reply_page(const AdminRequest& request, const Done& done);
    AdminReply ready() const;
    AdminReply metrics(const AdminRequest& request) const;
    AdminReply config(const AdminRequest& request) const;
    AdminReply listeners() const;
    AdminReply route_list() const;
    AdminReply server_info() const;
    AdminReply help() const;
    AdminReply dashboard(const AdminRequest& request, const AdminReply& cluster_page) const;
    void clusters(const Done& done) const;
    void stores(const Done& done) const;
    void idempotency_key(const AdminRequest& request, const Done& done) const;
    AdminReply reload(const AdminRequest& request);
    AdminReply logging(const AdminRequest& request);

    Server& server_;
    http::ParserScratch scratch_;
    std::string host_;  // of `listen`
    std::vector<std::unique_ptr<Port>> ports_;
};

}  // namespace outrider::proxy
