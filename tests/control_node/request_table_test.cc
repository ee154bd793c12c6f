#include "control/node/request_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace outrider::node {
namespace {

using namespace std::chrono_literals;

class Waits final : public Request {
  public:
    void on_applied(const store::Response&) override {}
    void on_readable() override {}
    void on_lease(std::int64_t) override {}
    void on_members(raft::Refusal) override {}
    void on_refused(const api::Problem&) override {}
};

RequestTable::Entry entry(Request& request, std::size_t bytes) {
    RequestTable::Entry out;
    out.request = &request;
    out.kind = RequestTable::Kind::kCommand;
    out.data = std::make_shared<const std::string>(bytes, 'x');
    return out;
}

const Instant t0{};

TEST(RequestTable, GivesARequestBackOnce) {
    RequestTable table;
    Waits request;
    const std::uint64_t number = table.add(entry(request, 1), t0 + 5s);
    EXPECT_TRUE(request.waiting());
    EXPECT_TRUE(table.take(number));
    EXPECT_FALSE(request.waiting());
    EXPECT_FALSE(table.take(number));
    EXPECT_EQ(table.bytes(), 0U);
}

TEST(RequestTable, ForgetsAClientThatHasGone) {
    RequestTable table;
    Waits request;
    const std::uint64_t number = table.add(entry(request, 1), t0 + 5s);
    table.forget(request);
    table.forget(request);
    EXPECT_EQ(table.find(number), nullptr);
    EXPECT_EQ(table.next_deadline(), std::nullopt);
}

TEST(RequestTable, IsFullByNumberAndByBytes) {
    RequestTable few({.requests_max = 2, .bytes_max = 1000});
    Waits one;
    Waits two;
    few.add(entry(one, 1), t0);
    EXPECT_FALSE(few.full());
    few.add(entry(two, 1), t0);
    EXPECT_TRUE(few.full());
    few.forget(two);
    EXPECT_FALSE(few.full());
    few.add(entry(two, 999), t0);
    EXPECT_TRUE(few.full());
}

TEST(RequestTable, TellsWhoseTimeIsOver) {
    RequestTable table;
    Waits one;
    Waits two;
    Waits three;
    const std::uint64_t first = table.add(entry(one, 1), t0 + 1s);
    const std::uint64_t second = table.add(entry(two, 1), t0 + 2s);
    table.add(entry(three, 1), t0 + 3s);
    EXPECT_EQ(table.next_deadline(), t0 + 1s);
    EXPECT_THAT(table.overdue(t0 + 2s), testing::ElementsAre(first, second));
    table.forget(one);
    EXPECT_EQ(table.next_deadline(), t0 + 2s);
    EXPECT_THAT(table.overdue(t0 + 2s), testing::ElementsAre(second));
}

TEST(RequestTable, TellsWhatWasSentToAnEarlierLeader) {
    RequestTable table;
    Waits sent;
    Waits later;
    Waits not_sent;
    RequestTable::Entry a = entry(sent, 1);
    a.sent = true;
    a.term = {3};
    RequestTable::Entry b = entry(later, 1);
    b.sent = true;
    b.term = {4};
    const std::uint64_t number = table.add(std::move(a), t0);
    table.add(std::move(b), t0);
    table.add(entry(not_sent, 1), t0);
    EXPECT_THAT(table.sent_before({4}), testing::ElementsAre(number));
}

}  // namespace
}  // namespace outrider::node
