// An exchange's two directions while an attempt runs: the request written upstream, the response written to the client.
#include "base/bytes.h"
#include "filters/policy/deadline.h"
#include "proxy/exchange.h"
#include "proxy/mirror.h"
#include "proxy/worker.h"

namespace outrider::proxy {

// ---- the request, upstream --------------------------------------------------------------------------------------------

void Exchange::attempt_ready(Attempt& attempt) {
    if (lease_over()) {  // connecting took long, or a hedge came late
        attempt.give_up(cluster_->cells().canceled, false);
        if (running() != nullptr) return;
        leave_phase();
        fail(Failure::kRouteTimeout);
        return;
    }
    attempt.sending();
    if (guard_) guard_->left = true;
    if (carries()) call_leaves();
    Attempt& upstream = attempt;
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
    if (guard_ && guard_->stage == KeyGuard::Stage::kBody) {
        take_body(slices);
        return;
    }
    if (gathers()) {
        take_member_body(slices);
        return;
    }
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
    write_body_to(*attempt, slices, true);
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
    if (carries()) return route_->settings->batch->max_bytes.value;
    if (owns_key()) return key_settings().max_request.value;
    const auto& retry = route_->settings->retry;
    return (retry ? *retry : config::RetrySettings{}).max_body.value;
}

// `stable`: the slices outlive the current event.
void Exchange::write_body_to(Attempt& upstream, std::span<const std::string_view> slices, bool stable) {
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
    if (guard_ && guard_->stage == KeyGuard::Stage::kBody) {
        ask_store();
        return;
    }
    if (gathers()) {
        admit_member();
        return;
    }
    Attempt* attempt = running();
    if (attempt != nullptr && attempt->head_sent()) finish_request_to(*attempt);
}

void Exchange::finish_request_to(Attempt& attempt) {
    Attempt& upstream = attempt;
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
    return attempt != nullptr && attempt->head_sent() && !body_kept_ ? attempt->request_room()
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
    if (carries()) {
        call_head(head);
        return;
    }
    if (owns_key()) {
        record_head(head);
        return;
    }
    const Body body = head.framing == http::Framing::kLength ? Body::kLength
                      : head.framing == http::Framing::kNone ? Body::kNone
                                                             : Body::kUnknown;
    leads() ? share_head(head, body) : start_answer(head, body, head.content_length);
}

// An upstream's, or a recorded one: through the filters to the client.
void Exchange::start_answer(http::ResponseHead& head, Body body, std::uint64_t length) {
    context_.response = &head;
    context_.status = head.status;
    worker_.chain().on_response(context_);
    start_response(head.status, head.reason(), body, length,
                   http::HeadWriter::bound(head) + context_.response_fields.bytes(),
                   [&](http::HeadWriter& out) {
                       out.fields(head);
                       for (const http::Field& f : context_.response_fields.all())
                           out.field(f.name, f.value);
                   });
    context_.response = nullptr;  // its memory is somebody else's
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
    if (client_is_http10() || detached_ || carries() || (second_ && second_->active())) return;
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
    if (carries()) {
        call_body(slices);
        return;
    }
    if (owns_key()) {
        record_body(slices);
        return;
    }
    if (reads_shared()) {
        seat_->collapser->body_came(seat_->answer, slices);
        return;
    }
    write_body(slices, true);
    // At the front of its connection the kernel's answer comes later (on_response_blocked); behind others it is known now.
    if (response_blocked()) on_response_blocked();
}

void Exchange::on_response_blocked() {
    if (reads_shared() || carries())
        return;  // others may be quicker (Collapser::pace), or wait for their part
    if (winner_ != nullptr && winner_->active()) winner_->pause_response();
}

void Exchange::on_response_drained() {
    if (reads_shared()) {
        drained_shared();
        return;
    }
    if (winner_ != nullptr && winner_->active()) winner_->resume_response();
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
    if (carries()) {
        call_answered();
        return;
    }
    if (owns_key()) {
        settle_answer(trailers);
        return;
    }
    if (leads()) {
        seat_->collapser->answer_ended(*this, trailers);
        return;
    }
    finish(trailers);  // last: this exchange may be gone
}

}  // namespace outrider::proxy
