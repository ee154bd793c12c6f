#include "control/agent/lease.h"

#include <algorithm>

#include "control/api/errors.h"

namespace outrider::agent {
namespace {

constexpr Duration kRenewalTimeoutMin = std::chrono::milliseconds(500);

Duration seconds(std::int64_t n) {
    return std::chrono::seconds(std::clamp<std::int64_t>(n, 0, 9'000'000'000));
}

bool is_code(int code, api::Code expected) {
    return code == static_cast<int>(expected);
}

}  // namespace

Lease::Lease(Client& client, LeaseOptions options, OnHeld on_held, OnLost on_lost)
    : client_(client),
      options_(options),
      on_held_(std::move(on_held)),
      on_lost_(std::move(on_lost)),
      backoff_(client.options().backoff) {
    choose_id();
    grant();
}

Lease::~Lease() {
    stop();
}

void Lease::stop() {
    keeper_.reset();
    for (const CallId id : std::exchange(calls_, {}))
        client_.cancel(id);
    client_.loop().cancel(*this);
}

void Lease::forget(CallId id) {
    std::erase(calls_, id);
}

void Lease::choose_id() {
    id_.value = static_cast<std::int64_t>(client_.choice().random().next() >> 1) | 1;
    exists_ = false;
}

void Lease::release(std::function<void(bool)> done) {
    stop();
    v3::LeaseRevokeRequest request;
    request.set_id(id_.value);
    client_.call(request, {.timeout = {}, .lane = Lane::kLeases},
                 [done = std::move(done)](const Reply<v3::LeaseRevokeResponse>& reply) {
                     if (done) done(reply.ok() || is_code(reply.code, api::Code::kNotFound));
                 });
}

// ---- granting ---------------------------------------------------------------------------------------------------------

void Lease::grant() {
    v3::LeaseGrantRequest request;
    request.set_ttl(options_.ttl_seconds);
    request.set_id(id_.value);
    const Instant sent = client_.loop().now();
    auto id = std::make_shared<CallId>(0);
    *id = client_.call(request, {.timeout = {}, .lane = Lane::kLeases, .repeatable = true},
                       [this, sent, id](const Reply<v3::LeaseGrantResponse>& reply) {
                           forget(*id);
                           on_granted(sent, reply);
                       });
    calls_.push_back(*id);
}

void Lease::on_granted(Instant sent, const Reply<v3::LeaseGrantResponse>& reply) {
    if (reply.ok()) {
        begin(sent, seconds(reply.body.ttl()));
        return;
    }
    if (reply.outcome == Outcome::kRefused &&
        reply.reason == api::problem_of(store::Status::kLeaseExists).text) {
        exists_ = true;
        renew();
        return;
    }
    const bool never =
        is_code(reply.code, api::Code::kInvalidArgument) || is_code(reply.code, api::Code::kOutOfRange);
    never ? lose(reply.reason) : rest(reply.reason);
}

// `sent`: of the first copy, when there were several.
void Lease::begin(Instant sent, Duration ttl) {
    keeper_.emplace(sent, ttl);
    backoff_.reset();
    if (keeper_->observe(client_.loop().now()) != LeaseKeeper::State::kHeld) {
        keeper_.reset();  // it took so long that the lease may be gone: another one
        choose_id();
        rest("the grant took longer than the lease");
        return;
    }
    arm();
    const OnHeld on_held = on_held_;  // it may destroy this
    on_held();
}

void Lease::rest(const std::string& reason) {
    last_reason_ = reason;
    client_.loop().schedule(*this, backoff_.next(client_.choice().random()));
}

// ---- keeping ----------------------------------------------------------------------------------------------------------

void Lease::renew() {
    v3::LeaseKeepAliveRequest request;
    request.set_id(id_.value);
    const Instant sent = client_.loop().now();
    CallOptions options{.timeout = {}, .lane = Lane::kLeases};
    if (keeper_) {
        keeper_->renewal_sent(sent);
        options.timeout = std::max(keeper_->ttl() / 3, kRenewalTimeoutMin);
    }
    auto id = std::make_shared<CallId>(0);
    *id = client_.call(request, options, [this, sent, id](const Reply<v3::LeaseKeepAliveResponse>& reply) {
        forget(*id);
        on_renewed(sent, reply);
    });
    calls_.push_back(*id);
}

void Lease::on_renewed(Instant sent, const Reply<v3::LeaseKeepAliveResponse>& reply) {
    const Instant now = client_.loop().now();
    const Duration ttl = seconds(reply.body.ttl());
    if (!keeper_) {  // after a grant whose answer was lost
        if (reply.ok() && ttl > Duration(0)) {
            begin(sent, ttl);
            return;
        }
        if (reply.ok()) choose_id();  // expired meanwhile
        rest(reply.reason);
        return;
    }
    if (reply.ok()) {
        keeper_->renewal_answered(sent, ttl, now);
        ++renewals_;
    } else {
        last_reason_ = reply.reason;
        keeper_->renewal_failed(now);
    }
    if (keeper_->observe(now) == LeaseKeeper::State::kGone) {
        lose("the cluster does not know the lease any more");
        return;
    }
    arm();
}

void Lease::arm() {
    client_.loop().timers().schedule(*this, keeper_->next_action());
}

void Lease::on_timeout(Instant now) {
    const uv::Loop::Event event(client_.loop());
    if (!keeper_) {
        exists_ ? renew() : grant();
        return;
    }
    if (keeper_->observe(now) != LeaseKeeper::State::kHeld) {
        lose(last_reason_.empty() ? "no renewal was answered in time"
                                  : "no renewal was answered: " + last_reason_);
        return;
    }
    if (now >= keeper_->next_renewal()) renew();
    arm();
}

void Lease::lose(const std::string& reason) {
    const OnLost on_lost = on_lost_;
    stop();
    on_lost(reason);
}

}  // namespace outrider::agent
