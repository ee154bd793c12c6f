#include "demo/ledger.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::demo {
namespace {

Refusal refusal(const std::variant<Posted, Refusal>& outcome) {
    return std::get<Refusal>(outcome);
}

TEST(Ledger, ATransferMovesMoneyAndShowsBothBalances) {
    Ledger ledger(3, {1000});
    const auto outcome = ledger.transfer({1}, {3}, {250});
    const auto& posted = std::get<Posted>(outcome);
    EXPECT_EQ(posted.transfer.id, TransferId{1});
    EXPECT_EQ(posted.from_balance, Cents{750});
    EXPECT_EQ(posted.to_balance, Cents{1250});
    EXPECT_EQ(ledger.account({1})->balance, Cents{750});
    EXPECT_EQ(ledger.account({3})->balance, Cents{1250});
    EXPECT_EQ(ledger.account({3})->transfers, 1u);
    EXPECT_EQ(ledger.account({2})->transfers, 0u);
}

TEST(Ledger, TheSameTransferTwiceMovesTheMoneyTwice) {
    Ledger ledger(2, {1000});
    const auto first = ledger.transfer({1}, {2}, {100});
    const auto second = ledger.transfer({1}, {2}, {100});
    EXPECT_NE(std::get<Posted>(first).transfer.id, std::get<Posted>(second).transfer.id);
    EXPECT_EQ(ledger.account({1})->balance, Cents{800});
}

TEST(Ledger, ARefusedTransferChangesNothing) {
    Ledger ledger(2, {1000});
    EXPECT_EQ(refusal(ledger.transfer({1}, {2}, {0})), Refusal::kAmountNotPositive);
    EXPECT_EQ(refusal(ledger.transfer({1}, {2}, {-5})), Refusal::kAmountNotPositive);
    EXPECT_EQ(refusal(ledger.transfer({1}, {1}, {5})), Refusal::kSameAccount);
    EXPECT_EQ(refusal(ledger.transfer({0}, {1}, {5})), Refusal::kUnknownAccount);
    EXPECT_EQ(refusal(ledger.transfer({1}, {3}, {5})), Refusal::kUnknownAccount);
    EXPECT_EQ(refusal(ledger.transfer({1}, {2}, {1001})), Refusal::kInsufficientFunds);
    EXPECT_EQ(refusal(ledger.transfer({1}, {2}, {INT64_MAX})), Refusal::kInsufficientFunds);
    EXPECT_EQ(ledger.account({1})->balance, Cents{1000});
    EXPECT_EQ(ledger.last_transfer(), TransferId{0});
    EXPECT_TRUE(ledger.transfers({0}, 10).empty());
}

TEST(Ledger, ABalanceCanBeSpentToTheLastCent) {
    Ledger ledger(2, {1000});
    EXPECT_TRUE(std::holds_alternative<Posted>(ledger.transfer({1}, {2}, {1000})));
    EXPECT_EQ(ledger.account({1})->balance, Cents{0});
    EXPECT_EQ(refusal(ledger.transfer({1}, {2}, {1})), Refusal::kInsufficientFunds);
}

TEST(Ledger, ManyRandomTransfersKeepTheSumAndNoBalanceIsNegative) {
    Random random(7);
    Ledger ledger(20, {5'000});
    const Cents before = ledger.total();
    std::uint64_t posted = 0;
    for (int i = 0; i < 20'000; ++i) {
        const AccountId from{static_cast<std::uint32_t>(scale64(random.next(), 22))};
        const AccountId to{static_cast<std::uint32_t>(scale64(random.next(), 22))};
        const Cents amount{static_cast<std::int64_t>(scale64(random.next(), 3'000)) - 100};
        if (std::holds_alternative<Posted>(ledger.transfer(from, to, amount))) ++posted;
        ASSERT_EQ(ledger.total(), before);
    }
    EXPECT_EQ(ledger.last_transfer().value, posted);
    EXPECT_GT(posted, 1000u);
    for (const Account& account : ledger.accounts({0}, 100))
        EXPECT_GE(account.balance, Cents{0});
}

TEST(Ledger, ListsGoOnBehindTheLastOneSeen) {
    Ledger ledger(5, {100});
    EXPECT_EQ(ledger.accounts({0}, 2).back().id, AccountId{2});
    EXPECT_EQ(ledger.accounts({2}, 2).front().id, AccountId{3});
    EXPECT_EQ(ledger.accounts({4}, 100).size(), 1u);
    EXPECT_TRUE(ledger.accounts({5}, 100).empty());
    EXPECT_TRUE(ledger.accounts({4'000'000'000}, 100).empty());
    for (int i = 0; i < 3; ++i)
        (void)ledger.transfer({1}, {2}, {1});
    EXPECT_EQ(ledger.transfers({0}, 2).size(), 2u);
    EXPECT_EQ(ledger.transfers({2}, 2).front().id, TransferId{3});
    EXPECT_TRUE(ledger.transfers({3}, 2).empty());
    EXPECT_TRUE(ledger.transfers({UINT64_MAX}, 2).empty());
}

TEST(Ledger, KeepsTheLatestTransfersAndKnowsThatThereWereOthers) {
    Ledger ledger(2, {100}, {.transfers_kept_max = 3});
    for (int i = 0; i < 5; ++i)
        (void)ledger.transfer({1}, {2}, {1});
    EXPECT_TRUE(ledger.forgotten({2}));
    EXPECT_FALSE(ledger.find({2}));
    EXPECT_FALSE(ledger.forgotten({3}));
    EXPECT_EQ(ledger.find({3})->id, TransferId{3});
    EXPECT_EQ(ledger.find({5})->id, TransferId{5});
    EXPECT_FALSE(ledger.find({6}));
    EXPECT_FALSE(ledger.forgotten({6}));
    EXPECT_FALSE(ledger.forgotten({0}));
    EXPECT_EQ(ledger.transfers({0}, 10).front().id, TransferId{3});
}

}  // namespace
}  // namespace outrider::demo
