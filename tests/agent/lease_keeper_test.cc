#include "control/agent/lease_keeper.h"

#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::agent {
namespace {

using namespace std::chrono_literals;
const Instant t0 = Instant() + 1h;

TEST(LeaseKeeper, RenewsAtAThirdAndExpiresCountedFromTheSending) {
    LeaseKeeper keeper(t0, 9s);
    EXPECT_EQ(keeper.next_renewal(), t0 + 3s);
    EXPECT_EQ(keeper.expires(), t0 + 9s);
    keeper.renewal_sent(t0 + 3s);
    EXPECT_EQ(keeper.next_renewal(), t0 + 6s);  // if this one is not answered
    keeper.renewal_answered(t0 + 3s, 9s, t0 + 5s);
    EXPECT_EQ(keeper.expires(), t0 + 12s);  // not t0 + 14 s
    EXPECT_EQ(keeper.next_renewal(), t0 + 6s);
    EXPECT_EQ(keeper.observe(t0 + 11s), LeaseKeeper::State::kHeld);
    EXPECT_EQ(keeper.observe(t0 + 12s), LeaseKeeper::State::kExpired);
}

TEST(LeaseKeeper, AnAnswerAfterTheEndDoesNotBringItBack) {
    LeaseKeeper keeper(t0, 9s);
    keeper.renewal_sent(t0 + 8s);
    keeper.renewal_answered(t0 + 8s, 9s, t0 + 9s);  // as late as the end
    EXPECT_EQ(keeper.observe(t0 + 9s), LeaseKeeper::State::kExpired);
    EXPECT_EQ(keeper.next_action(), Instant::max());
    keeper.renewal_answered(t0 + 8s, 9s, t0 + 10s);
    EXPECT_EQ(keeper.observe(t0 + 10s), LeaseKeeper::State::kExpired);
}

TEST(LeaseKeeper, AnswersThatOvertookEachOtherChangeNothing) {
    LeaseKeeper keeper(t0, 9s);
    keeper.renewal_sent(t0 + 3s);
    keeper.renewal_sent(t0 + 6s);
    keeper.renewal_answered(t0 + 6s, 9s, t0 + 7s);
    keeper.renewal_answered(t0 + 3s, 9s, t0 + 8s);
    EXPECT_EQ(keeper.expires(), t0 + 15s);
}

TEST(LeaseKeeper, IsGoneWhenTheServerSaysSo) {
    LeaseKeeper keeper(t0, 9s);
    keeper.renewal_sent(t0 + 3s);
    keeper.renewal_answered(t0 + 3s, 0s, t0 + 4s);
    EXPECT_EQ(keeper.observe(t0 + 4s), LeaseKeeper::State::kGone);
    EXPECT_EQ(keeper.next_renewal(), Instant::max());
}

TEST(LeaseKeeper, TriesAgainSoonAfterAFailure) {
    LeaseKeeper keeper(t0, 9s);
    keeper.renewal_sent(t0 + 3s);
    keeper.renewal_failed(t0 + 4s);
    EXPECT_EQ(keeper.next_renewal(), t0 + 5s);
    LeaseKeeper brief(t0, 300ms);
    brief.renewal_failed(t0);
    EXPECT_EQ(brief.next_renewal(), t0 + LeaseKeeper::kRetryMin);
}

// A server that counts from when it handled the request, whatever the network does: what is believed ends first.
TEST(LeaseKeeper, NeverBelievesLongerThanTheServerHolds) {
    Random random(11);
    const auto up_to = [&](Duration most) {
        return Duration(
            static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(most.count()) + 1)));
    };
    for (int round = 0; round < 500; ++round) {
        const Duration ttl = 1s + up_to(9s);
        Instant server_expires = t0 + up_to(ttl / 2) + ttl;  // the grant took a while to arrive
        LeaseKeeper keeper(t0, ttl);
        struct Answer {
            Instant sent, arrives;
            Duration ttl;
        };
        std::vector<Answer> answers;
        Instant now = t0;
        while (now < t0 + 40s) {
            now += up_to(ttl / 5);
            for (std::size_t i = 0; i < answers.size();) {
                if (answers[i].arrives > now) {
                    ++i;
                    continue;
                }
                keeper.renewal_answered(answers[i].sent, answers[i].ttl, now);
                answers.erase(answers.begin() + static_cast<std::ptrdiff_t>(i));
            }
            if (keeper.observe(now) == LeaseKeeper::State::kHeld) {
                ASSERT_LT(now, server_expires);
                ASSERT_LE(keeper.expires(), server_expires);
            }
            if (keeper.next_renewal() <= now) {
                keeper.renewal_sent(now);
                if (random.below(4) == 0) continue;  // lost on the way
                const Instant handled = now + up_to(ttl / 2);
                const bool known = handled < server_expires;
                if (known) server_expires = std::max(server_expires, handled + ttl);
                answers.push_back({now, handled + up_to(ttl / 2), known ? ttl : 0s});
            }
        }
    }
}

}  // namespace
}  // namespace outrider::agent
