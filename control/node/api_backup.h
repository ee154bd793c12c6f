// A backup on its way to a client.
#pragma once

#include <cstdint>
#include <memory>

#include "base/sha256.h"
#include "base/wal/files.h"
#include "control/node/api_call.h"

namespace outrider::node {

struct ApiCall::Backup {
    std::shared_ptr<wal::File> file;
    std::uint64_t at = 0;
    std::uint64_t bytes = 0;  // of the file
    Sha256 digest;
};

}  // namespace outrider::node
