#include "base/spin_policy.h"

namespace outrider {

bool SpinPolicy::polls(Instant now, const Turn& turn) {
    if (turn.events) {
        last_event_ = now;
        answered_ = turn.answered;
        spent_ = false;
    }
    const bool expects = turn.awaited > 0 || answered_;
    if (!expects || now - last_event_ >= most_) spent_ = true;
    return !spent_;
}

}  // namespace outrider
