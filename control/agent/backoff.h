// How long to wait before the next try: doubles with each failure in a row, and the later half of it is random, so that many who
// failed together do not come back together. Source: Brooker, "Exponential backoff and jitter" ("equal jitter": a wait is
// never so short that it is none). Pure.
#pragma once

#include <algorithm>

#include "base/random.h"
#include "base/time.h"

namespace outrider::agent {

struct BackoffOptions {
    Duration first = std::chrono::milliseconds(100);
    Duration max = std::chrono::seconds(5);
};

class Backoff {
  public:
    explicit Backoff(const BackoffOptions& options) : options_(options) {}

    Duration next(Random& random) {
        const Duration cap =
            std::min(options_.max, options_.first * (std::int64_t{1} << std::min(failures_, 20u)));
        ++failures_;
        const auto half = static_cast<std::uint64_t>(cap.count()) / 2;
        return Duration(static_cast<std::int64_t>(half + random.below(half + 1)));
    }
    void reset() { failures_ = 0; }
    unsigned failures() const { return failures_; }

  private:
    BackoffOptions options_;
    unsigned failures_ = 0;
};

}  // namespace outrider::agent
