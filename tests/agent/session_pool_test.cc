#include "control/agent/session_pool.h"

#include <map>
#include <set>

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::agent {
namespace {

using namespace std::chrono_literals;

constexpr Instant t0{1000s};

SessionPool::Ticket ticket_of(std::optional<SessionPool::Boarding> boarding, CallId write) {
    EXPECT_TRUE(boarding.has_value());
    EXPECT_EQ(boarding ? boarding->write : 0, write);
    return boarding ? boarding->ticket : SessionPool::Ticket{};
}

TEST(SessionPool, OpensNoneBeforeAWriteWaits) {
    SessionPool pool(2);
    EXPECT_FALSE(pool.wants_session(t0));
    pool.join(1);
    EXPECT_TRUE(pool.wants_session(t0));
    EXPECT_FALSE(pool.next());
    pool.opening();
    EXPECT_FALSE(pool.wants_session(t0)) << "one at a time";
    pool.opened(70);
    const auto ticket = ticket_of(pool.next(), 1);
    EXPECT_EQ(ticket.session, 70u);
    EXPECT_EQ(ticket.sequence, 1u);
    EXPECT_FALSE(pool.wants_session(t0));
}

TEST(SessionPool, ASessionCarriesOneWriteAtATimeAndNumbersThem) {
    SessionPool pool(1);
    for (const CallId write : {1u, 2u, 3u})
        pool.join(write);
    pool.opened(70);
    for (const CallId write : {1u, 2u, 3u}) {
        EXPECT_EQ(ticket_of(pool.next(), write).sequence, write) << "in the order of the calls";
        EXPECT_FALSE(pool.next());
        EXPECT_FALSE(pool.wants_session(t0)) << "there are as many as there may be";
        pool.leave(write);
    }
    EXPECT_EQ(pool.waiting(), 0u);
    EXPECT_EQ(pool.sessions(), 1u);
}

TEST(SessionPool, WhoLeavesTheLineIsNotServed) {
    SessionPool pool(1);
    pool.join(1);
    pool.join(2);
    pool.leave(1);
    pool.opened(70);
    EXPECT_EQ(ticket_of(pool.next(), 2).sequence, 1u);
}

TEST(SessionPool, AWriteWhoseSessionIsLostGoesFirstInAnother) {
    SessionPool pool(4);
    for (const CallId write : {1u, 2u, 3u})
        pool.join(write);
    pool.opened(70);
    pool.opened(71);
    EXPECT_EQ(ticket_of(pool.next(), 1).session, 71u);
    pool.lost(1);
    EXPECT_EQ(pool.sessions(), 0u) << "the free one is not believed either";
    EXPECT_TRUE(pool.wants_session(t0));
    pool.opened(72);
    const auto ticket = ticket_of(pool.next(), 1);
    EXPECT_EQ(ticket.session, 72u);
    EXPECT_EQ(ticket.sequence, 1u);
}

TEST(SessionPool, WhenNoneIsToBeHadThoseInLineAreToldUnlessTheyCanWaitForOne) {
    SessionPool pool(4);
    pool.join(1);
    pool.join(2);
    pool.opening();
    EXPECT_EQ(pool.refused(t0), (std::vector<CallId>{1, 2}));
    EXPECT_EQ(pool.waiting(), 0u);
    pool.join(3);
    EXPECT_TRUE(pool.wants_session(t0)) << "a new write asks anew";
    pool.opening();
    pool.opened(70);
    (void)pool.next();
    pool.join(4);
    pool.opening();
    EXPECT_TRUE(pool.refused(t0).empty()) << "the session of 3 will be free";
    EXPECT_FALSE(pool.wants_session(t0 + 9s));
    EXPECT_TRUE(pool.wants_session(t0 + 10s));
    pool.leave(3);
    EXPECT_EQ(ticket_of(pool.next(), 4).sequence, 2u);
}

TEST(SessionPool, OnlyFreeSessionsAreTakenToBeClosed) {
    SessionPool pool(4);
    pool.join(1);
    pool.opened(70);
    (void)pool.next();
    pool.opened(71);
    EXPECT_EQ(pool.take_free(), std::vector<std::uint64_t>{71});
    EXPECT_EQ(pool.sessions(), 1u);
    pool.leave(1);
    EXPECT_EQ(pool.take_free(), std::vector<std::uint64_t>{70});
}

// Any order of events: no two writes share a session, no ticket is given twice, and the line always moves on.
TEST(SessionPool, KeepsItsInvariantsUnderAnyOrderOfEvents) {
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
        SCOPED_TRACE(seed);
        Random random(seed);
        SessionPool pool(1 + random.below(4));
        std::map<CallId, std::uint64_t> under_way;
        std::set<CallId> in_line;
        std::set<std::pair<std::uint64_t, std::uint64_t>> tickets;
        bool opening = false;
        std::uint64_t names = 0;
        CallId calls = 0;
        Instant now = t0;
        for (int step = 0; step < 400; ++step) {
            now += std::chrono::seconds(random.below(4));
            const auto any = [&](const auto& all) {
                return std::next(all.begin(), random.below(all.size()));
            };
            switch (random.below(6)) {
                case 0:
                    pool.join(++calls);
                    in_line.insert(calls);
                    break;
                case 1: {
                    if (under_way.empty()) break;
                    const auto ended = any(under_way);
                    pool.leave(ended->first);
                    under_way.erase(ended);
                    break;
                }
                case 2:
                    if (in_line.empty()) break;
                    pool.leave(*in_line.begin());
                    in_line.erase(in_line.begin());
                    break;
                case 3: {
                    if (under_way.empty()) break;
                    const CallId write = any(under_way)->first;
                    pool.lost(write);
                    under_way.erase(write);
                    in_line.insert(write);
                    break;
                }
                case 4:
                    if (std::exchange(opening, false)) pool.opened(++names);
                    break;
                case 5:
                    if (!std::exchange(opening, false)) break;
                    for (const CallId write : pool.refused(now))
                        EXPECT_EQ(in_line.erase(write), 1u);
                    break;
            }
            while (const auto boarding = pool.next()) {
                EXPECT_EQ(in_line.empty() ? 0 : *in_line.begin(), boarding->write);
                in_line.erase(boarding->write);
                for (const auto& [write, session] : under_way)
                    EXPECT_NE(session, boarding->ticket.session);
                EXPECT_TRUE(tickets.emplace(boarding->ticket.session, boarding->ticket.sequence).second);
                under_way.emplace(boarding->write, boarding->ticket.session);
            }
            if (pool.wants_session(now)) {
                pool.opening();
                opening = true;
            }
            EXPECT_EQ(pool.waiting(), in_line.size());
            EXPECT_TRUE(in_line.empty() || opening || !under_way.empty()) << "the line stands still";
        }
    }
}

}  // namespace
}  // namespace outrider::agent
