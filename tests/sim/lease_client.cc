#include "tests/sim/lease_client.h"

#include <utility>

#include "control/store/bugs.h"
#include "tests/sim/history.h"
#include "tests/sim/key_space.h"

namespace outrider::sim {
using namespace std::chrono_literals;
namespace {

constexpr std::int64_t kTtlSeconds = 2;

}  // namespace

void LeaseClient::begin(std::uint32_t id) {
    id_ = id;
    constexpr double kExtremes[] = {-1, 1, 0};
    rate_ = 1 + space_.profile().clock_rate_error * kExtremes[space_.random().below(3)];
    own_id_ = space_.one_in(2);
    if (space_.profile().holders_at_home)
        home_ = 1 + static_cast<std::uint32_t>(space_.random().below(space_.profile().founders));
    if (space_.profile().home_silence > Duration{})
        home_ = 1 + id % static_cast<std::uint32_t>(space_.profile().founders);
    again(0s, 1s);
}

void LeaseClient::again(Duration low, Duration high) {
    space_.wake_at(id_, space_.now() + space_.cluster().between(low, high));
}

bool LeaseClient::holds() const {
    return owns_ && valid_until_ > space_.now();
}

// The last moment in true time at which it counts on the lease.
void LeaseClient::extend(Instant asked, std::int64_t ttl_seconds) {
    const double u = space_.profile().options.clock_uncertainty;
    const Instant from = store::bug(store::Bug::kHolderCountsFromAnswer) ? space_.now() : asked;
    const double seconds = static_cast<double>(ttl_seconds) * (1 - u) / (1 + u) / rate_;
    valid_until_ = from + Duration(static_cast<std::int64_t>(seconds * 1e9));
}

void LeaseClient::turn(std::uint64_t) {
    if (space_.calling(id_)) return;
    if (!space_.harming()) return drop();
    floor_ = space_.chronicle().known();
    if (lease_.value != 0 && valid_until_ <= space_.now()) {
        if (space_.one_in(4)) return revoke();
        drop();
    }
    if (lease_.value == 0) return grant();
    const std::uint64_t dice = space_.random().below(20);
    if (dice == 0) return revoke();
    if (dice == 1) {  // it is gone, and comes back as another
        drop();
        return again(0s, 4s);
    }
    if (!owns_ && dice < 12) return acquire();
    if (dice == 19) return read();
    keep_alive();
}

void LeaseClient::grant() {
    doing_ = Doing::kGranting;
    Request request;
    request.command.request =
        store::LeaseGrantRequest{{own_id_ ? static_cast<std::int64_t>(id_) + 1 : 0}, kTtlSeconds};
    space_.call(id_, std::move(request));
}

void LeaseClient::acquire() {
    doing_ = Doing::kAcquiring;
    store::TxnRequest txn;
    store::Compare compare;
    compare.range = {kGuarded, {}};
    compare.target = store::Compare::Target::kCreate;
    txn.compare.push_back(std::move(compare));
    store::PutRequest put;
    put.key = kGuarded;
    put.value = name();
    put.lease = lease_;
    txn.success.emplace_back().request = put;
    put.key = "member/" + std::to_string(id_);
    txn.success.emplace_back().request = put;
    Request request;
    request.command.request = std::move(txn);
    space_.call(id_, std::move(request));
}

void LeaseClient::keep_alive() {
    doing_ = Doing::kKeepingAlive;
    Request request;
    request.kind = Request::Kind::kKeepAlive;
    request.lease = lease_;
    space_.call(id_, std::move(request));
}

void LeaseClient::revoke() {
    doing_ = Doing::kRevoking;
    Request request;
    request.command.request = store::LeaseRevokeRequest{lease_, false};
    drop();
    space_.call(id_, std::move(request));
}

void LeaseClient::read() {
    doing_ = Doing::kReading;
    Request request;
    request.kind = Request::Kind::kRead;
    request.range.range = {kGuarded, {}};
    space_.call(id_, std::move(request));
}

void LeaseClient::answered(const Request& request, const Answer& answer) {
    const Doing done = std::exchange(doing_, Doing::kNothing);
    if (request.kind == Request::Kind::kWrite) check_write(space_, request, answer, floor_);
    if (request.kind == Request::Kind::kRead) check_read(space_, request, answer, floor_);
    if (done == Doing::kGranting) granted(answer);
    if (done == Doing::kAcquiring) acquired(answer);
    if (done == Doing::kKeepingAlive) {
        if (answer.ttl)
            extend(answer.asked, *answer.ttl);
        else
            drop();
    }
    // One that asks its sidecar has been seen to be late.
    const Duration silence = space_.profile().home_silence;
    if (silence > Duration{} && lease_.value != 0) {
        // It holds as soon as it can, and is silent only when nothing but the lease is to be kept.
        return done == Doing::kKeepingAlive ? again(silence, 1900ms) : again(10ms, 300ms);
    }
    again(10ms, lease_.value == 0 ? 300ms : home_ != 0 ? 1900ms : 700ms);
}

void LeaseClient::granted(const Answer& answer) {
    const auto* granted = std::get_if<store::LeaseGrantResponse>(&answer.response.body);
    // Its last one is still there: it waits for its end, or sees to it.
    if (answer.status == store::Status::kLeaseExists && space_.one_in(3))
        lease_ = {static_cast<std::int64_t>(id_) + 1};
    if (answer.status != store::Status::kOk || granted == nullptr) return;
    lease_ = granted->id;
    extend(answer.asked, granted->ttl_seconds);
}

void LeaseClient::acquired(const Answer& answer) {
    const auto* txn = std::get_if<store::TxnResponse>(&answer.response.body);
    if (answer.status == store::Status::kLeaseNotFound) drop();
    if (answer.status != store::Status::kOk || txn == nullptr || !txn->succeeded) return;
    owns_ = true;
    if (space_.cluster().tracing() && holds()) space_.cluster().note(0, name() + " holds");
}

}  // namespace outrider::sim
