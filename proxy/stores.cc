#include "proxy/stores.h"

#include "idempotency/open_store.h"

namespace outrider::proxy {

Result<void> Stores::open(const std::vector<config::StoreSettings>& wanted) {
    std::map<std::string, Entry> opened;
    for (const config::StoreSettings& settings : wanted) {
        const std::string key = "store." + settings.name;
        if (const auto it = stores_.find(settings.name); it != stores_.end()) {
            if (it->second.settings == settings) continue;
            return Error{key + ": a store that is open cannot be changed by a reload; restart outrider"};
        }
        const unsigned shard = metrics_.shards() - 1;
        idempotency::StoreCells cells = idempotency::store_cells(metrics_, settings.name, shard);
        if (settings.kind == config::StoreKind::kLog)
            cells.wal_sync = idempotency::wal_sync_cell(metrics_, settings.name, shard);
        auto store = idempotency::open_store(settings, loop_, cells);
        if (!store) return Error{store.error()};  // it names the store
        opened[settings.name] = {settings, std::move(*store)};
    }
    stores_.merge(opened);
    return {};
}

std::shared_ptr<idempotency::Store> Stores::find(const std::string& name) const {
    const auto it = stores_.find(name);
    return it == stores_.end() ? nullptr : it->second.store;
}

std::vector<std::string> Stores::names() const {
    std::vector<std::string> out;
    for (const auto& [name, entry] : stores_)
        out.push_back(name);
    return out;
}

}  // namespace outrider::proxy
