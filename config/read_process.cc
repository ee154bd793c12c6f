// [node] [runtime] [admin] [log] [drain]: what there is one of in a process.
#include "config/sections.h"
#include "config/suggest.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

constexpr unsigned kWorkersMax = 256;
constexpr std::uint32_t kConnectionsMax = 1'000'000;
constexpr Duration kSpinMax = 10ms;

// "" stays "": the default applies.
Result<std::string> parse_optional_node_name(std::string_view text) {
    return text.empty() ? Result<std::string>(std::string()) : parse_node_name(text);
}

Result<std::string> parse_access(std::string_view text) {
    if (text == "stdout" || text == "off") return std::string(text);
    if (text.find('/') != std::string_view::npos) return parse_file_path(text);
    return Error{in_quotes(text) + " is neither \"stdout\" nor \"off\" nor a file path with a '/'" +
                 did_you_mean(text, {"stdout", "off"})};
}

struct Level {};
constexpr Choice<Level> kLevels[] = {{"trace", {}},   {"debug", {}}, {"info", {}},
                                     {"warning", {}}, {"error", {}}, {"off", {}}};

}  // namespace

void read_node(TableReader& root, NodeSettings& out) {
    auto node = root.table("node");
    if (!node) return;
    node->parsed("name", out.name, parse_optional_node_name);
    node->parsed("service", out.service, parse_optional_node_name);
    node->parsed("address", out.address, parse_host);
    node->parsed("zone", out.zone, parse_optional_node_name);
    node->finish();
}

void read_runtime(TableReader& root, RuntimeSettings& out) {
    auto runtime = root.table("runtime");
    if (!runtime) return;
    runtime->integer("workers", out.workers, {0, kWorkersMax});
    runtime->integer("max_connections", out.max_connections, {1, kConnectionsMax});
    runtime->duration("spin", out.spin, {0s, kSpinMax});
    runtime->finish();
}

void read_admin(TableReader& root, AdminSettings& out) {
    auto admin = root.table("admin");
    if (!admin) return;
    admin->parsed("listen", out.listen, parse_listen);
    admin->parsed("status_listen", out.status_listen, parse_listen);
    admin->finish();
}

void read_log(TableReader& root, LogSettings& out) {
    auto log = root.table("log");
    if (!log) return;
    Level level;
    if (log->choice<Level>("level", kLevels, level)) log->text("level", out.level);
    log->parsed("access", out.access, parse_access);
    log->choice<AccessFormat>("access_format", kAccessFormats, out.access_format);
    log->finish();
}

void read_drain(TableReader& root, DrainSettings& out) {
    auto drain = root.table("drain");
    if (!drain) return;
    drain->duration("delay", out.delay, {0s, 24h});
    drain->duration("timeout", out.timeout, {0s, 24h});
    drain->finish();
}

}  // namespace outrider::config
