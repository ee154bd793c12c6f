// Where idempotency keys are kept: one Store a [store.NAME], used by every worker through a client of its own.
//
// A store makes good what filters/policy/idempotency_table.h asks of a shell: what must be durable first is, and a duplicate of a
// request in flight is parked here, whichever worker or sidecar sent the first one. Callers hear verdicts that need no waiting.
//
// Invariants
//   * Each arrive() and each settle() is answered exactly once, on the loop of the client's thread, inside a Loop::Event, and
//     never from within the call. A call object lives until then (close() ends that).
//   * A call has at most one question outstanding.
//   * on_verdict(Forward) comes after the claim is durable. on_settled() comes after the report is, or has failed to become so.
//   * A store that cannot answer says so: StoreFailed, within a time that is bounded.
//   * What waits and what is queued is bounded: StoreFull, Conflict, or StoreFailed at the bound.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "base/metrics.h"
#include "base/result.h"
#include "base/time.h"
#include "base/uv/loop.h"
#include "filters/policy/idempotency.h"
#include "filters/policy/idempotency_key.h"

namespace outrider::idempotency {

// One exchange that has a key.
class Call {
  public:
    // Never Wait. StoreFailed and StoreFull are said whatever the route's on_store_error is: that is the caller's to apply.
    virtual void on_verdict(const policy::Verdict& verdict) = 0;
    // `durable` false: the store could not be told, or not in time. A restart, or the lease's end, then makes "unknown" of the key.
    virtual void on_settled(policy::Settled settled, bool durable) = 0;

    // Set before on_verdict(): it was parked until a first request with its key ended. The caller clears it.
    bool waited = false;
    // The client's own, while a question is outstanding.
    void* store_slot = nullptr;

  protected:
    ~Call() = default;
};

// What an owner reports: policy::answered(), released(), cut().
struct Answered {
    policy::Answer answer;
    policy::RecordAnswers record = policy::RecordAnswers::kAll;
};
struct Released {};
struct Cut {};
using Report = std::variant<Answered, Released, Cut>;

// One thread's end of a store. Everything on that thread.
class StoreClient {
  public:
    virtual ~StoreClient() = default;

    // A request with a key. `arrived`: the loop's now, from which wait_timeout counts.
    virtual void arrive(Call& call, const policy::Digest& key, const policy::Digest& fingerprint,
                        const policy::IdempotencyPolicy& policy, Instant arrived) = 0;
    // The one who asked with arrive() went away. It is still answered, soon: whatever the verdict, or Conflict if it was parked.
    virtual void leave(Call& call) = 0;
    // The owner of a Forward reports, once.
    virtual void settle(Call& call, const policy::Digest& key, const policy::Owner& owner, Report report) = 0;
    // Nothing that is outstanding is answered any more. Before the loop ends; the client does nothing afterwards.
    virtual void close() = 0;
};

// A key as an operator sees it.
struct KeyView {
    policy::KeyPhase phase = policy::KeyPhase::kAbsent;
    policy::UnknownWhy why{};  // unknown
    std::uint16_t status = 0;  // done
    bool replayable = false;   // done
    std::uint64_t generation = 0;
    WallTime claimed{};
    WallTime expires{};
    std::optional<WallTime> lease_end;  // in flight
    std::uint64_t answer_bytes = 0;     // done and replayable
};

struct StoreStatus {
    std::string kind;  // memory | log | redis
    bool ok = true;
    std::string problem;  // when not: a sentence
    // Of all keys, where the store knows (memory, log).
    bool counted = false;
    std::uint64_t in_flight = 0;
    std::uint64_t done = 0;
    std::uint64_t unknown = 0;
    std::uint64_t waiting = 0;       // requests parked, of this process
    unsigned clients = 0;            // redis: threads that serve requests
    unsigned connected = 0;          // redis: those of them that can ask
    std::uint64_t memory_bytes = 0;  // memory, log
    std::uint64_t memory_bytes_max = 0;
    std::uint64_t disk_bytes = 0;    // log
    std::uint64_t segments = 0;      // log
    std::optional<WallTime> oldest;  // when the oldest key was claimed
};

// Written by the store's own threads; read at a scrape.
struct StoreCells {
    Histogram* seconds =
        nullptr;  // idempotency_store_seconds{store}: from a question to its answer, parked time left out
    Histogram* wal_sync = nullptr;  // wal_sync_seconds{log}: log only
    Counter* errors = nullptr;      // idempotency_store_errors_total{store}
};

// Made and destroyed on the main thread; outlives its clients.
class Store {
  public:
    virtual ~Store() = default;

    // For the thread of `loop`, on that thread. `cells` are that thread's own (wal_sync is not used there).
    virtual std::unique_ptr<StoreClient> connect(uv::Loop& loop, const StoreCells& cells) = 0;

    // Each of so many clients has been able to ask, or found that it cannot for now. Any thread.
    virtual bool settled(unsigned /*clients*/) const { return true; }

    // For the admin endpoint: on the main thread, answered there later, exactly once.
    virtual void look(const policy::Digest& key, std::function<void(Result<KeyView>)> done) = 0;
    virtual void forget(const policy::Digest& key, std::function<void(Result<policy::Forgotten>)> done) = 0;
    virtual void status(std::function<void(StoreStatus)> done) = 0;
};

}  // namespace outrider::idempotency
