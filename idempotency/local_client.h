// One worker's end of a LocalStore. What a turn of the loop asks leaves together when the turn ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "base/random.h"
#include "base/uv/loop.h"
#include "idempotency/local_rounds.h"
#include "idempotency/local_store.h"
#include "idempotency/store.h"

namespace outrider::idempotency {

class LocalClient final : public StoreClient, private uv::TurnEnd {
  public:
    LocalClient(LocalStore& store, std::shared_ptr<LocalStore::End> end, uv::Loop& loop,
                const StoreCells& cells);
    ~LocalClient() override;

    void arrive(Call& call, const policy::Digest& key, const policy::Digest& fingerprint,
                const policy::IdempotencyPolicy& policy, Instant arrived) override;
    void leave(Call& call) override;
    void settle(Call& call, const policy::Digest& key, const policy::Owner& owner, Report report) override;
    void close() override;

  private:
    friend class LocalStore;

    // Call::store_slot points here.
    struct Slot {
        std::uint32_t index = 0;
        Call* call = nullptr;
        Instant asked{};
    };

    Ticket take_slot(Call& call);
    Call& free_slot(Slot& slot);
    void refuse(Reply reply);
    void deliver(const std::vector<Reply>& replies);
    void on_turn_end() override;

    LocalStore& store_;
    std::shared_ptr<LocalStore::End> end_;
    uv::Loop& loop_;
    const StoreCells cells_;
    Random random_;
    std::deque<Slot> slots_;
    std::vector<std::uint32_t> free_;
    std::size_t outstanding_ = 0;
    std::vector<Question> questions_;  // of this turn
    std::vector<Reply> refused_;       // posted to this very loop
};

}  // namespace outrider::idempotency
