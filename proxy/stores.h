// The stores of the process, by name. Opened when a configuration first names them, kept until the process ends: a directory or a table in
// memory cannot be handed over while requests are under way. A reload may add stores; to change one takes a restart.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "base/result.h"
#include "base/uv/loop.h"
#include "config/settings.h"
#include "idempotency/store.h"

namespace outrider::proxy {

class Stores {
  public:
    // Both outlive it.
    Stores(uv::Loop& main_loop, Registry& metrics) : loop_(main_loop), metrics_(metrics) {}

    // Opens those that are new. All or nothing; an error is a sentence that begins with the store's key.
    Result<void> open(const std::vector<config::StoreSettings>& wanted);
    // Of those that are open.
    std::shared_ptr<idempotency::Store> find(const std::string& name) const;
    std::vector<std::string> names() const;

  private:
    struct Entry {
        config::StoreSettings settings;
        std::shared_ptr<idempotency::Store> store;
    };
    uv::Loop& loop_;
    Registry& metrics_;
    std::map<std::string, Entry> stores_;
};

}  // namespace outrider::proxy
