// What only shows across sections: references, duplicates, addresses in each other's way; and, when
// there is no error, warnings about what has no effect (routes that are hidden, clusters, listeners
// and stores nobody uses, limits that do not reach for every worker).
#pragma once

#include "config/diagnostics.h"
#include "config/settings.h"

namespace outrider::config {

// `diagnostics` knows the positions of the keys that `settings` was read from. Fields that were
// reported as wrong before are empty in `settings` and are not reported again.
void validate(const Settings& settings, Diagnostics& diagnostics);

// The part of it that is about [store.NAME] and [route.idempotency].
void check_stores(const Settings& settings, Diagnostics& diagnostics);
void warn_of_stores(const Settings& settings, Diagnostics& diagnostics);

}  // namespace outrider::config
