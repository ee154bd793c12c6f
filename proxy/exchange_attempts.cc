// An exchange's attempts: the first, those after a failure, the one beside it, and the waiting for an endpoint to try.
#include "filters/policy/hedge.h"
#include "filters/policy/retry.h"
#include "proxy/exchange.h"
#include "proxy/worker.h"

namespace outrider::proxy {

namespace {

// An upstream that closes a kept connection in the moment in which a request leaves on it makes an unknown outcome of a key. Servers close
// what has been idle for some seconds, so such a request takes a connection that was in use just now, or a new one.
constexpr Duration kIdleMaxOfOwner = std::chrono::seconds(1);

// Of a request on a pipelined connection: others are not to wait for it to leave.
constexpr std::size_t kRidingBodyMax = 64 * 1024;

Failure failure_for(http::ClientError error) {
    switch (error) {
        case http::ClientError::kConnectRefused:
            return Failure::kConnectRefused;
        case http::ClientError::kConnectTimeout:
            return Failure::kConnectTimeout;
        case http::ClientError::kReset:
            return Failure::kUpstreamReset;
        case http::ClientError::kIncomplete:
            return Failure::kUpstreamIncomplete;
        case http::ClientError::kProtocol:
            return Failure::kUpstreamProtocol;
        case http::ClientError::kReadTimeout:
            return Failure::kUpstreamTimeout;
        case http::ClientError::kWriteTimeout:
            return Failure::kWriteTimeout;
    }
    return Failure::kUpstreamReset;
}

policy::AttemptEnd end_for(http::ClientError error) {
    switch (error) {
        case http::ClientError::kConnectRefused:
        case http::ClientError::kConnectTimeout:
            return policy::AttemptEnd::kConnectFailed;
        case http::ClientError::kReset:
            return policy::AttemptEnd::kReset;
        case http::ClientError::kReadTimeout:
        case http::ClientError::kWriteTimeout:
            return policy::AttemptEnd::kTimeout;
        case http::ClientError::kIncomplete:
        case http::ClientError::kProtocol:
            break;
    }
    return policy::AttemptEnd::kOther;
}

}  // namespace

// `released`: from the waiting list, whose turn it is. Others do not overtake those that wait.
void Exchange::begin_attempt(bool fresh, bool released) {
    if (lease_over()) {
        fail(Failure::kRouteTimeout);
        return;
    }
    if (!released && cluster_->waiting() != 0) cluster_->release_waiting();
    Ref<Endpoint> endpoint;
    Admission admission = cluster_->admit(key_hash_, endpoint_.get(), endpoint);
    if (admission == Admission::kYes && !released && cluster_->waiting() != 0)
        admission = Admission::kConnectionsBusy;
    if (admission != Admission::kYes) {
        wait_for(admission);
        return;
    }
    start(first_, endpoint, fresh);
    if (first_.active() && winner_ == nullptr) arm_hedge();
}

void Exchange::start(Attempt& attempt, const Ref<Endpoint>& endpoint, bool fresh) {
    endpoint_ = endpoint;
    if (attempts_++ == 0) {
        tried_since_ = worker_.loop().now();
        if (context_.policies != nullptr && (route_->settings->retry || route_->settings->hedge))
            context_.policies->budget.on_request(tried_since_);
    }
    Attempt::Options options;
    options.request.head = request().method == http::Method::kHead;
    options.request.upgrade_asked = request().upgrade;
    options.request.read_timeout = cluster_->settings().read_timeout;
    if (owns_key() || carries()) options.idle_max = kIdleMaxOfOwner;
    if (fresh) options.idle_max = Duration(0);
    if (route_->settings->retry) options.per_try_timeout = route_->settings->retry->per_try_timeout;
    options.may_ride = may_ride(attempt);
    options.cls = static_cast<std::uint32_t>(route_->index);
    attempt.start(cluster_, endpoint, options);
}

// Only what may be sent twice rides on a pipelined connection, whole and small, and only at first: a repetition and a hedge
// are not to wait behind others. Whoever owns a key may be sent twice where the route asks for repetitions, as for a retry.
bool Exchange::may_ride(const Attempt& attempt) const {
    if (cluster_->settings().channel.mode != config::ChannelMode::kPipelined || attempts_ != 1 ||
        &attempt != &first_ || !request_complete() || body_gone_ || request().expects_continue ||
        body_.size() > kRidingBodyMax)
        return false;
    if (!safe_to_repeat() || carries()) return false;
    // The body is still here when it comes back: without one there is nothing to keep.
    if (request().framing != http::Framing::kNone && !body_kept_) return false;
    return !owns_key() || route_->settings->retry;
}

// No endpoint or no connection for now.
void Exchange::wait_for(Admission why) {
    const Instant now = worker_.loop().now();
    const bool held = held_until_ != Instant{} &&
                      now < held_until_;  // it was already: a release of many at once must not lose it
    if (why == Admission::kRequestsBusy && !held) {
        cluster_->cells().overflow_requests->add();
        fail(Failure::kTooManyRequests);
        return;
    }
    if (why == Admission::kNoEndpoint) {
        const Duration hold = cluster_->settings().limits.hold;
        if (held_until_ == Instant{}) held_until_ = now + hold;
        if (hold == Duration(0) || now >= held_until_) {
            fail(Failure::kNoEndpoint);
            return;
        }
    }
    if (!cluster_->wait(*this, why)) {
        cluster_->cells().overflow_pending->add();
        fail(Failure::kTooManyPending);
        return;
    }
    if (!was_held_) cluster_->cells().held->add();
    was_held_ = true;
    // Who waits for an endpoint keeps no place from those that have one.
    if (context_.under_concurrency_limit) end_policies();
    phase_ = Phase::kWaiting;
    if (held || why == Admission::kNoEndpoint) worker_.loop().schedule(later_, held_until_ - now);
}

void Exchange::on_may_start() {
    leave_phase();
    if (take_place()) begin_attempt(false, true);
}

// Back under the adaptive limit after waiting. False when there is no place: then it goes on waiting as long as it may be held.
bool Exchange::take_place() {
    if (context_.policies == nullptr || !context_.policies->limited || context_.under_concurrency_limit)
        return true;
    policy::ConcurrencyLimit& limit = *context_.policies->concurrency;
    const Instant now = worker_.loop().now();
    if (limit.try_acquire(now)) {
        context_.under_concurrency_limit = true;
        context_.limit_since = now;
        show_concurrency();
        return true;
    }
    if (held_until_ != Instant{} && now < held_until_) {
        wait_for(Admission::kNoEndpoint);
    } else {
        policy_cells()->shed->add();
        fail(Failure::kShed, {}, limit.retry_after());
    }
    return false;
}

void Exchange::enter(Phase phase, Duration time) {
    phase_ = phase;
    worker_.loop().schedule(later_, time);
}

void Exchange::leave_phase() {
    if (phase_ == Phase::kNone) return;
    if (phase_ == Phase::kWaiting) cluster_->stop_waiting(*this);
    phase_ = Phase::kNone;
    worker_.loop().cancel(later_);
}

void Exchange::on_later() {
    const uv::Loop::Event event(worker_.loop());
    const Phase phase = phase_;
    leave_phase();
    switch (phase) {
        case Phase::kPaused:
            run_filters();
            break;
        case Phase::kWaiting:
            fail(Failure::kNoEndpoint);
            break;
        case Phase::kBackoff:
            begin_attempt(false);
            break;
        case Phase::kHedging:
            hedge();
            break;
        case Phase::kNone:
            break;
    }
}

// ---- hedging ----------------------------------------------------------------------------------------------------------

void Exchange::arm_hedge() {
    const auto& settings = route_->settings->hedge;
    if (!settings || attempts_ != 1 || !safe_to_repeat()) return;
    const policy::HedgeLimits limits{settings->after, settings->percentile, settings->fallback};
    const Instant now = worker_.loop().now();
    const Duration wait = policy::hedge_after(limits, context_.policies->latency, now);
    route_->hedge->wait_us[worker_.index()].set(wait / std::chrono::microseconds(1));
    route_->hedge->fallback[worker_.index()].set(limits.percentile > 0 &&
                                                 context_.policies->latency.samples(now) <
                                                     policy::LatencyWindow::kSamplesMin);
    enter(Phase::kHedging, wait);
}

// The first attempt is late: a second one beside it. Only with the whole request in hand, and within the budget.
void Exchange::hedge() {
    if (!first_.active() || winner_ != nullptr || !request_complete() || body_gone_) return;
    // It has all come while the first attempt is connecting, and can be sent once only.
    if (body_.size() > kept_body_max()) return;
    Ref<Endpoint> endpoint;
    if (cluster_->admit(key_hash_, endpoint_.get(), endpoint) != Admission::kYes) return;
    if (!context_.policies->budget.try_retry(worker_.loop().now())) {
        policy_cells()->budget_exhausted->add();
        return;
    }
    policy_cells()->hedges->add();
    if (!second_) second_ = std::make_unique<Attempt>(*this);
    start(*second_, endpoint, false);
}

Attempt* Exchange::running() {
    if (winner_ != nullptr) return winner_->active() ? winner_ : nullptr;
    if (first_.active()) return &first_;
    return second_ && second_->active() ? second_.get() : nullptr;
}

void Exchange::give_up_attempts(bool failed) {
    if (first_.active()) first_.give_up(cluster_->cells().canceled, failed);
    if (second_ && second_->active()) second_->give_up(cluster_->cells().canceled, failed);
}

// Nothing of this exchange goes on upstream.
void Exchange::stop_trying(bool failed) {
    leave_phase();
    if (const Attempt* attempt = running(); attempt != nullptr && winner_ == nullptr && attempt->head_sent())
        upstream_time_ = worker_.loop().now() - attempt->began();
    give_up_attempts(failed);
    upstream_done_ = true;
}

// ---- repetitions ------------------------------------------------------------------------------------------------------

bool Exchange::may_try_again(const http::ClientFailure& failure) const {
    // A ride is the first attempt, so this happens once. It was not answered, and costs the retry budget nothing.
    if (failure.returned) return !response_started() && !body_gone_;
    // A kept connection that the upstream closed while the request was under way: the one case in which a request is
    // repeated without being asked, once, and only when repeating is harmless (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1).
    // Never under an idempotency key, whatever the method: its request leaves once unless the route asks for repetitions.
    return failure.error == http::ClientError::kReset && failure.reused && attempts_ == 1 && !owns_key() &&
           safe_to_repeat() && request().framing == http::Framing::kNone && !response_started();
}

// An answer that the route wants repeated. False: it is to be passed on.
bool Exchange::repeats_answer(Attempt& attempt, const http::ResponseHead& head) {
    if (!route_->settings->retry || !policy::status_listed(route_->retry, head.status)) return false;
    const Attempt* other = &attempt == &first_ ? second_.get() : &first_;
    const bool another_runs = other != nullptr && other->active();
    policy::AttemptResult result;
    result.end = policy::AttemptEnd::kStatus;
    result.status = head.status;
    if (const http::FieldRef* field = head.find("Retry-After"))
        result.retry_after = policy::parse_retry_after(head.value(*field), worker_.loop().wall());
    if (!another_runs) {  // otherwise that one's answer is waited for
        const std::optional<Duration> wait = wait_to_try_again(result);
        if (!wait) return false;
        leave_phase();
        enter(Phase::kBackoff, *wait);
    }
    attempt.give_up(cluster_->cells().discarded, false);
    return true;
}

// The wait before the next attempt, if there is to be one.
std::optional<Duration> Exchange::wait_to_try_again(const policy::AttemptResult& result) {
    policy::RetrySituation situation;
    situation.attempts_made = attempts_;
    situation.safe_to_repeat = safe_to_repeat();
    situation.body_kept = !body_gone_;
    if (context_.time_left) situation.time_left = time_left();
    const policy::RetryDecision decision = policy::decide_retry(
        route_->retry, situation, result, context_.policies->budget, worker_.loop().now(), worker_.random());
    if (decision.again) {
        policy_cells()->retries->add();
        return decision.wait;
    }
    if (decision.why == policy::RetryRefusal::kBudget) policy_cells()->budget_exhausted->add();
    if (decision.why == policy::RetryRefusal::kBudget || decision.why == policy::RetryRefusal::kAttemptsSpent)
        context_.flags.set(filters::Flag::kURX);
    return {};
}

void Exchange::attempt_failed(Attempt& attempt, const http::ClientFailure& failure) {
    const bool answering = winner_ == &attempt;
    if (!answering && attempt.head_sent()) upstream_time_ = worker_.loop().now() - attempt.began();
    if (!answering && !response_started()) {
        if (running() != nullptr) return;  // the other attempt of a hedge goes on
        leave_phase();
        if (may_try_again(failure)) {
            if (failure.returned) cluster_->count_replay();
            begin_attempt(true);
            return;
        }
        if (route_->settings->retry) {
            policy::AttemptResult result;
            result.end = end_for(failure.error);
            result.request_left = failure.request_sent;
            if (const std::optional<Duration> wait = wait_to_try_again(result)) {
                *wait == Duration(0) ? begin_attempt(false) : enter(Phase::kBackoff, *wait);
                return;
            }
        }
    }
    fail(failure_for(failure.error), failure.error == http::ClientError::kProtocol ? failure.reason : "");
}

}  // namespace outrider::proxy
