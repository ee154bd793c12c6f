#include "idempotency/gathering.h"

namespace outrider::idempotency {

void Gathering::finished(std::size_t questions, bool synced) {
    worthwhile_ = synced && questions >= kWorthwhile;
}

bool Gathering::begins() {
    yields_ = 0;
    if (!worthwhile_) return false;
    if (pause_ > 0) {
        --pause_;
        return false;
    }
    return true;
}

bool Gathering::yielded(std::size_t more, Duration took) {
    if (took > kForeign) {
        pause_ = kPause;
        return false;
    }
    return more > 0 && ++yields_ < kYields;
}

}  // namespace outrider::idempotency
