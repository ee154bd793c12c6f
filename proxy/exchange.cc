#include "proxy/exchange.h"

#include <cmath>

#include "base/bytes.h"
#include "base/check.h"
#include "proxy/mirror.h"
#include "proxy/worker.h"

namespace outrider::proxy {

namespace {

// Of a copy whose route has no timeout.
constexpr Duration kMirrorTime = std::chrono::minutes(5);

// Bytes of a body that wait for the upstream's connection; then the client is paused.
constexpr std::size_t kHeldBodyKept = 4096;

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
    context_.peer_ip = arena_.copy(connection().peer_ip());  // it may outlive the connection
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
    context_.filters = route_->filters;
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
    } else if (std::holds_alternative<filters::Hold>(verdict)) {
        hold();
    } else if (std::holds_alternative<filters::Join>(verdict)) {
        join();
    } else if (std::holds_alternative<filters::Gather>(verdict)) {
        gather();
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
    if (carries()) context_.target = route_->settings->batch->path;
    choice_ = route_->pick ? static_cast<std::uint32_t>(route_->pick->draw(worker_.random())) : 0;
    cluster_ = snapshot_->clusters[route_->clusters[choice_]];
    if (const auto& key = cluster_->settings().hash_key)
        key_hash_ = request_hash(*key, request(), context_.peer_ip);
    const config::RouteSettings& settings = *route_->settings;
    if (owns_key() || ((settings.retry || settings.hedge) && safe_to_repeat())) body_kept_ = true;
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

// An upgrade is not: what a tunnel stands for is not known here. Whoever owns a key may: the route that asks for repetitions says that
// its upstream bears them (docs/idempotency.md).
bool Exchange::safe_to_repeat() const {
    if (carries()) return batch_->call->repeatable;
    return (http::is_idempotent(request().method) || owns_key()) && !request().upgrade;
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
    leave_group();
    if (!owns_key()) leave_batch();
    if (goes_on()) {  // what its key stands for is done all the same, and what others wait for
        if (guard_ && guard_->stage == KeyGuard::Stage::kAsking) {
            guard_->stage = KeyGuard::Stage::kLeaving;
            guard_->store->leave(*this);
            worker_.loop().cancel(*this);
        }
        return;
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
        case filters::Refusal::kKeyMissing:
            fail(Failure::kKeyMissing);
            break;
        case filters::Refusal::kKeyMalformed:
            fail(Failure::kKeyMalformed, refusal.detail);
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
    if (carries()) {
        call_failed(failure, detail, retry_after);
        return;
    }
    leave_batch();
    if (report_failure(failure, detail, retry_after)) return;
    if (group_failed(failure, detail, retry_after)) return;
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
    ProblemDocument document{problem.type, status, detail, context_.request_id, {}, {}};
    std::string digest;
    std::string link;
    if (!problem.type.empty()) {  // of the idempotent receiver: where its promise is published
        document.policy = policy_link();
        link = "<" + std::string(document.policy) + ">; rel=\"describedby\"; type=\"text/html\"";
        context_.response_fields.add("Link", link);
        if (context_.key) document.key = digest = context_.key->hex();
    }
    const std::string body = problem_json(document);
    const std::string via = proxy_status(context_.node->name, problem.proxy_status, detail);
    context_.response_fields.add("Content-Type", "application/problem+json");
    context_.response_fields.add("Proxy-Status", via);
    const auto seconds = static_cast<std::int64_t>(std::ceil(seconds_of(retry_after)));
    const std::string retry_text = std::to_string(std::max<std::int64_t>(1, seconds));
    if (problem.retry_after) context_.response_fields.add("Retry-After", retry_text);
    send_own(status, body);
}

void Exchange::answer_locally(const filters::LocalResponse& response) {
    if (owns_key()) settle(idempotency::Released{});  // nothing left; the answer need not wait for the record
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
    clear_seat();
    clear_batch();
    if (context_.under_concurrency_limit) end_policies();
    if (context_.key_outcome != filters::KeyOutcome::kNone)
        route_->idempotency->cells[worker_.index()][static_cast<std::size_t>(context_.key_outcome)]->add();
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
    entry.idempotency = filters::key_outcome_name(context_.key_outcome);
    entry.client = detached_ ? context_.peer_ip : connection().peer_ip();
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
    context_.filters = filters::kAllFilters;
    context_.request_id = {};
    context_.flags = {};
    context_.time_left.reset();
    context_.position = 0;
    context_.key.reset();
    context_.collapse_key = {};
    context_.batch_group = {};
    context_.key_outcome = filters::KeyOutcome::kNone;
    context_.rate_limiter = nullptr;
    context_.policies = nullptr;
    arena_.reset();
    held_trailers_.clear();
    if (body_.capacity() > kHeldBodyKept) std::string().swap(body_);
    body_.clear();
    clear_guard();
    first_.clear();
    if (second_) second_->clear();
    winner_ = nullptr;
    held_until_ = {};
    upstream_time_ = Duration(-1);
    key_hash_ = 0;
    attempts_ = 0;
    was_held_ = body_kept_ = body_gone_ = upstream_done_ = timed_out_ = detached_ = false;
    recycle();
}

}  // namespace outrider::proxy
