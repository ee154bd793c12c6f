#include "control/store/session_clock.h"

#include <gtest/gtest.h>

namespace outrider::store {
namespace {

using namespace std::chrono_literals;
constexpr Instant kStart{1000s};

TEST(SessionClock, TellsWhatGoesByWhileItLeads) {
    SessionClock clock;
    EXPECT_EQ(clock.tick(kStart), std::nullopt) << "it does not lead";
    clock.lead(kStart);
    EXPECT_EQ(clock.tick(kStart + 59s), std::nullopt);
    EXPECT_EQ(clock.tick(kStart + 61s), 61'000);
    EXPECT_EQ(clock.tick(kStart + 61s), std::nullopt);
    EXPECT_EQ(clock.tick(kStart + 122s), 61'000);
    clock.step_down();
    EXPECT_EQ(clock.tick(kStart + 300s), std::nullopt);
    clock.lead(kStart + 400s);
    EXPECT_EQ(clock.tick(kStart + 460s), 60'000) << "not what went by before";
}

TEST(SessionClock, DoesNotCountWhatItSleptThrough) {
    SessionClock clock;
    clock.lead(kStart);
    EXPECT_EQ(clock.tick(kStart + 5h), 120'000);
    EXPECT_EQ(clock.tick(kStart + 5h + 60s), 60'000);
}

}  // namespace
}  // namespace outrider::store
