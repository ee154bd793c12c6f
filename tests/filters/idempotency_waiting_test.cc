#include "filters/policy/idempotency_waiting.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::policy {
namespace {
using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

const Instant t0{1000s};

Digest digest_of(std::uint8_t byte) {
    Digest digest;
    digest.bytes.fill(byte);
    return digest;
}
const Digest kA = digest_of(1);
const Digest kB = digest_of(2);

TEST(WaitingList, WakesThoseOfAKeyInTheOrderInWhichTheyCame) {
    WaitingList list(10);
    const WaiterId first = *list.park(kA, t0 + 9s);
    const WaiterId other = *list.park(kB, t0 + 5s);
    const WaiterId second = *list.park(kA, t0 + 1s);
    const WaiterId third = *list.park(kA, t0 + 5s);
    EXPECT_THAT(list.wake(kA), ElementsAre(first, second, third));
    EXPECT_EQ(list.waiting(), 1u);
    EXPECT_THAT(list.wake(kA), IsEmpty());
    EXPECT_THAT(list.wake(kB), ElementsAre(other));
    EXPECT_EQ(list.next_deadline(), std::nullopt);
}

TEST(WaitingList, TimesOutInTheOrderOfTime) {
    WaitingList list(10);
    const WaiterId late = *list.park(kA, t0 + 9s);
    const WaiterId early = *list.park(kA, t0 + 1s);
    const WaiterId middle = *list.park(kB, t0 + 5s);
    const WaiterId as_early = *list.park(kB, t0 + 1s);
    EXPECT_EQ(list.next_deadline(), t0 + 1s);
    EXPECT_THAT(list.time_out(t0 + 999ms), IsEmpty());
    EXPECT_THAT(list.time_out(t0 + 1s), ElementsAre(early, as_early));
    EXPECT_EQ(list.next_deadline(), t0 + 5s);
    EXPECT_THAT(list.time_out(t0 + 1h), ElementsAre(middle, late));
    EXPECT_THAT(list.wake(kA), IsEmpty());
}

TEST(WaitingList, OneThatLeftIsNeitherWokenNorTimedOut) {
    WaitingList list(10);
    const WaiterId gone = *list.park(kA, t0 + 1s);
    const WaiterId stays = *list.park(kA, t0 + 2s);
    EXPECT_TRUE(list.leave(gone));
    EXPECT_FALSE(list.leave(gone));
    EXPECT_EQ(list.next_deadline(), t0 + 2s);
    EXPECT_THAT(list.time_out(t0 + 1s), IsEmpty());
    EXPECT_THAT(list.wake(kA), ElementsAre(stays));
    EXPECT_FALSE(list.leave(stays));
}

TEST(WaitingList, AtItsBoundItSaysNo) {
    WaitingList list(2);
    const WaiterId first = *list.park(kA, t0);
    list.park(kB, t0);
    EXPECT_EQ(list.park(kA, t0), std::nullopt);
    list.leave(first);
    EXPECT_TRUE(list.park(kA, t0).has_value());
    EXPECT_EQ(WaitingList(0).park(kA, t0), std::nullopt);
}

TEST(WaitingList, ThoseWhoParkAgainAfterAWakeKeepTheirOrder) {
    WaitingList list(3);
    list.park(kA, t0 + 1s);
    list.park(kA, t0 + 2s);
    list.park(kA, t0 + 3s);
    EXPECT_EQ(list.wake(kA).size(), 3u);  // the first runs, the others …
    const WaiterId second = *list.park(kA, t0 + 2s);
    const WaiterId third = *list.park(kA, t0 + 3s);
    EXPECT_THAT(list.wake(kA), ElementsAre(second, third));
}

TEST(WaitingList, EachIsReturnedExactlyOnceUnlessItLeft) {
    Random random{3};
    WaitingList list(50);
    std::set<WaiterId> waiting;
    const auto returned = [&](const std::vector<WaiterId>& ids) {
        for (const WaiterId id : ids) {
            ASSERT_EQ(waiting.erase(id), 1u);
        }
    };
    Instant now = t0;
    for (int step = 0; step < 20'000; ++step) {
        now += Duration(random.below(1'000'000));
        switch (random.below(4)) {
            case 0:
                returned(list.wake(digest_of(static_cast<std::uint8_t>(random.below(8)))));
                break;
            case 1:
                returned(list.time_out(now));
                break;
            case 2:
                if (waiting.empty()) break;
                EXPECT_TRUE(list.leave(*waiting.begin()));
                waiting.erase(waiting.begin());
                break;
            default:
                const std::optional<WaiterId> id =
                    list.park(digest_of(static_cast<std::uint8_t>(random.below(8))),
                              now + Duration(random.below(20'000'000)));
                EXPECT_EQ(id.has_value(), waiting.size() < 50);
                if (id) waiting.insert(*id);
        }
        ASSERT_EQ(list.waiting(), waiting.size());
    }
}

}  // namespace
}  // namespace outrider::policy
