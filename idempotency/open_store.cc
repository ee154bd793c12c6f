#include "idempotency/open_store.h"

#include "idempotency/local_store.h"
#include "idempotency/redis_store.h"

namespace outrider::idempotency {

Result<std::shared_ptr<Store>> open_store(const config::StoreSettings& settings, uv::Loop& main_loop,
                                          const StoreCells& cells) {
    if (settings.kind == config::StoreKind::kRedis)
        return std::shared_ptr<Store>(make_redis_store(settings, main_loop, cells));
    LocalStore::Options options;
    options.cells = cells;
    auto opened = LocalStore::open(settings, main_loop, options);
    if (!opened) return Error{opened.error()};
    return std::shared_ptr<Store>(std::move(*opened));
}

StoreCells store_cells(Registry& metrics, const std::string& store, unsigned shard) {
    StoreCells cells;
    cells.seconds =
        &metrics
             .histogram("idempotency_store_seconds",
                        "From a question to the store to its answer, without the time a duplicate is parked.",
                        {"store"})
             .at({store}, shard);
    cells.errors =
        &metrics
             .counter("idempotency_store_errors_total", "Times the store failed to read or write.", {"store"})
             .at({store}, shard);
    return cells;
}

Histogram* wal_sync_cell(Registry& metrics, const std::string& store, unsigned shard) {
    return &metrics.histogram("wal_sync_seconds", "Making a group of log records durable.", {"log"})
                .at({store}, shard);
}

}  // namespace outrider::idempotency
