// [route.collapse] and [route.batch]: requests that share an upstream call.
#include <algorithm>
#include <array>
#include <string>

#include "base/bytes.h"
#include "base/units.h"
#include "config/diagnostics.h"
#include "config/sections.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

constexpr std::uint32_t kItemsMax = 10'000;
constexpr Bytes kCallMin{1024};
constexpr Bytes kCallMax{16 * 1024 * 1024};
constexpr Duration kLingerMax = 1s;

// Requests with these are never collapsed, so that naming them would promise something that does not happen.
Result<std::string> parse_vary(std::string_view text) {
    if (text == "*") return Error{"'*' is no field; without [route.collapse] no requests are collapsed"};
    Result<std::string> name = parse_header_name(text);
    if (!name) return name;
    constexpr std::array<std::string_view, 5> kNever = {"Range", "If-Range", "Expect", "Upgrade",
                                                        "Cache-Control"};
    if (is_framing_field(text) || std::any_of(kNever.begin(), kNever.end(), [text](std::string_view never) {
            return iequals(text, never);
        })) {
        return Error{*name + " cannot be named: requests with it that matter are never collapsed"};
    }
    if (iequals(text, "host")) return Error{"Host is always a part of what must be equal; leave it out"};
    return name;
}

void read_collapse(TableReader& route, std::optional<CollapseSettings>& out) {
    auto table = route.table("collapse");
    if (!table) return;
    CollapseSettings s;
    table->list("vary", s.vary, parse_vary, {0, kVaryMax});
    table->finish();
    for (std::size_t i = 0; i < s.vary.size(); ++i) {
        const auto before = s.vary.begin() + static_cast<std::ptrdiff_t>(i);
        if (std::any_of(s.vary.begin(), before, [&](const std::string& v) { return iequals(v, s.vary[i]); }))
            table->error("vary", in_quotes(s.vary[i]) + " is listed twice");
    }
    require_cluster(route, *table, "shares what an upstream answers");
    out = std::move(s);
}

void read_batch(TableReader& route, const RouteSettings& matched, std::optional<BatchSettings>& out) {
    auto table = route.table("batch");
    if (!table) return;
    BatchSettings s;
    const bool format = table->require_key("format", "format = \"json-array\"") &&
                        table->choice<BatchFormat>("format", kBatchFormats, s.format);
    if (table->require_key("path", "path = \"/orders/bulk\"")) table->parsed("path", s.path, parse_path);
    table->integer("max_items", s.max_items, {1, kItemsMax});
    table->size("max_bytes", s.max_bytes, {kCallMin, kCallMax});
    table->duration("linger", s.linger, {0s, kLingerMax});
    table->boolean("envelope", s.envelope);
    table->boolean("split_on_failure", s.split_on_failure);
    table->finish();
    if (format && s.format == BatchFormat::kJsonRpc && s.envelope) {
        table->error("envelope", "is not for json-rpc: its responses say themselves what became of each");
    }
    const auto& methods = matched.match.methods;
    if (!methods.empty() && std::find(methods.begin(), methods.end(), "POST") == methods.end()) {
        table->error_here("batches POST requests; match.methods lets none of them come here");
    } else if (matched.match.path.empty()) {
        route.warning("batch",
                      "all calls go to batch.path: the upstream does not learn which path the requests of "
                      "one had; give the route an exact match.path");
    }
    require_cluster(route, *table, "puts together what an upstream gets");
    out = std::move(s);
}

}  // namespace

void read_sharing(TableReader& route, RouteSettings& out) {
    read_collapse(route, out.collapse);
    read_batch(route, out, out.batch);
}

}  // namespace outrider::config
