// [store.NAME]
#include <algorithm>
#include <initializer_list>
#include <string>

#include "base/units.h"
#include "config/diagnostics.h"
#include "config/redis_url.h"
#include "config/sections.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr Bytes kMemoryMin{kMiB};
constexpr Bytes kMemoryMax{kMiB << 20};
constexpr std::uint32_t kWaitingMax = 1'000'000;
constexpr Bytes kSegmentMin{kMiB};
constexpr Bytes kSegmentMax{kMiB << 10};
constexpr Duration kOperationMin = 1ms;
constexpr Duration kOperationMax = 10s;
constexpr Duration kConnectMax = 1min;
constexpr std::size_t kPrefixMax = 64;

Result<std::string> parse_prefix(std::string_view text) {
    const bool visible = std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
    if (!visible || text.size() > kPrefixMax) {
        return Error{in_quotes(text) +
                     " is not a prefix of keys (up to 64 printable ASCII characters, no space)"};
    }
    return std::string(text);
}

// A key of another kind would have no effect, and what was meant by it is not what happens.
void refuse_foreign(TableReader& table, StoreKind kind) {
    const auto refuse = [&](const char* kinds, std::initializer_list<const char*> keys) {
        for (const char* key : keys) {
            if (table.has(key)) table.error(key, "only for kind = " + std::string(kinds));
        }
    };
    if (kind == StoreKind::kRedis) refuse("\"memory\" or \"log\"", {"max_memory"});
    if (kind != StoreKind::kLog) refuse("\"log\"", {"path", "sync", "segment_bytes"});
    if (kind != StoreKind::kRedis) {
        refuse("\"redis\"", {"url", "operation_timeout", "connect_timeout", "prefix"});
    }
}

StoreSettings read_store(TableReader& table, const std::string& name) {
    StoreSettings out;
    out.name = name;
    // Without a default: that a store forgets everything with its process should be somebody's choice.
    const bool known = table.require_key("kind", "kind = \"log\"; or \"memory\", \"redis\"") &&
                       table.choice<StoreKind>("kind", kStoreKinds, out.kind);
    if (known) {
        refuse_foreign(table, out.kind);
        if (out.kind == StoreKind::kLog) table.require_key("path", "path = \"/var/lib/outrider/keys\"");
        if (out.kind == StoreKind::kRedis) table.require_key("url", "url = \"redis://redis:6379\"");
    }
    table.size("max_memory", out.max_memory, {kMemoryMin, kMemoryMax});
    table.integer("max_waiting", out.max_waiting, {0, kWaitingMax});
    table.parsed("path", out.path, parse_directory);
    table.choice<SyncMode>("sync", kSyncModes, out.sync);
    table.size("segment_bytes", out.segment_bytes, {kSegmentMin, kSegmentMax});
    table.parsed("url", out.url, parse_redis_url);
    table.duration("operation_timeout", out.operation_timeout, {kOperationMin, kOperationMax});
    table.duration("connect_timeout", out.connect_timeout, {kOperationMin, kConnectMax});
    table.parsed("prefix", out.prefix, parse_prefix);
    table.finish();
    if (known && out.kind == StoreKind::kLog && out.sync == SyncMode::kNone) {
        table.warning("sync",
                      "with \"none\" the keys of the last moments are lost when the machine stops or "
                      "loses power: their requests may then run again");
    }
    return out;
}

}  // namespace

void read_stores(TableReader& root, std::vector<StoreSettings>& out) {
    constexpr const char* kHeader = "a store has a name, which is part of its header: [store.local]";
    if (root.has("store") && !root.holds("store", Value::Kind::kTable)) {
        root.error("store", kHeader);
        return;
    }
    root.for_each_key("store", kStoresMax, [&](TableReader& stores, const std::string& name) {
        if (!stores.holds(name, Value::Kind::kTable) && !stores.holds(name, Value::Kind::kArray)) {
            stores.error(name, kHeader);
            return;
        }
        if (const Result<std::string> right = parse_name(name); !right) stores.error(name, right.error());
        if (auto table = stores.table(name)) out.push_back(read_store(*table, name));
    });
    std::sort(out.begin(), out.end(),
              [](const StoreSettings& a, const StoreSettings& b) { return a.name < b.name; });
}

}  // namespace outrider::config
