#include "proxy/exchange.h"

#include <cmath>

#include "base/bytes.h"
#include "base/check.h"
#include "filters/policy/deadline.h"
#include "filters/policy/hedge.h"
#include "proxy/mirror.h"
#include "proxy/worker.h"

namespace outrider::proxy {

namespace {

// Of a copy whose route has no timeout.
constexpr Duration kMirrorTime = std::chrono::minutes(5);

// Bytes of a body that wait for the upstream's connection; then the client is paused.
constexpr std::size_t kHeldBodyKept = 4096;

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

void Exchange::begin(const Ref<WorkerSnapshot>& snapshot, const ListenerEntry& listener) {
    snapshot_ = snapshot;
    listener_ = &listener;
    worker_.exchange_began();
}

// ---- the request ----------------------------------------------------------------------------------------------------

void Exchange::prepare_context() {
    context_.listener = listener_->settings;
    context_.node = &snapshot_->shared->settings.node;
    context_.peer_ip = connection().peer_ip();
    context_.received = worker_.loop().wall();
    context_.random = &worker_.random();
    context_.arena = &arena_;
    context_.request = &request();
    context_.target = request().path_and_query();
    context_.authority = request().authority();
}

void Exchange::on_request() {
    began_ = worker_.loop().now();
    prepare_context();
    worker_.chain().identify(context_);
    if (request().method == http::Method::kConnect) {
        close_after();  // what follows is meant for a tunnel
        fail(Failure::kConnectMethod);
        return;
    }
    route_ = find_route(*listener_, request());
    if (route_ == nullptr) {
        fail(Failure::kNoRoute);
        return;
    }
    context_.route = route_->settings;
    context_.rate_limiter = route_->rate_limiter.get();
    context_.policies = snapshot_->policies[route_->index].get();
    run_filters();
}

void Exchange::run_filters() {
    context_.now = worker_.loop().now();
    const filters::Verdict verdict = worker_.chain().on_request(context_);
    if (context_.under_concurrency_limit) show_concurrency();
    if (const auto* local = std::get_if<filters::LocalResponse>(&verdict)) {
        answer_locally(*local);
    } else if (const auto* pause = std::get_if<filters::Pause>(&verdict)) {
        policy_cells()->fault_delays->add();
        enter(Phase::kPaused, pause->time);
    } else if (const auto* refusal = std::get_if<filters::Refuse>(&verdict)) {
        refuse(*refusal);
    } else {
        // From the request's head on, so that a pause counts too.
        if (context_.time_left) {
            const Duration left = time_left();
            if (left <= Duration(0)) {
                fail(Failure::kRouteTimeout);
                return;
            }
            worker_.loop().schedule(*this, left);
        }
        choose_cluster();
    }
}

void Exchange::choose_cluster() {
    choice_ = route_->pick ? static_cast<std::uint32_t>(route_->pick->draw(worker_.random())) : 0;
    cluster_ = snapshot_->clusters[route_->clusters[choice_]];
    if (const auto& key = cluster_->settings().hash_key)
        key_hash_ = request_hash(*key, request(), context_.peer_ip);
    const config::RouteSettings& settings = *route_->settings;
    if ((settings.retry || settings.hedge) && safe_to_repeat()) body_kept_ = true;
    if (route_->mirror && worker_.random().unit() * 100 < settings.mirror->percent) start_mirror();
    begin_attempt(false);
}

void Exchange::start_mirror() {
    std::string head(upstream_head_bound(), '\0');
    http::HeadWriter writer(head.data());
    write_upstream_head(writer, Duration(0));
    head.resize(writer.size());
    mirror_ =
        Mirror::start(worker_.mirrors(), snapshot_->clusters[*route_->mirror], key_hash_, std::move(head),
                      request().method == http::Method::kHead, request().framing == http::Framing::kChunked,
                      context_.time_left.value_or(kMirrorTime));
    if (mirror_ == nullptr) return;
    if (!body_.empty()) {  // came while a filter made the exchange wait
        const std::string_view body = body_;
        mirror_->body({&body, 1});
    }
    if (request_complete()) {
        mirror_->finish();
        mirror_ = nullptr;
    }
}

// An upgrade is not: what a tunnel stands for is not known here.
bool Exchange::safe_to_repeat() const {
    return http::is_idempotent(request().method) && !request().upgrade;
}

// ---- attempts ---------------------------------------------------------------------------------------------------------

// `released`: from the waiting list, whose turn it is. Others do not overtake those that wait.
void Exchange::begin_attempt(bool fresh, bool released) {
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
    options.fresh = fresh;
    if (route_->settings->retry) options.per_try_timeout = route_->settings->retry->per_try_timeout;
    attempt.start(cluster_, endpoint, options);
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

// ---- the request, upstream --------------------------------------------------------------------------------------------

void Exchange::attempt_ready(Attempt& attempt) {
    attempt.sending();
    PooledConnection& upstream = attempt.stream();
    http::HeadWriter head(upstream.reserve(upstream_head_bound()));
    const auto& retry = route_->settings->retry;
    write_upstream_head(head, retry ? retry->per_try_timeout : Duration(0));
    upstream.commit(head.size());
    upstream.request_begun();
    if (!body_.empty()) {
        const std::string_view body = body_;
        write_body_to(upstream, {&body, 1}, false);
        // More than max_body may have come before the connection stood.
        if (body_.size() > kept_body_max()) body_kept_ = false;
        if (!body_kept_) {
            body_gone_ = true;
            body_.clear();
        }
    }
    if (request_complete() && !tunnel()) {
        finish_request_to(attempt);
    } else {
        resume_request();
    }
}

std::size_t Exchange::upstream_head_bound() const {
    return http::HeadWriter::bound(request()) + context_.request_fields.bytes() + context_.target.size() +
           context_.authority.size() + 320;
}

Duration Exchange::time_left() const {
    return *context_.time_left - (worker_.loop().now() - began_);
}

// `attempt_time`: per_try_timeout; 0 = none.
void Exchange::write_upstream_head(http::HeadWriter& head, Duration attempt_time) {
    const http::RequestHead& in = request();
    head.text(in.method_text());
    head.text(" ");
    head.text(context_.target);
    head.text(" HTTP/1.1\r\nHost: ");
    head.text(context_.authority.empty() ? std::string_view(endpoint_id_for_host()) : context_.authority);
    head.text("\r\n");
    head.fields(in);
    for (const http::Field& f : context_.request_fields.all())
        head.field(f.name, f.value);
    if (context_.time_left) {
        Duration left = time_left();
        if (attempt_time != Duration(0)) left = std::min(left, attempt_time);
        head.text("Outrider-Deadline-Ms: ");
        head.number(policy::deadline_header_ms(left));
        head.text("\r\n");
    }
    if (in.framing == http::Framing::kChunked) {
        head.text("Transfer-Encoding: chunked\r\n");
    } else if (in.framing == http::Framing::kLength ||
               (in.framing == http::Framing::kNone && has_empty_body())) {
        head.text("Content-Length: ");
        head.number(in.content_length);
        head.text("\r\n");
    }
    if (in.upgrade) {
        for (const http::FieldRef& f : in.all()) {
            if (f.id == http::FieldId::kUpgrade) head.field("Upgrade", in.value(f));
        }
        head.text("Connection: Upgrade\r\n");
    }
    head.text("\r\n");
}

// A client that said "Content-Length: 0" said something: a POST without it makes some servers answer 411.
bool Exchange::has_empty_body() const {
    for (const http::FieldRef& f : request().all()) {
        if (f.id == http::FieldId::kContentLength) return true;
    }
    return false;
}

std::string_view Exchange::endpoint_id_for_host() const {
    return endpoint_ ? std::string_view(endpoint_->address.id) : std::string_view("localhost");
}

void Exchange::on_request_body(std::span<const std::string_view> slices) {
    if (mirror_ != nullptr) mirror_->body(slices);
    if (upstream_done_) return;
    if (tunnel()) {
        if (winner_ == nullptr || !winner_->active()) return;
        for (const std::string_view s : slices)
            winner_->stream().write_stable(s);
        return;
    }
    Attempt* attempt = running();
    if (attempt == nullptr || !attempt->head_sent()) {
        for (const std::string_view s : slices)
            body_.append(s);
        pause_request();
        return;
    }
    write_body_to(attempt->stream(), slices, true);
    keep_body(slices);
}

// Of what has been sent.
void Exchange::keep_body(std::span<const std::string_view> slices) {
    if (!body_kept_) {
        body_gone_ = true;
        return;
    }
    std::size_t total = body_.size();
    for (const std::string_view s : slices)
        total += s.size();
    if (total > kept_body_max() || winner_ != nullptr) {
        body_kept_ = false;
        body_gone_ = true;
        std::string().swap(body_);
        return;
    }
    for (const std::string_view s : slices)
        body_.append(s);
}

std::size_t Exchange::kept_body_max() const {
    const auto& retry = route_->settings->retry;
    return (retry ? *retry : config::RetrySettings{}).max_body.value;
}

// `stable`: the slices outlive the current event.
void Exchange::write_body_to(PooledConnection& upstream, std::span<const std::string_view> slices,
                             bool stable) {
    std::size_t total = 0;
    for (const std::string_view s : slices)
        total += s.size();
    if (total == 0) return;
    const bool chunked = request().framing == http::Framing::kChunked;
    if (chunked) {
        char line[24];
        upstream.write_copy(http::chunk_line(line, total));
    }
    for (const std::string_view s : slices)
        stable ? upstream.write_stable(s) : upstream.write_copy(s);
    if (chunked) upstream.write_copy("\r\n");
}

void Exchange::on_request_end(std::span<const http::Field> trailers) {
    if (mirror_ != nullptr) {
        mirror_->finish();
        mirror_ = nullptr;
    }
    if (upstream_done_) return;
    if (tunnel()) {
        if (winner_ != nullptr && winner_->active()) winner_->stream().end_tunnel_write();
        return;
    }
    for (const http::Field& f : trailers)
        held_trailers_.push_back({arena_.copy(f.name), arena_.copy(f.value)});
    Attempt* attempt = running();
    if (attempt != nullptr && attempt->head_sent()) finish_request_to(*attempt);
}

void Exchange::finish_request_to(Attempt& attempt) {
    PooledConnection& upstream = attempt.stream();
    if (request().framing == http::Framing::kChunked) {
        upstream.write_copy("0\r\n");
        for (const http::Field& f : held_trailers_) {
            upstream.write_copy(f.name);
            upstream.write_copy(": ");
            upstream.write_copy(f.value);
            upstream.write_copy("\r\n");
        }
        upstream.write_copy("\r\n");
    }
    upstream.request_finished();
    attempt.request_sent();
}

std::size_t Exchange::request_room() {
    Attempt* attempt = running();
    // A body that is kept is not read in larger pieces: it is small, or it is no longer kept.
    return attempt != nullptr && attempt->head_sent() && !body_kept_ ? attempt->stream().read_limit_for_sink()
                                                                     : uv::TcpStream::kRead;
}

// ---- the response -----------------------------------------------------------------------------------------------------

void Exchange::attempt_head(Attempt& attempt, http::ResponseHead& head) {
    if (head.status < 200) {
        head.status == 101 ? open_tunnel(attempt, head) : forward_informational(head);
        return;
    }
    attempt.judge_status(head.status);
    if (repeats_answer(attempt, head)) return;
    accept(attempt, head.status);
    context_.response = &head;
    worker_.chain().on_response(context_);
    const Body body = head.framing == http::Framing::kLength ? Body::kLength
                      : head.framing == http::Framing::kNone ? Body::kNone
                                                             : Body::kUnknown;
    start_response(head.status, head.reason(), body, head.content_length,
                   http::HeadWriter::bound(head) + context_.response_fields.bytes(),
                   [&](http::HeadWriter& out) {
                       out.fields(head);
                       for (const http::Field& f : context_.response_fields.all())
                           out.field(f.name, f.value);
                   });
    context_.response = nullptr;  // its memory is the parser's
}

// This attempt's answer is the exchange's.
void Exchange::accept(Attempt& attempt, int status) {
    leave_phase();
    winner_ = &attempt;
    const Instant now = worker_.loop().now();
    const bool hedge_won = &attempt == second_.get();
    if (hedge_won) policy_cells()->hedges_won->add();
    if (Attempt* other = hedge_won ? &first_ : second_.get(); other != nullptr && other->active()) {
        const Ref<Endpoint> overtaken = other->endpoint();
        const Instant began = other->began();
        other->give_up(cluster_->cells().discarded, false);
        if (hedge_won) cluster_->overtaken(*overtaken, now - began, now);
    }
    endpoint_ = attempt.endpoint();
    head_at_ = now;
    upstream_time_ = now - attempt.began();
    if (route_->settings->hedge) context_.policies->latency.record(now, now - tried_since_);
    context_.status = status;
    if (body_kept_ && request_complete()) std::string().swap(body_);
}

void Exchange::forward_informational(http::ResponseHead& head) {
    if (client_is_http10() || (second_ && second_->active())) return;
    send_informational(head.status, head.reason(), http::HeadWriter::bound(head),
                       [&](http::HeadWriter& out) { out.fields(head); });
}

void Exchange::open_tunnel(Attempt& attempt, http::ResponseHead& head) {
    worker_.loop().cancel(*this);
    attempt.judge_status(101);
    accept(attempt, 101);
    context_.response = &head;
    worker_.chain().on_response(context_);
    start_response(101, head.reason(), Body::kNone, 0,
                   http::HeadWriter::bound(head) + context_.response_fields.bytes() + 64,
                   [&](http::HeadWriter& out) {
                       out.fields(head);
                       for (const http::Field& f : context_.response_fields.all())
                           out.field(f.name, f.value);
                       for (const http::FieldRef& f : head.all()) {
                           if (f.id == http::FieldId::kUpgrade) out.field("Upgrade", head.value(f));
                       }
                       out.text("Connection: Upgrade\r\n");
                   });
    context_.response = nullptr;
    if (context_.under_concurrency_limit) end_policies();  // what a tunnel does is no request any more
    start_tunnel();
}

void Exchange::attempt_body(std::span<const std::string_view> slices) {
    write_body(slices, true);
    // At the front of its connection the kernel's answer comes later (on_response_blocked); behind others it is known now.
    if (response_blocked()) on_response_blocked();
}

void Exchange::on_response_blocked() {
    if (winner_ != nullptr && winner_->active()) winner_->stream().pause_response();
}

void Exchange::on_response_drained() {
    if (winner_ != nullptr && winner_->active()) winner_->stream().resume_response();
}

void Exchange::attempt_end(Attempt& attempt, std::span<const http::Field> trailers) {
    upstream_done_ = true;
    if (tunnel()) {
        // The upstream's direction is over. Without the client's the tunnel has nothing to carry either.
        attempt.give_up(cluster_->cells().success, false);
        finish();
        return;
    }
    attempt.succeeded();
    finish(trailers);  // last: this exchange may be gone
}

// ---- repetitions ------------------------------------------------------------------------------------------------------

bool Exchange::may_try_again(const http::ClientFailure& failure) const {
    // A kept connection that the upstream closed while the request was under way: the one case in which a request is
    // repeated without being asked, once, and only when repeating is harmless (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1).
    return failure.error == http::ClientError::kReset && failure.reused && attempts_ == 1 &&
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

// ---- ends -------------------------------------------------------------------------------------------------------------

void Exchange::on_timeout(Instant) {
    const uv::Loop::Event event(worker_.loop());
    if (response_finished()) return;  // it waits behind others of its connection
    for (Attempt* attempt : {&first_, second_.get()}) {
        if (attempt != nullptr && attempt->active() && winner_ == nullptr && had_its_time(*attempt))
            cluster_->judge_failure(*attempt->endpoint(), "no answer within the route's timeout",
                                    worker_.loop().wall());
    }
    stop_trying(true);
    fail(Failure::kRouteTimeout);
}

// That there was no answer says something of the endpoint only when it had the whole request and most of the route's time:
// not when the client was slow to send, or the caller's deadline or a wait before the attempt left it little.
bool Exchange::had_its_time(const Attempt& attempt) const {
    return request_complete() && attempt.head_sent() &&
           worker_.loop().now() - attempt.began() >= route_->settings->timeout / 2;
}

void Exchange::on_bad_request(int status, const char* reason) {
    stop_trying(false);
    if (context_.arena == nullptr) {
        prepare_context();
        worker_.chain().identify(context_);
    }
    const Problem problem = problem_for(status == 503 ? Failure::kTooManyConnections : Failure::kBadRequest);
    context_.flags |= problem.flags;
    if (response_started()) {
        abort_response();
        return;
    }
    answer_problem(problem, status, reason);
}

void Exchange::on_aborted(AbortReason reason) {
    if (reason == AbortReason::kClientGone) {
        context_.flags.set(filters::Flag::kDC);
    } else if (reason != AbortReason::kShutdown) {
        context_.flags.set(filters::Flag::kDPE);  // too slow to be believed
    }
    worker_.loop().cancel(*this);
    stop_trying(false);
}

void Exchange::refuse(const filters::Refuse& refusal) {
    switch (refusal.why) {
        case filters::Refusal::kRateLimited:
            policy_cells()->rate_limited->add();
            fail(Failure::kRateLimited, {}, refusal.retry_after);
            break;
        case filters::Refusal::kShed:
            policy_cells()->shed->add();
            fail(Failure::kShed, {}, refusal.retry_after);
            break;
        case filters::Refusal::kLoop:
            fail(Failure::kLoop);
            break;
        case filters::Refusal::kDeadlinePassed:
            fail(Failure::kDeadlinePassed);
            break;
        case filters::Refusal::kFault: {
            policy_cells()->fault_aborts->add();
            const Problem problem = problem_for(Failure::kFaultInjected);
            context_.flags |= problem.flags;
            upstream_done_ = true;
            answer_problem(problem, refusal.status, problem.detail);
            break;
        }
    }
}

void Exchange::fail(Failure failure, std::string_view detail, Duration retry_after) {
    const Problem problem = problem_for(failure);
    context_.flags |= problem.flags;
    upstream_done_ = true;
    timed_out_ = problem.status == 504 && failure != Failure::kDeadlinePassed;
    if (response_started()) {
        abort_response();  // the client must see that it is cut
        return;
    }
    answer_problem(problem, problem.status, detail.empty() ? problem.detail : detail, retry_after);
}

void Exchange::answer_problem(const Problem& problem, int status, std::string_view detail,
                              Duration retry_after) {
    const std::string body = problem_json(status, detail, context_.request_id);
    const std::string via = proxy_status(context_.node->name, problem.proxy_status, detail);
    context_.response_fields.add("Content-Type", "application/problem+json");
    context_.response_fields.add("Proxy-Status", via);
    const auto seconds = static_cast<std::int64_t>(std::ceil(seconds_of(retry_after)));
    const std::string retry_text = std::to_string(std::max<std::int64_t>(1, seconds));
    if (problem.retry_after) context_.response_fields.add("Retry-After", retry_text);
    send_own(status, body);
}

void Exchange::answer_locally(const filters::LocalResponse& response) {
    upstream_done_ = true;
    const std::string via = proxy_status(context_.node->name, {}, {});
    if (!response.location.empty()) context_.response_fields.add("Location", response.location);
    if (!response.content_type.empty()) context_.response_fields.add("Content-Type", response.content_type);
    context_.response_fields.add("Proxy-Status", via);
    send_own(response.status, response.body);
}

// A response of outrider's own, whole.
void Exchange::send_own(int status, std::string_view body) {
    context_.response = nullptr;
    context_.status = status;
    worker_.chain().on_response(context_);
    start_response(status, http::reason_phrase(status), Body::kLength, body.size(),
                   context_.response_fields.bytes(), [&](http::HeadWriter& out) {
                       for (const http::Field& f : context_.response_fields.all())
                           out.field(f.name, f.value);
                   });
    write_body({&body, 1}, false);
    finish();
}

const RouteCells& Exchange::cells() const {
    if (route_ == nullptr) return listener_->unrouted[worker_.index()];
    return route_->cells[choice_][worker_.index()];
}

const PolicyCells* Exchange::policy_cells() const {
    return &route_->policy_cells[worker_.index()];
}

void Exchange::end_policies() {
    filters::Outcome outcome;
    outcome.now = worker_.loop().now();
    outcome.timed_out = timed_out_;
    // From the place taken to the answer's head, or to the end for want of one.
    if (winner_ != nullptr) outcome.latency = head_at_ - context_.limit_since;
    worker_.chain().on_end(context_, outcome);
    show_concurrency();
    if (cluster_ && cluster_->waiting() != 0) cluster_->release_soon();
}

void Exchange::show_concurrency() const {
    const policy::ConcurrencyLimit& limit = *context_.policies->concurrency;
    policy_cells()->concurrency_limit->set(limit.limit());
    policy_cells()->concurrency_in_flight->set(limit.in_flight());
}

void Exchange::end() {
    worker_.loop().cancel(*this);
    if (mirror_ != nullptr) {
        mirror_->drop();
        mirror_ = nullptr;
    }
    stop_trying(false);
    if (context_.under_concurrency_limit) end_policies();
    const Duration took = worker_.loop().now() - started_at();
    cells().requests->add(response_status());
    cells().duration->observe(took);
    if (worker_.access_log() != nullptr) log_line(took);
    worker_.exchange_ended();
    clear();
}

void Exchange::log_line(Duration took) {
    AccessEntry entry;
    entry.time = context_.received;
    entry.listener = listener_->settings->name;
    if (route_ != nullptr) entry.route = route_->settings->name;
    entry.method = request().method_text();
    entry.path = request().target();
    entry.protocol = client_is_http10() ? "HTTP/1.0" : "HTTP/1.1";
    entry.status = response_status();
    entry.flags = context_.flags;
    entry.bytes_in = request_bytes();
    entry.bytes_out = response_bytes();
    entry.duration = took;
    entry.upstream_duration = upstream_time_;
    entry.attempts = attempts_;
    if (endpoint_) entry.endpoint = endpoint_->address.id;
    entry.request_id = context_.request_id;
    entry.client = connection().peer_ip();
    worker_.access_log()->append(entry, worker_.loop().now());
}

void Exchange::clear() {
    snapshot_.reset();
    cluster_.reset();
    endpoint_.reset();
    listener_ = nullptr;
    route_ = nullptr;
    choice_ = 0;
    context_.request_fields.clear();
    context_.response_fields.clear();
    context_.arena = nullptr;
    context_.route = nullptr;
    context_.request_id = {};
    context_.flags = {};
    context_.time_left.reset();
    context_.position = 0;
    context_.rate_limiter = nullptr;
    context_.policies = nullptr;
    arena_.reset();
    held_trailers_.clear();
    if (body_.capacity() > kHeldBodyKept) std::string().swap(body_);
    body_.clear();
    first_.clear();
    if (second_) second_->clear();
    winner_ = nullptr;
    held_until_ = {};
    upstream_time_ = Duration(-1);
    key_hash_ = 0;
    attempts_ = 0;
    was_held_ = body_kept_ = body_gone_ = upstream_done_ = timed_out_ = false;
    recycle();
}

}  // namespace outrider::proxy
