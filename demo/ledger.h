// Accounts and transfers between them: the state of the demonstration's application.
//
// A transfer takes effect each time it is asked for. That is on purpose: a request that a proxy repeats moves the
// money twice, and the balances show it. Pure and single-threaded; money is counted in integer cents.
//
// Invariants:
//   * the sum of all balances never changes; no balance is negative
//   * accounts are 1..account_count(), transfers are numbered 1, 2, 3, … without gaps
//   * a refused transfer changes nothing
//   * the latest transfers_kept_max transfers can be looked up; older ones are known to have been, but not kept
#pragma once

#include <compare>
#include <cstdint>
#include <deque>
#include <optional>
#include <variant>
#include <vector>

namespace outrider::demo {

struct AccountId {
    std::uint32_t value = 0;
    friend constexpr auto operator<=>(const AccountId&, const AccountId&) = default;
};

struct TransferId {
    std::uint64_t value = 0;
    friend constexpr auto operator<=>(const TransferId&, const TransferId&) = default;
};

struct Cents {
    std::int64_t value = 0;
    friend constexpr auto operator<=>(const Cents&, const Cents&) = default;
};

struct Account {
    AccountId id;
    Cents balance;
    std::uint64_t transfers = 0;  // in which it took part, on either side
};

struct Transfer {
    TransferId id;
    AccountId from;
    AccountId to;
    Cents amount;
};

// A transfer that was carried out, with the balances right after it.
struct Posted {
    Transfer transfer;
    Cents from_balance;
    Cents to_balance;
};

enum class Refusal : std::uint8_t { kUnknownAccount, kSameAccount, kAmountNotPositive, kInsufficientFunds };

struct LedgerLimits {
    std::size_t transfers_kept_max = 100'000;
};

class Ledger {
  public:
    static constexpr std::uint32_t kAccountsMax = 1'000'000;
    static constexpr Cents kInitialMax{1'000'000'000'000};  // so that no sum of balances overflows

    // `accounts` in 1..kAccountsMax, each with `initial` in 0..kInitialMax.
    Ledger(std::uint32_t accounts, Cents initial, LedgerLimits limits = {});

    std::variant<Posted, Refusal> transfer(AccountId from, AccountId to, Cents amount);

    std::uint32_t account_count() const { return static_cast<std::uint32_t>(accounts_.size()); }
    std::optional<Account> account(AccountId id) const;
    // Ascending by id, those behind `after`, at most `limit`.
    std::vector<Account> accounts(AccountId after, std::size_t limit) const;

    TransferId last_transfer() const { return last_; }
    // Nothing for those that never were and those that are no longer kept.
    std::optional<Transfer> find(TransferId id) const;
    bool forgotten(TransferId id) const;
    std::vector<Transfer> transfers(TransferId after, std::size_t limit) const;

    // Adds up every balance: what the invariant is about is measured, not remembered.
    Cents total() const;

  private:
    struct Entry {
        Cents balance;
        std::uint64_t transfers = 0;
    };
    Entry* entry(AccountId id);
    TransferId first_kept() const { return {last_.value - kept_.size() + 1}; }

    LedgerLimits limits_;
    std::vector<Entry> accounts_;  // [id - 1]
    std::deque<Transfer> kept_;    // ends with last_
    TransferId last_;
};

}  // namespace outrider::demo
