#include "proxy/exchange.h"

#include "base/bytes.h"
#include "base/check.h"
#include "proxy/mirror.h"
#include "proxy/worker.h"

namespace outrider::proxy {

namespace {

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
    }
    return Failure::kUpstreamReset;
}

Counter* outcome_for(const ClusterCells& cells, http::ClientError error) {
    switch (error) {
        case http::ClientError::kConnectRefused:
            return cells.connect_failed;
        case http::ClientError::kConnectTimeout:
            return cells.connect_timeout;
        case http::ClientError::kReset:
            return cells.reset;
        case http::ClientError::kIncomplete:
            return cells.incomplete;
        case http::ClientError::kProtocol:
            return cells.protocol_error;
        case http::ClientError::kReadTimeout:
            return cells.timeout;
    }
    return cells.reset;
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
    const filters::Verdict verdict = worker_.chain().on_request(context_);
    if (const auto* local = std::get_if<filters::LocalResponse>(&verdict)) {
        answer_locally(*local);
        return;
    }
    if (route_->settings->timeout != Duration(0)) worker_.loop().schedule(*this, route_->settings->timeout);
    choose_cluster();
}

void Exchange::choose_cluster() {
    choice_ = route_->pick ? static_cast<std::uint32_t>(route_->pick->draw(worker_.random())) : 0;
    cluster_ = snapshot_->clusters[route_->clusters[choice_]];
    if (const auto& key = cluster_->settings().hash_key)
        key_hash_ = request_hash(*key, request(), context_.peer_ip);
    if (route_->mirror && worker_.random().unit() * 100 < route_->settings->mirror->percent) {
        std::string head(http::HeadWriter::bound(request()) + context_.request_fields.bytes() +
                             context_.target.size() + context_.authority.size() + 256,
                         '\0');
        http::HeadWriter writer(head.data());
        write_upstream_head(writer);
        head.resize(writer.size());
        mirror_ = Mirror::start(worker_.mirrors(), snapshot_->clusters[*route_->mirror], key_hash_,
                                std::move(head), request().method == http::Method::kHead,
                                request().framing == http::Framing::kChunked);
        if (mirror_ != nullptr && request_complete()) {
            mirror_->finish();
            mirror_ = nullptr;
        }
    }
    start_attempt(false);
}

void Exchange::start_attempt(bool fresh) {
    endpoint_ = cluster_->pick(key_hash_);
    if (!endpoint_) {
        fail(Failure::kNoEndpoint);
        return;
    }
    ++attempts_;
    attempt_began_ = worker_.loop().now();
    upstream_ = &cluster_->connection(endpoint_, fresh);
    cluster_->begin(*endpoint_);
    http::ClientConnection::RequestOptions options;
    options.head = request().method == http::Method::kHead;
    options.upgrade_asked = request().upgrade;
    options.read_timeout = cluster_->settings().read_timeout;
    upstream_->bind(*this, options);
    if (upstream_->connected()) send_request();
}

void Exchange::on_connected() {
    send_request();
}

void Exchange::write_upstream_head(http::HeadWriter& head) {
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

void Exchange::send_request() {
    head_sent_ = true;
    http::HeadWriter head(upstream_->reserve(http::HeadWriter::bound(request()) +
                                             context_.request_fields.bytes() + context_.target.size() +
                                             context_.authority.size() + 256));
    write_upstream_head(head);
    upstream_->commit(head.size());
    upstream_->request_begun();
    if (!held_body_.empty()) {
        const std::string_view held = held_body_;
        write_upstream_body({&held, 1}, false);
        held_body_.clear();
    }
    if (request_complete() && !tunnel()) {
        finish_upstream_request({});
    } else {
        resume_request();
    }
}

void Exchange::on_request_body(std::span<const std::string_view> slices) {
    if (mirror_ != nullptr) mirror_->body(slices);
    if (upstream_ == nullptr) return;  // already answered
    if (tunnel()) {
        for (const std::string_view s : slices)
            upstream_->write_stable(s);
        return;
    }
    if (!head_sent_) {
        for (const std::string_view s : slices)
            held_body_.append(s);
        pause_request();
        return;
    }
    write_upstream_body(slices, true);
}

// `stable`: the slices outlive the current event.
void Exchange::write_upstream_body(std::span<const std::string_view> slices, bool stable) {
    std::size_t total = 0;
    for (const std::string_view s : slices)
        total += s.size();
    if (total == 0) return;
    const bool chunked = request().framing == http::Framing::kChunked;
    if (chunked) {
        char line[24];
        upstream_->write_copy(http::chunk_line(line, total));
    }
    for (const std::string_view s : slices)
        stable ? upstream_->write_stable(s) : upstream_->write_copy(s);
    if (chunked) upstream_->write_copy("\r\n");
}

void Exchange::on_request_end(std::span<const http::Field> trailers) {
    if (mirror_ != nullptr) {
        mirror_->finish();
        mirror_ = nullptr;
    }
    if (upstream_ == nullptr) return;
    if (tunnel()) {
        upstream_->end_tunnel_write();
        return;
    }
    if (!head_sent_) {
        held_trailers_.assign(trailers.begin(), trailers.end());
        for (http::Field& f : held_trailers_)
            f = {arena_.copy(f.name), arena_.copy(f.value)};
        return;
    }
    finish_upstream_request(trailers);
}

void Exchange::finish_upstream_request(std::span<const http::Field> trailers) {
    if (request().framing == http::Framing::kChunked) {
        if (trailers.empty()) trailers = held_trailers_;
        upstream_->write_copy("0\r\n");
        for (const http::Field& f : trailers) {
            upstream_->write_copy(f.name);
            upstream_->write_copy(": ");
            upstream_->write_copy(f.value);
            upstream_->write_copy("\r\n");
        }
        upstream_->write_copy("\r\n");
    }
    upstream_->request_finished();
}

std::size_t Exchange::request_room() {
    return upstream_ != nullptr && head_sent_ ? upstream_->read_limit_for_sink() : uv::TcpStream::kRead;
}

void Exchange::on_request_blocked() {
    pause_request();
}
void Exchange::on_request_drained() {
    resume_request();
}

// ---- the response -----------------------------------------------------------------------------------------------------

void Exchange::on_response_head(http::ResponseHead& head) {
    if (head.status < 200) {
        head.status == 101 ? open_tunnel(head) : forward_informational(head);
        return;
    }
    upstream_time_ = worker_.loop().now() - attempt_began_;
    context_.response = &head;
    context_.status = head.status;
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

void Exchange::forward_informational(http::ResponseHead& head) {
    if (client_is_http10()) return;
    send_informational(head.status, head.reason(), http::HeadWriter::bound(head),
                       [&](http::HeadWriter& out) { out.fields(head); });
}

void Exchange::open_tunnel(http::ResponseHead& head) {
    worker_.loop().cancel(*this);
    upstream_time_ = worker_.loop().now() - attempt_began_;
    context_.response = &head;
    context_.status = 101;
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
    start_tunnel();
}

void Exchange::on_response_body(std::span<const std::string_view> slices) {
    write_body(slices, true);
    // At the front of its connection the kernel's answer comes later (on_response_blocked); behind others it is known now.
    if (response_blocked()) on_response_blocked();
}

void Exchange::on_response_blocked() {
    if (upstream_ != nullptr) upstream_->pause_response();
}

void Exchange::on_response_drained() {
    if (upstream_ != nullptr) upstream_->resume_response();
}

void Exchange::on_response_end(std::span<const http::Field> trailers) {
    if (tunnel()) {
        // The upstream's direction is over. Without the client's the tunnel has nothing to carry either.
        PooledConnection* upstream = upstream_;
        end_attempt(cluster_->cells().success, false);
        upstream->abandon();
        finish();
        return;
    }
    end_attempt(cluster_->cells().success, false);
    finish(trailers);  // last: this exchange may be gone
}

void Exchange::end_attempt(Counter* outcome, bool failed) {
    upstream_ = nullptr;
    outcome->add();
    if (upstream_time_ < Duration(0) && head_sent_) upstream_time_ = worker_.loop().now() - attempt_began_;
    cluster_->end(*endpoint_, failed ? Duration(-1) : upstream_time_, worker_.loop().now(), failed);
}

bool Exchange::may_try_again(const http::ClientFailure& failure) const {
    // A kept connection that the upstream closed while the request was under way: the one case in which a request is
    // repeated without being asked, once, and only when repeating is harmless (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1).
    return failure.error == http::ClientError::kReset && failure.reused && attempts_ == 1 &&
           http::is_idempotent(request().method) && request().framing == http::Framing::kNone &&
           !request().upgrade && !response_started();
}

void Exchange::on_failed(const http::ClientFailure& failure) {
    end_attempt(outcome_for(cluster_->cells(), failure.error), true);
    if (may_try_again(failure)) {
        head_sent_ = false;
        start_attempt(true);
        return;
    }
    fail(failure_for(failure.error), failure.error == http::ClientError::kProtocol ? failure.reason : "");
}

// ---- ends -------------------------------------------------------------------------------------------------------------

void Exchange::on_timeout(Instant) {
    const uv::Loop::Event event(worker_.loop());
    if (upstream_ != nullptr) {
        PooledConnection* upstream = upstream_;
        end_attempt(cluster_->cells().canceled, true);
        upstream->abandon();
    }
    fail(Failure::kRouteTimeout);
}

void Exchange::on_bad_request(int status, const char* reason) {
    if (upstream_ != nullptr) {
        PooledConnection* upstream = upstream_;
        end_attempt(cluster_->cells().canceled, false);
        upstream->abandon();
    }
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
    if (upstream_ == nullptr) return;
    PooledConnection* upstream = upstream_;
    end_attempt(cluster_->cells().canceled, false);
    upstream->abandon();
}

void Exchange::fail(Failure failure, std::string_view detail) {
    const Problem problem = problem_for(failure);
    context_.flags |= problem.flags;
    if (response_started()) {
        abort_response();  // the client must see that it is cut
        return;
    }
    answer_problem(problem, problem.status, detail.empty() ? problem.detail : detail);
}

void Exchange::answer_problem(const Problem& problem, int status, std::string_view detail) {
    const std::string body = problem_json(status, detail, context_.request_id);
    const std::string via = proxy_status(context_.node->name, problem.proxy_status, detail);
    context_.response_fields.add("Content-Type", "application/problem+json");
    context_.response_fields.add("Proxy-Status", via);
    if (problem.retry_after) context_.response_fields.add("Retry-After", "1");
    send_own(status, body);
}

void Exchange::answer_locally(const filters::LocalResponse& response) {
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

void Exchange::end() {
    worker_.loop().cancel(*this);
    if (mirror_ != nullptr) {
        mirror_->drop();
        mirror_ = nullptr;
    }
    if (upstream_ != nullptr) {
        PooledConnection* upstream = upstream_;
        end_attempt(cluster_->cells().canceled, false);
        upstream->abandon();
    }
    const Duration took = worker_.loop().now() - started_at();
    cells().requests->add(response_status());
    cells().duration->observe(took);
    if (AccessLogWriter::Worker* log = worker_.access_log()) {
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
        log->append(entry, worker_.loop().now());
    }
    worker_.exchange_ended();
    clear();
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
    arena_.reset();
    held_trailers_.clear();
    if (held_body_.capacity() > kHeldBodyKept) std::string().swap(held_body_);
    held_body_.clear();
    upstream_time_ = Duration(-1);
    key_hash_ = 0;
    attempts_ = 0;
    head_sent_ = false;
    recycle();
}

}  // namespace outrider::proxy
