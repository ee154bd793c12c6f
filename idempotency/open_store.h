// Makes the store that a [store.NAME] describes.
#pragma once

#include <memory>
#include <string>

#include "base/metrics.h"
#include "base/result.h"
#include "base/uv/loop.h"
#include "config/settings.h"
#include "idempotency/store.h"

namespace outrider::idempotency {

// On the main thread, whose loop it is. A log is recovered before this returns; Redis is connected to when it is first needed.
Result<std::shared_ptr<Store>> open_store(const config::StoreSettings& settings, uv::Loop& main_loop,
                                          const StoreCells& cells);

// What the thread of `shard` writes: a worker's, or, with the last one, the main thread and the store's own thread (of one store, each
// cell has one writer).
StoreCells store_cells(Registry& metrics, const std::string& store, unsigned shard);
// Of the store's own thread, when it has a log.
Histogram* wal_sync_cell(Registry& metrics, const std::string& store, unsigned shard);

}  // namespace outrider::idempotency
