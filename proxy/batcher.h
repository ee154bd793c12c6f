// One worker's batches on one route: the queues, which call leaves when, and who carries it. When a call leaves is
// filters/policy/batch.h's to say, what it looks like batch_format.h's; what an exchange does is exchange_batched.cc's.
//
// A call is carried by one of its members, the one with the most time left: its exchange goes on with the filters behind and through
// the cluster as any other, with the call's body and path in place of its own. Its answer is collected and taken apart.
//
// Invariants
//   * Members that wait or are in a call are in by_id_.
//   * Calls leave, and failures are told, at the end of the turn: never inside a callback of another exchange. So what arrives in one turn
//     leaves in one call.
//   * At most kGroupsMax queues; beyond, requests are forwarded by themselves.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ref.h"
#include "base/timer_wheel.h"
#include "base/uv/loop.h"
#include "config/settings.h"
#include "filters/policy/batch.h"
#include "filters/policy/batch_format.h"
#include "proxy/problem.h"
#include "proxy/snapshot.h"

namespace outrider::proxy {

class Batcher;
class Exchange;
class Worker;

// A call that an exchange carries.
struct BatchCall {
    struct Part {
        policy::MemberId id{};
        policy::BatchItem item;
        bool left = false;  // its answer is nobody's
    };
    policy::CallId id{};
    std::string group;
    bool queued = false;  // else a part of a call that failed, by itself
    std::vector<Part> parts;
    bool repeatable = false;  // every part has a key, and is still wanted
    bool sent = false;        // a byte of it may have left
    int status = 0;
    std::string content_type;  // of the answer
    std::string answer;
    std::size_t held = 0;  // of the answer, as the worker counts
};

// An exchange's place in a batch.
struct BatchSeat {
    enum class Stage : std::uint8_t {
        kNone,
        kBody,    // the body is coming in
        kWaits,   // for a call
        kInCall,  // `carrier` carries it
    };
    Stage stage = Stage::kNone;
    policy::MemberId id{};
    Ref<Batcher> batcher;
    policy::BatchItem item;  // until it is in a call
    Exchange* carrier = nullptr;
    std::unique_ptr<BatchCall> call;  // that this exchange carries
    bool filtered = false;            // it has carried one: the filters behind have run
};

class Batcher final : public RefCounted, private uv::TurnEnd, private Timer {
  public:
    static constexpr std::size_t kGroupsMax = 1024;
    static constexpr std::size_t kWaitingMax = 1024;  // in one queue
    static constexpr std::size_t kAnswerMax = std::size_t{8} << 20;

    Batcher(Worker& worker, const config::BatchSettings& settings, const std::vector<BatchCells>& cells);
    ~Batcher() override;
    const config::BatchSettings& settings() const { return settings_; }
    policy::BatchFormat format() const { return format_; }

    policy::BatchAdmission::Decision decide(std::string_view body) {
        return admission_.decide(format_, body);
    }
    Result<policy::BatchSplitter::Parts> split(const BatchCall& call);

    enum class Arrival : std::uint8_t { kQueued, kTooLarge, kFull, kApart };
    // With its seat's item.
    Arrival arrive(Exchange& member, bool repeatable);
    void leave(Exchange& member);
    // The call is over: nobody is a part of it any more.
    void let_go(const BatchCall& call);
    // Ended without parts for its members: what becomes of them is told at the end of the turn.
    void fail(BatchCall& call, Failure failure, std::string_view detail, Duration retry_after);
    // Answered with a failure of the application: those with a key are sent one by one, if `split`. Else, and for the others, returns whom
    // the answer is for.
    std::vector<policy::MemberId> refused(BatchCall& call, bool split);
    void answered(const BatchCall& call);
    void given_up(const BatchCall& call);
    Exchange* find(policy::MemberId id) const;
    void forget(policy::MemberId id) { by_id_.erase(id); }

  private:
    struct Pending {
        policy::MemberId id{};
        bool alone = false;  // goes upstream in a call of its own; else fails
        Failure failure{};
        std::string detail{};
        Duration retry_after{};
        policy::BatchItem item{};
    };

    void on_turn_end() override;
    void on_timeout(Instant now) override;
    void changed(const std::string& group);
    void await(Pending pending);
    void meet(Exchange& member, Pending& pending);
    void pump(const std::string& group);
    void start(const std::string& group, const policy::BatchQueue::Call& call);
    void send(std::unique_ptr<BatchCall> call, const std::vector<Exchange*>& members);
    void arm();

    Worker& worker_;
    config::BatchSettings settings_;
    policy::BatchFormat format_;
    BatchCells cells_;
    policy::BatchAdmission admission_;
    policy::BatchSplitter splitter_;
    std::unordered_map<std::string, policy::BatchQueue> groups_;
    std::unordered_map<policy::MemberId, Exchange*> by_id_;
    std::uint64_t next_id_ = 1;
    std::vector<std::string> changed_;
    std::vector<Pending> pending_;
    bool working_ = false;
};

}  // namespace outrider::proxy
