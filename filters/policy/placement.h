// Which loop serves a new connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace outrider::policy {

// SO_REUSEPORT places by hash: of 64 long-lived connections one of 4 loops gets 1.25 times its share. So the loop that
// accepts keeps a connection only while nobody has fewer, and hands it to the least loaded otherwise.
// `open[i]`: connections that loop i has or was given. The result is `self` when no other has fewer.
inline std::size_t place_connection(std::span<const std::int64_t> open, std::size_t self) {
    std::size_t best = self;
    for (std::size_t i = 0; i < open.size(); ++i) {
        if (open[i] < open[best]) best = i;
    }
    return best;
}

}  // namespace outrider::policy
