// Keys in a Redis that many sidecars share: redis://, or redis-sentinel:// to follow a master that fails over.
//
// The promise of store.h holds while Redis keeps what it has acknowledged. It does not by itself:
//   * Replication is asynchronous. A master that dies takes with it what its replicas had not received, so a failover may lose claims and
//     answers of its last moments: those keys are absent, and a duplicate is executed again. WAIT would not help (a replica that did
//     not get the write may be promoted all the same), so it is not offered.
//   * On disk stands what appendfsync says: "always" everything, "everysec" all but the last second, without AOF what the last
//     snapshot held. A Redis that is killed and restarted may have forgotten claims in flight.
//   * Any maxmemory-policy but noeviction throws keys away; a warning says so.
// Who cannot accept that takes kind = "log" and one sidecar a service, or executes idempotently.
#pragma once

#include <memory>

#include "config/settings.h"
#include "idempotency/store.h"

namespace outrider::idempotency {

// For a store of kind redis; on the thread of `main`, whose questions (look, forget, status) get a connection when first asked. `cells`:
// that thread's.
std::unique_ptr<Store> make_redis_store(const config::StoreSettings& settings, uv::Loop& main,
                                        const StoreCells& cells);

}  // namespace outrider::idempotency
