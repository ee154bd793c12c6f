// A deadline with a function, for objects that have several.
#pragma once

#include <functional>
#include <utility>

#include "base/timer_wheel.h"

namespace outrider::node {

class Alarm final : public Timer {
  public:
    explicit Alarm(std::function<void(Instant)> f) : f_(std::move(f)) {}

  private:
    void on_timeout(Instant now) override { f_(now); }
    const std::function<void(Instant)> f_;
};

}  // namespace outrider::node
