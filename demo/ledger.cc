#include "demo/ledger.h"

#include <algorithm>

#include "base/check.h"

namespace outrider::demo {

Ledger::Ledger(std::uint32_t accounts, Cents initial, LedgerLimits limits) : limits_(limits) {
    require(accounts >= 1 && accounts <= kAccountsMax, "a ledger has 1 to kAccountsMax accounts");
    require(initial >= Cents{0} && initial <= kInitialMax, "an initial balance is 0 to kInitialMax");
    accounts_.assign(accounts, Entry{initial, 0});
}

Ledger::Entry* Ledger::entry(AccountId id) {
    if (id.value < 1 || id.value > accounts_.size()) return nullptr;
    return &accounts_[id.value - 1];
}

std::variant<Posted, Refusal> Ledger::transfer(AccountId from, AccountId to, Cents amount) {
    if (amount <= Cents{0}) return Refusal::kAmountNotPositive;
    Entry* const source = entry(from);
    Entry* const sink = entry(to);
    if (source == nullptr || sink == nullptr) return Refusal::kUnknownAccount;
    if (source == sink) return Refusal::kSameAccount;
    if (source->balance < amount) return Refusal::kInsufficientFunds;

    source->balance.value -= amount.value;
    sink->balance.value += amount.value;
    ++source->transfers;
    ++sink->transfers;
    ++last_.value;
    kept_.push_back({last_, from, to, amount});
    if (kept_.size() > limits_.transfers_kept_max) kept_.pop_front();
    return Posted{{last_, from, to, amount}, source->balance, sink->balance};
}

std::optional<Account> Ledger::account(AccountId id) const {
    if (id.value < 1 || id.value > accounts_.size()) return std::nullopt;
    const Entry& found = accounts_[id.value - 1];
    return Account{id, found.balance, found.transfers};
}

std::vector<Account> Ledger::accounts(AccountId after, std::size_t limit) const {
    std::vector<Account> out;
    for (std::size_t i = after.value; i < accounts_.size() && out.size() < limit; ++i) {
        out.push_back({{static_cast<std::uint32_t>(i + 1)}, accounts_[i].balance, accounts_[i].transfers});
    }
    return out;
}

std::optional<Transfer> Ledger::find(TransferId id) const {
    if (id < first_kept() || id > last_) return std::nullopt;
    return kept_[id.value - first_kept().value];
}

bool Ledger::forgotten(TransferId id) const {
    return id.value >= 1 && id < first_kept();
}

std::vector<Transfer> Ledger::transfers(TransferId after, std::size_t limit) const {
    std::vector<Transfer> out;
    if (after >= last_) return out;
    const std::uint64_t first = std::max(after.value + 1, first_kept().value);
    for (std::size_t i = first - first_kept().value; i < kept_.size() && out.size() < limit; ++i) {
        out.push_back(kept_[i]);
    }
    return out;
}

Cents Ledger::total() const {
    Cents sum;
    for (const Entry& each : accounts_)
        sum.value += each.balance.value;
    return sum;
}

}  // namespace outrider::demo
