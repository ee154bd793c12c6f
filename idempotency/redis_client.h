// One worker's end of a store that is kept in Redis: what is asked, what is heard, and who is told.
//
// A first request costs one round trip before it is forwarded and one before its answer's last byte goes out. The lease that a
// Forward carries is counted from before the question was sent.
//
// When a question gets no answer, StoreFailed is said, and the claim that may have been made is released as soon as Redis is heard of
// again (redis_reports.h). A route with on_store_error = "forward" has then sent its request unprotected, and a duplicate may run again:
// that is what unprotected means, and what it would be if the store had been down altogether.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/random.h"
#include "idempotency/redis_link.h"
#include "idempotency/redis_reports.h"
#include "idempotency/redis_scripts.h"
#include "idempotency/redis_waiting.h"
#include "idempotency/store.h"

namespace outrider::idempotency {

// What the clients of a store have in common. Any thread.
struct RedisShared {
    explicit RedisShared(const config::StoreSettings& of)
        : settings(of),
          scripts(of.prefix),
          report(of.name),
          notices_report(of.name + ", notices of settled keys") {}

    const config::StoreSettings settings;
    const RedisScripts scripts;
    RedisReport report;
    RedisReport notices_report;
    std::atomic<std::uint64_t> waiting{0};
    std::atomic<unsigned> tried{0};  // clients that know whether they reach Redis
    std::atomic<unsigned> clients{0};
    std::atomic<unsigned> connected{0};  // clients that can ask
};

class RedisClient final : public StoreClient,
                          private RedisLink::Owner,
                          private RedisWaiting::Owner,
                          private RedisReports::Owner {
  public:
    RedisClient(uv::Loop& loop, std::shared_ptr<RedisShared> shared, const StoreCells& cells);
    ~RedisClient() override;

    void arrive(Call& call, const policy::Digest& key, const policy::Digest& fingerprint,
                const policy::IdempotencyPolicy& policy, Instant arrived) override;
    void leave(Call& call) override;
    void settle(Call& call, const policy::Digest& key, const policy::Owner& owner, Report report) override;
    void close() override;

    // For tests and figures.
    bool ready() const { return parts_ != nullptr && parts_->link.ready(); }
    std::uint64_t writes() const { return parts_ != nullptr ? parts_->link.writes() : 0; }

  private:
    class Ask;
    struct Parts {
        Parts(RedisClient& client, uv::Loop& loop, RedisShared& shared, const StoreCells& cells);
        RedisLink link;
        RedisReports reports;
        RedisWaiting waiting;
    };

    bool send(const RedisQuestionRef& question, ScriptBy by, Instant since, bool for_line);
    void heard(Ask& ask, const redisReply& reply);
    void claimed(Ask& ask, const Claimed& claim, const ArriveReply& reply);
    void in_flight(const RedisQuestionRef& question, const InFlight& found);
    void failed(Ask& ask, const policy::Verdict& verdict);
    void later(std::function<void()> task);

    void on_link_up() override;
    void on_link_down() override { --shared_->connected; }
    void on_link_tried() override { ++shared_->tried; }
    bool ask_again(const RedisQuestionRef& question) override;
    void answer(RedisQuestion& question, const policy::Verdict& verdict) override;
    void on_key_settled(const policy::Digest& key) override { parts_->waiting.settled(key); }

    uv::Loop& loop_;
    std::shared_ptr<RedisShared> shared_;
    StoreCells cells_;
    Random random_;
    std::string command_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // tasks that were posted look at it
    std::unordered_set<RedisQuestionRef> questions_;              // not answered
    std::unique_ptr<Parts> parts_;                                // null: closed
};

}  // namespace outrider::idempotency
