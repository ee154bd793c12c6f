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
    loop.answer_awaited();
    latency_ = Duration(-1);
    head_sent_ = good_head_ = was_paused_ = false;
    could_ride_ = options.may_ride;
    cls_ = options.cls;
    if (options.may_ride && ride(options)) return;
    upstream_ = &cluster_->connection(endpoint_, options.idle_max);
    cluster_->begin(*endpoint_);
    per_try_timeout_ = options.per_try_timeout;
    if (per_try_timeout_ != Duration(0)) loop.schedule(*this, per_try_timeout_);
    upstream_->bind(*this, options.request);
    if (upstream_->connected()) exchange_.attempt_ready(*this);
}

// The whole request is written here and leaves with the turn's others.
bool Attempt::ride(const Options& options) {
    channel_ = cluster_->channel_for(endpoint_, options.cls);
    if (channel_ == nullptr) return false;
    uv::Loop& loop = exchange_.worker_.loop();
    could_ride_ = false;  // the channel itself counts how long it takes
    cluster_->begin(*endpoint_);
    per_try_timeout_ = options.per_try_timeout;
    if (per_try_timeout_ != Duration(0)) loop.schedule(*this, per_try_timeout_);
    ride_ = channel_->join(*this, options.request.head, loop.now());
    exchange_.attempt_ready(*this);
    channel_->request_written();
    return true;
}

// ---- the request and the response, on either kind of connection -------------------------------------------------------

char* Attempt::reserve(std::size_t size) {
    if (channel_ == nullptr) return upstream_->reserve(size);
    std::string& out = channel_->outgoing();
    reserved_at_ = out.size();
    out.resize(reserved_at_ + size);
    return out.data() + reserved_at_;
}

void Attempt::commit(std::size_t size) {
    channel_ == nullptr ? upstream_->commit(size) : channel_->outgoing().resize(reserved_at_ + size);
}

void Attempt::write_copy(std::string_view data) {
    if (channel_ == nullptr) {
        upstream_->write_copy(data);
    } else {
        channel_->outgoing().append(data);
    }
}

void Attempt::write_stable(std::string_view data) {
    if (channel_ == nullptr) {
        upstream_->write_stable(data);
    } else {
        channel_->outgoing().append(data);
    }
}

void Attempt::request_begun() {
    if (channel_ == nullptr) upstream_->request_begun();
}

void Attempt::request_finished() {
    if (channel_ == nullptr) upstream_->request_finished();
}

void Attempt::pause_response() {
    was_paused_ = true;
    channel_ == nullptr ? upstream_->pause_response() : channel_->pause(ride_);
}

void Attempt::resume_response() {
    channel_ == nullptr ? upstream_->resume_response() : channel_->resume(ride_);
}

std::size_t Attempt::request_room() const {
    return channel_ == nullptr ? upstream_->read_limit_for_sink() : uv::TcpStream::kRead;
}

// ---- its end ----------------------------------------------------------------------------------------------------------

void Attempt::end(Counter* outcome, bool failed) {
    upstream_ = nullptr;
    channel_ = nullptr;
    uv::Loop& loop = exchange_.worker_.loop();
    loop.cancel(*this);
    loop.answer_ended();
    outcome->add();
    if (good_head_ && !failed) cluster_->judge_success(*endpoint_);
    cluster_->end(*endpoint_, failed ? Duration(-1) : latency_, loop.now(), failed);
}

void Attempt::request_sent() {
    if (could_ride_) sent_at_ = exchange_.worker_.loop().now();
    if (per_try_timeout_ != Duration(0) && active())
        exchange_.worker_.loop().schedule(*this, per_try_timeout_);
}

void Attempt::succeeded() {
    if (could_ride_ && !was_paused_)
        cluster_->answered_alone(*endpoint_, cls_, exchange_.worker_.loop().now() - sent_at_);
    end(cluster_->cells().success, false);
}

void Attempt::give_up(Counter* outcome, bool failed) {
    PooledConnection* upstream = upstream_;
    UpstreamChannel* channel = channel_;
    end(outcome, failed);
    upstream != nullptr ? upstream->abandon() : channel->leave(ride_);
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
    if (failure.returned) {  // one connection's end, not a verdict on each of those who rode on it
        end(channel_->cells.returned, false);
        exchange_.attempt_failed(*this, failure);
        return;
    }
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
