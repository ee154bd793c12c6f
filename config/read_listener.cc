// [[listener]]
#include "config/sections.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

// Shorter than this is a mistyped unit, not a limit that a peer could keep.
constexpr Duration kTimeoutMin = 10ms;
constexpr Duration kTimeoutMax = 24h;
constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;
constexpr std::uint64_t kGiB = 1024 * kMiB;

ListenerSettings read_listener(TableReader& table) {
    ListenerSettings out;
    if (table.require_key("name", "name = \"inbound\"")) {
        table.parsed("name", out.name, parse_name);
    }
    if (table.require_key("listen", "listen = \"0.0.0.0:8080\"")) {
        table.parsed("listen", out.listen, parse_listen);
    }
    table.duration("header_timeout", out.header_timeout, {kTimeoutMin, kTimeoutMax});
    table.duration("idle_timeout", out.idle_timeout, {kTimeoutMin, kTimeoutMax});
    table.duration("body_idle_timeout", out.body_idle_timeout, {kTimeoutMin, kTimeoutMax});
    table.size("min_body_rate", out.min_body_rate, {Bytes{0}, Bytes{kGiB}});
    table.size("min_read_rate", out.min_read_rate, {Bytes{0}, Bytes{kGiB}});
    table.size("max_header_bytes", out.max_header_bytes, {Bytes{kKiB}, Bytes{kMiB}});
    table.integer("max_headers", out.max_headers, {1, 1000});
    const bool target_given = table.size("max_target_bytes", out.max_target_bytes, {Bytes{64}, Bytes{kMiB}});
    table.size("max_body_bytes", out.max_body_bytes, {Bytes{0}, Bytes{1ull << 62}});
    table.integer("max_pipelined", out.max_pipelined, {1, 256});
    table.boolean("trust_forwarded", out.trust_forwarded);
    table.finish();
    if (target_given && out.max_target_bytes > out.max_header_bytes) {
        table.warning("max_target_bytes", "is more than max_header_bytes (" +
                                              outrider::to_string(out.max_header_bytes) +
                                              "), which is reached first");
    }
    return out;
}

}  // namespace

void read_listeners(TableReader& root, std::vector<ListenerSettings>& out) {
    for (TableReader& table : root.tables("listener", {1, kListenersMax})) {
        out.push_back(read_listener(table));
    }
}

}  // namespace outrider::config
