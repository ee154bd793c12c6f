#include "control/store/store.h"

#include <algorithm>

#include "base/check.h"
#include "base/random.h"
#include "control/store/bugs.h"
#include "control/store/transaction.h"

namespace outrider::store {

Store::~Store() {
    require(walks_ == 0, "a store outlives the walks over it");
    for (auto at = index_.begin(); at.valid(); at.next())
        Record::destroy(cold_, at.record());  // the older ones go with their memory
}

void Store::skip(std::uint64_t index) {
    require(index > applied_index_, "entries are applied in the order of the log");
    applied_index_ = index;
}

Store::Applied Store::apply(std::uint64_t index, const Command& command) {
    skip(index);
    events_.clear();
    unix_millis_ = std::max(unix_millis_, command.unix_millis);
    sessions_.expire(unix_millis_);
    if (command.session.value == 0) return {execute(index, command), events_, false};

    switch (sessions_.judge(command.session, command.sequence)) {
        case SessionTable::Verdict::kRepeat:
            return {sessions_.repeat(command.session), {}, true};
        case SessionTable::Verdict::kStale:
            return {refuse(Status::kSessionStale), {}, true};
        case SessionTable::Verdict::kUnknown:
            return {refuse(Status::kSessionUnknown), {}, true};
        case SessionTable::Verdict::kApply:
            break;
    }
    Response response = execute(index, command);
    sessions_.remember(command.session, command.sequence, unix_millis_, response);
    return {std::move(response), events_, false};
}

Response Store::refuse(Status status) const {
    Response response;
    response.status = status;
    response.revision = revision_;
    return response;
}

Response Store::execute(std::uint64_t index, const Command& command) {
    const auto& request = command.request;
    if (const auto* put = std::get_if<PutRequest>(&request)) return execute(*put);
    if (const auto* erase = std::get_if<DeleteRequest>(&request)) return execute(*erase);
    if (const auto* txn = std::get_if<TxnRequest>(&request)) return execute(*txn);
    if (const auto* compaction = std::get_if<CompactRequest>(&request)) return execute(*compaction);
    if (const auto* grant = std::get_if<LeaseGrantRequest>(&request)) return execute(index, *grant);
    if (const auto* revoke = std::get_if<LeaseRevokeRequest>(&request)) return execute(*revoke);
    if (const auto* close = std::get_if<SessionCloseRequest>(&request)) {
        sessions_.close(close->id);
        return refuse(Status::kOk);
    }
    Response response = refuse(Status::kOk);
    response.session = {index};
    if (!sessions_.open(response.session, unix_millis_)) return refuse(Status::kSessionsFull);
    return response;
}

Response Store::execute(const PutRequest& put) {
    Transaction transaction(*this);
    if (const Status status = transaction.check(put); status != Status::kOk) return refuse(status);
    Response response;
    response.body = transaction.put(put);
    transaction.commit();
    response.revision = revision_;
    return response;
}

Response Store::execute(const DeleteRequest& request) {
    Transaction transaction(*this);
    if (const Status status = transaction.check(request); status != Status::kOk) return refuse(status);
    Response response;
    response.body = transaction.erase(request);
    transaction.commit();
    response.revision = revision_;
    return response;
}

Response Store::execute(const TxnRequest& txn) {
    Transaction transaction(*this);
    Response response = transaction.run(txn);
    transaction.commit();
    return response;
}

Response Store::execute(const CompactRequest& request) {
    if (request.revision <= compacted_) return refuse(Status::kCompacted);
    if (request.revision > revision_) return refuse(Status::kFutureRevision);
    compacted_ = request.revision;
    boundary_ = 0;
    collect(kCollectedAtOnce);
    return refuse(Status::kOk);
}

Response Store::execute(std::uint64_t index, const LeaseGrantRequest& request) {
    if (request.ttl_seconds > kLeaseTtlSecondsMax) return refuse(Status::kLeaseTtlTooLarge);
    LeaseId id = request.id;
    for (std::uint64_t draw = index; id.value == 0 || (request.id.value == 0 && leases_.contains(id)); ++draw)
        id.value = static_cast<std::int64_t>(mix64(draw + 0x9e3779b97f4a7c15ULL) >> 1);
    if (leases_.contains(id)) return refuse(Status::kLeaseExists);
    const std::int64_t ttl = std::max(request.ttl_seconds, kLeaseTtlSecondsMin);
    leases_.grant(id, ttl, index);
    bytes_ += kLeaseCharge;
    Response response = refuse(Status::kOk);
    response.body = LeaseGrantResponse{id, ttl};
    return response;
}

LeaseRevokeRequest Store::expiry(LeaseId id) const {
    const LeaseTable::Lease* lease = leases_.find(id);
    return {id, true, lease == nullptr ? 0 : lease->granted};
}

Response Store::execute(const LeaseRevokeRequest& request) {
    const LeaseTable::Lease* lease = leases_.find(request.id);
    if (lease == nullptr) return refuse(request.expired ? Status::kOk : Status::kLeaseNotFound);
    const bool another = request.granted != 0 && request.granted != lease->granted;
    if (another && !bug(Bug::kExpiryTakesNextGrant)) return refuse(Status::kOk);
    Transaction transaction(*this);
    for (const std::string& key : leases_.keys(request.id))
        transaction.erase_key(key);
    transaction.commit();
    leases_.remove(request.id);
    bytes_ -= kLeaseCharge;
    return refuse(Status::kOk);
}

bool Store::read_only(const TxnRequest& txn) {
    const auto reads = [](const Op& op) {
        if (const auto* inner = std::get_if<TxnRequest>(&op.request)) return read_only(*inner);
        return std::holds_alternative<RangeRequest>(op.request);
    };
    return std::all_of(txn.success.begin(), txn.success.end(), reads) &&
           std::all_of(txn.failure.begin(), txn.failure.end(), reads);
}

Response Store::read(const TxnRequest& txn) const {
    require(read_only(txn), "a transaction that writes goes through the log");
    Transaction transaction(const_cast<Store&>(*this));  // it has no operation that would change it
    return transaction.run(txn);
}

}  // namespace outrider::store
