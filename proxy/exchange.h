// One request through the proxy: routed, filtered, sent to an endpoint, its answer sent back.
//
// The meeting point of the two connections: it hears the client's side as a ServerExchange and the upstream's through its
// attempts. Pooled by its worker.
//
// Invariants:
//   * one attempt at a time, two while it hedges; the first head that is accepted makes its attempt the winner, the other ends
//   * what has left for an upstream is sent again only when policy::decide_retry says so, or on a kept connection that the
//     upstream had just closed (may_try_again)
//   * body bytes in either direction are written at once or their source is paused; a body is kept only for a repetition that
//     the route asks for, up to retry.max_body
//   * a request with an idempotency key is forwarded when its store says so, and told to the store before its client
//   * every exchange ends in exactly one access-log line and one count
#pragma once

#include <memory>
#include <string>

#include "base/arena.h"
#include "base/http/client_connection.h"
#include "base/http/server_connection.h"
#include "filters/filter.h"
#include "filters/route_policies.h"
#include "idempotency/store.h"
#include "proxy/attempt.h"
#include "proxy/batcher.h"
#include "proxy/collapser.h"
#include "proxy/key_guard.h"
#include "proxy/problem.h"
#include "proxy/upstream.h"

namespace outrider::proxy {

class Worker;
class Mirror;
struct WorkerSnapshot;

class Exchange final : public http::ServerExchange, private Waiter, private Timer, private idempotency::Call {
  public:
    explicit Exchange(Worker& worker) : worker_(worker), first_(*this), later_(*this) {}

    // `listener` is of `snapshot`.
    void begin(const Ref<WorkerSnapshot>& snapshot, const ListenerEntry& listener);
    // Logs, counts, and makes ready for the pool.
    void end();
    // Its store is not done with it, or others want its answer: instead of end(), detach(). It ends and returns to the pool by itself.
    bool goes_on() const;
    void detach();
    // The process ends; no store answers any more.
    void drop_detached();

    Exchange* next_free = nullptr;
    // Of those that are detached.
    Exchange* detached_prev = nullptr;
    Exchange* detached_next = nullptr;

  private:
    friend class Attempt;
    friend class Batcher;
    friend class Collapser;

    // What the exchange does besides an attempt that runs.
    enum class Phase : std::uint8_t {
        kNone,
        kPaused,   // a filter wants it to wait
        kWaiting,  // on the cluster's waiting list
        kBackoff,  // before the next attempt
        kHedging,  // an attempt runs; later a second one may begin
    };
    // The phase's own deadline, beside the exchange's.
    class Later final : public Timer {
      public:
        explicit Later(Exchange& exchange) : exchange_(exchange) {}

      private:
        void on_timeout(Instant) override { exchange_.on_later(); }
        Exchange& exchange_;
    };

    // The client's side.
    void on_request() override;
    void on_request_body(std::span<const std::string_view> slices) override;
    void on_request_end(std::span<const http::Field> trailers) override;
    void on_bad_request(int status, const char* reason) override;
    void on_aborted(AbortReason reason) override;
    void on_response_blocked() override;
    void on_response_drained() override;
    std::size_t request_room() override;

    // The upstream's side, from the attempts.
    void attempt_ready(Attempt& attempt);
    void attempt_head(Attempt& attempt, http::ResponseHead& head);
    void attempt_body(std::span<const std::string_view> slices);
    void attempt_end(Attempt& attempt, std::span<const http::Field> trailers);
    void attempt_failed(Attempt& attempt, const http::ClientFailure& failure);

    void on_timeout(Instant now) override;
    bool had_its_time(const Attempt& attempt) const;
    void on_may_start() override;
    bool take_place();
    void on_later();

    // The store's answers.
    void on_verdict(const policy::Verdict& verdict) override;
    void on_settled(policy::Settled settled, bool durable) override;

    void prepare_context();
    void run_filters();

    // With an idempotency key.
    const config::IdempotencySettings& key_settings() const;
    bool owns_key() const { return guard_ && guard_->stage == KeyGuard::Stage::kOwner; }
    bool lease_over() const;
    void hold();
    bool take_body(std::span<const std::string_view> slices);
    void body_too_large();
    void ask_store();
    void own(const policy::Forward& forward);
    void without_store(Failure failure, Duration retry_after);
    void conflicts(const policy::Conflict& conflict);
    void give_again(const policy::Replay& replay);
    void key_refused(filters::KeyOutcome outcome, Failure failure, std::string_view detail = {},
                     Duration retry_after = {});
    void record_head(http::ResponseHead& head);
    void record_body(std::span<const std::string_view> slices);
    void stream_answer();
    void stream_body(std::span<const std::string_view> slices);
    void settle_answer(std::span<const http::Field> trailers);
    void settle(idempotency::Report report);
    std::string_view policy_link() const;
    std::size_t answer_room() const;
    bool report_failure(Failure failure, std::string_view detail, Duration retry_after);
    bool has_no_body(int status) const;
    void answer_kept(http::ResponseHead& head, std::string_view body);
    void end_detached();
    void clear_guard();

    // Among identical requests.
    bool leads() const { return seat_ && seat_->role == CollapseSeat::Role::kLeads; }
    bool reads_shared() const { return seat_ && seat_->answer; }
    void join();
    void count_collapsed();
    void share_head(http::ResponseHead& head, Body body);
    void begin_shared(const Ref<SharedAnswer>& answer);
    void read_shared();
    void drained_shared();
    void cut_behind();
    void leave_group();
    void give_up_call();
    bool group_failed(Failure failure, std::string_view detail, Duration retry_after);
    void clear_seat();

    // In a batch.
    bool gathers() const { return batch_ && batch_->stage == BatchSeat::Stage::kBody; }
    bool carries() const { return batch_ && batch_->call; }
    void gather();
    bool take_member_body(std::span<const std::string_view> slices);
    void admit_member();
    void carry(std::unique_ptr<BatchCall> call);
    void compose_call();
    void call_leaves();
    void call_head(const http::ResponseHead& head);
    void call_body(std::span<const std::string_view> slices);
    void call_answered();
    void drop_call(Failure failure, std::string_view detail, Duration retry_after);
    void call_failed(Failure failure, std::string_view detail, Duration retry_after);
    void part_left(policy::MemberId id);
    void take_part(int status, const std::string& head, std::string_view body);
    Instant ends_by() const;
    void leave_batch();
    void clear_batch();

    void start_answer(http::ResponseHead& head, Body body, std::uint64_t length);
    void choose_cluster();
    void start_mirror();
    void begin_attempt(bool fresh, bool released = false);
    void start(Attempt& attempt, const Ref<Endpoint>& endpoint, bool fresh);
    void wait_for(Admission why);
    void arm_hedge();
    void hedge();
    void enter(Phase phase, Duration time);
    void leave_phase();
    void write_upstream_head(http::HeadWriter& head, Duration attempt_time);
    std::size_t upstream_head_bound() const;
    bool has_empty_body() const;
    std::string_view endpoint_id_for_host() const;
    void write_body_to(Attempt& upstream, std::span<const std::string_view> slices, bool stable);
    void keep_body(std::span<const std::string_view> slices);
    std::size_t kept_body_max() const;
    void finish_request_to(Attempt& attempt);
    void forward_informational(http::ResponseHead& head);
    void open_tunnel(Attempt& attempt, http::ResponseHead& head);
    void accept(Attempt& attempt, int status);
    bool may_ride(const Attempt& attempt) const;
    bool may_try_again(const http::ClientFailure& failure) const;
    std::optional<Duration> wait_to_try_again(const policy::AttemptResult& result);
    bool repeats_answer(Attempt& attempt, const http::ResponseHead& head);
    bool safe_to_repeat() const;
    Duration time_left() const;
    Attempt* running();
    void give_up_attempts(bool failed);
    void stop_trying(bool failed);
    void refuse(const filters::Refuse& refusal);
    void fail(Failure failure, std::string_view detail = {}, Duration retry_after = {});
    void answer_problem(const Problem& problem, int status, std::string_view detail,
                        Duration retry_after = {});
    void answer_locally(const filters::LocalResponse& response);
    void send_own(int status, std::string_view body);
    const RouteCells& cells() const;
    const PolicyCells* policy_cells() const;
    void end_policies();
    void show_concurrency() const;
    void log_line(Duration took);
    void clear();

    Worker& worker_;
    Ref<WorkerSnapshot> snapshot_;
    const ListenerEntry* listener_ = nullptr;
    const RouteEntry* route_ = nullptr;
    std::uint32_t choice_ = 0;
    filters::Context context_;
    Arena arena_;

    Ref<WorkerCluster> cluster_;
    Ref<Endpoint> endpoint_;  // of the newest attempt, or of the winner
    Attempt first_;
    std::unique_ptr<Attempt> second_;  // made by the first hedge
    Attempt* winner_ = nullptr;        // whose answer is being sent
    Later later_;
    Mirror* mirror_ = nullptr;  // while the request is being sent
    std::string body_;          // not yet sent, or kept for a repetition
    std::vector<http::Field> held_trailers_;
    Instant tried_since_{};               // the first attempt's begin
    Instant began_{};                     // when it was the exchange's turn
    Instant head_at_{};                   // of the winner's answer
    Instant held_until_{};                // when waiting for an endpoint ends
    Duration upstream_time_{-1};          // from the answering attempt's begin until the response's head
    std::unique_ptr<KeyGuard> guard_;     // made for the first request with a key
    std::unique_ptr<BatchSeat> batch_;    // made for the first request that may be batched
    std::unique_ptr<CollapseSeat> seat_;  // made for the first request that may be collapsed
    std::size_t held_bytes_ = 0;          // of bodies kept for the sake of a key
    std::uint64_t key_hash_ = 0;
    std::uint32_t attempts_ = 0;
    Phase phase_ = Phase::kNone;
    bool was_held_ = false;       // waited for an endpoint or a connection
    bool body_kept_ = false;      // body_ holds all of it, also what was sent
    bool body_gone_ = false;      // some of it was sent and not kept
    bool upstream_done_ = false;  // answered, or given up: what the client still sends is nobody's
    bool timed_out_ = false;      // no answer, or no whole one, for want of time
    bool detached_ = false;       // its client is gone, and so is the connection
};

}  // namespace outrider::proxy
