#include "proxy/attempt.h"

#include "base/bytes.h"
#include "proxy/exchange.h"
#include "proxy/worker.h"

namespace outrider::proxy {

namespace {

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
        case http::ClientError::kWriteTimeout:
            return cells.timeout;
    }
    return cells.reset;
}

std::string_view words_for(http::ClientError error) {
    switch (error) {
        case http::ClientError::kConnectRefused:
            return "connection refused";
        case http::ClientError::kConnectTimeout:
            return "no connection in time";
        case http::ClientError::kReset:
            return "connection closed before the answer";
        case http::ClientError::kIncomplete:
            return "answer broke off";
        case http::ClientError::kProtocol:
            return "answer is not valid HTTP";
        case http::ClientError::kReadTimeout:
            return "no answer in time";
        case http::ClientError::kWriteTimeout:
            return "request not taken in time";
    }
    return "failed";
}

}  // namespace

void Attempt::start(const Ref<WorkerCluster>& cluster, const Ref<Endpoint>& endpoint,
                    const Options& options) {
    cluster_ = cluster;
    endpoint_ = endpoint;
    uv::Loop& loop = exchange_.worker_.loop();
    began_ = loop.now();
    latency_ = Duration(-1);
    head_sent_ = good_head_ = false;
    upstream_ = &cluster_->connection(endpoint_, options.idle_max);
    cluster_->begin(*endpoint_);
    per_try_timeout_ = options.per_try_timeout;
    if (per_try_timeout_ != Duration(0)) loop.schedule(*this, per_try_timeout_);
    upstream_->bind(*this, options.request);
    if (upstream_->connected()) exchange_.attempt_ready(*this);
}

void Attempt::end(Counter* outcome, bool failed) {
    upstream_ = nullptr;
    uv::Loop& loop = exchange_.worker_.loop();
    loop.cancel(*this);
    outcome->add();
    if (good_head_ && !failed) cluster_->judge_success(*endpoint_);
    cluster_->end(*endpoint_, failed ? Duration(-1) : latency_, loop.now(), failed);
}

void Attempt::request_sent() {
    if (per_try_timeout_ != Duration(0) && active())
        exchange_.worker_.loop().schedule(*this, per_try_timeout_);
}

void Attempt::succeeded() {
    end(cluster_->cells().success, false);
}

void Attempt::give_up(Counter* outcome, bool failed) {
    PooledConnection* upstream = upstream_;
    end(outcome, failed);
    upstream->abandon();
}

void Attempt::judge_status(int status) {
    exchange_.worker_.loop().cancel(*this);
    latency_ = exchange_.worker_.loop().now() - began_;
    good_head_ = status < 500;
    if (!good_head_) {
        cluster_->judge_failure(*endpoint_, "status " + std::to_string(status),
                                exchange_.worker_.loop().wall());
    }
}

void Attempt::clear() {
    cluster_.reset();
    endpoint_.reset();
}

void Attempt::on_connected() {
    exchange_.attempt_ready(*this);
}
void Attempt::on_response_head(http::ResponseHead& head) {
    exchange_.attempt_head(*this, head);
}
void Attempt::on_response_body(std::span<const std::string_view> slices) {
    exchange_.attempt_body(slices);
}
void Attempt::on_response_end(std::span<const http::Field> trailers) {
    exchange_.attempt_end(*this, trailers);
}
void Attempt::on_request_blocked() {
    if (!exchange_.request_complete()) exchange_.pause_request();
}
void Attempt::on_request_drained() {
    if (!exchange_.request_complete()) exchange_.resume_request();
}
std::size_t Attempt::response_room() {
    return exchange_.answer_room();
}

void Attempt::on_failed(const http::ClientFailure& failure) {
    const bool reused_and_reset = failure.reused && failure.error == http::ClientError::kReset;
    // A kept connection that the upstream closed meanwhile says nothing about its health.
    if (!reused_and_reset)
        cluster_->judge_failure(*endpoint_, words_for(failure.error), exchange_.worker_.loop().wall());
    end(outcome_for(cluster_->cells(), failure.error), true);
    exchange_.attempt_failed(*this, failure);
}

// per_try_timeout is over.
void Attempt::on_timeout(Instant) {
    const uv::Loop::Event event(exchange_.worker_.loop());
    if (head_sent_ && !exchange_.request_complete()) {  // it is the client that we wait for
        exchange_.worker_.loop().schedule(*this, per_try_timeout_);
        return;
    }
    cluster_->judge_failure(*endpoint_, "no answer within per_try_timeout", exchange_.worker_.loop().wall());
    http::ClientFailure failure;
    failure.error = http::ClientError::kReadTimeout;
    failure.request_sent = head_sent_;
    give_up(cluster_->cells().timeout, true);
    exchange_.attempt_failed(*this, failure);
}

}  // namespace outrider::proxy
