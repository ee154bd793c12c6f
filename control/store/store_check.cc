// What is refused before a command is proposed.
#include <algorithm>
#include <set>
#include <string>

#include "control/store/store.h"

namespace outrider::store {
namespace {

Status check_request(const PutRequest& put, const Limits& limits) {
    if (put.key.empty()) return Status::kEmptyKey;
    if (put.ignore_value && !put.value.empty()) return Status::kValueProvided;
    if (put.ignore_lease && put.lease.value != 0) return Status::kLeaseProvided;
    return put.key.size() > limits.key_bytes_max ? Status::kRequestTooLarge : Status::kOk;
}

Status check_request(const DeleteRequest& request) {
    return request.range.key.empty() ? Status::kEmptyKey : Status::kOk;
}

Status check_request(const TxnRequest& txn, const Limits& limits, std::size_t ops_left,
                     std::size_t depth_left);

Status check_op(const Op& op, const Limits& limits, std::size_t ops_left, std::size_t depth_left) {
    if (const auto* put = std::get_if<PutRequest>(&op.request)) return check_request(*put, limits);
    if (const auto* range = std::get_if<RangeRequest>(&op.request)) return Store::check(*range, limits);
    if (const auto* erase = std::get_if<DeleteRequest>(&op.request)) return check_request(*erase);
    if (const auto* inner = std::get_if<TxnRequest>(&op.request)) {
        if (depth_left == 0) return Status::kTooDeep;
        return check_request(*inner, limits, ops_left, depth_left - 1);
    }
    return Status::kKeyNotFound;  // etcd's answer to an operation that is none
}

// A level's largest list counts against what the levels above left over, as in etcd.
Status check_request(const TxnRequest& txn, const Limits& limits, std::size_t ops_left,
                     std::size_t depth_left) {
    const std::size_t ops = std::max({txn.compare.size(), txn.success.size(), txn.failure.size()});
    if (ops > ops_left) return Status::kTooManyOps;
    for (const Compare& compare : txn.compare) {
        if (compare.range.key.empty()) return Status::kEmptyKey;
    }
    for (const auto* list : {&txn.success, &txn.failure}) {
        for (const Op& op : *list) {
            const Status status = check_op(op, limits, ops_left - ops, depth_left);
            if (status != Status::kOk) return status;
        }
    }
    return Status::kOk;
}

// The keys that a branch puts, and the ranges that it deletes.
struct Writes {
    std::set<std::string> puts;
    std::vector<KeyRange> deletes;

    bool deletes_key(const std::string& key) const {
        return std::any_of(deletes.begin(), deletes.end(), [&](const KeyRange& range) {
            // "\0" as an end is not taken for "without end" here: etcd does not either, and a client may rely on it.
            return range.single() ? key == range.key : key >= range.key && key < range.end;
        });
    }
    bool add_put(const std::string& key) { return !deletes_key(key) && puts.insert(key).second; }
};

bool gather(const std::vector<Op>& ops, Writes& out);

// Both branches of a transaction inside: they may put the same keys, for only one of them will run.
bool gather_inner(const TxnRequest& txn, Writes& out) {
    Writes success;
    Writes failure;
    if (!gather(txn.success, success) || !gather(txn.failure, failure)) return false;
    for (const std::string& key : success.puts) {
        if (!out.add_put(key)) return false;
    }
    for (const std::string& key : failure.puts) {
        if (out.deletes_key(key)) return false;
        if (!out.puts.insert(key).second && !success.puts.contains(key)) return false;
    }
    out.deletes.insert(out.deletes.end(), success.deletes.begin(), success.deletes.end());
    out.deletes.insert(out.deletes.end(), failure.deletes.begin(), failure.deletes.end());
    return true;
}

// False: a key would be put twice, or put and deleted, in one revision. The order (this level's deletions, what is
// inside, this level's puts) is that of etcd's checkIntervals, which decides what passes.
bool gather(const std::vector<Op>& ops, Writes& out) {
    for (const Op& op : ops) {
        if (const auto* erase = std::get_if<DeleteRequest>(&op.request)) out.deletes.push_back(erase->range);
    }
    for (const Op& op : ops) {
        const auto* inner = std::get_if<TxnRequest>(&op.request);
        if (inner != nullptr && !gather_inner(*inner, out)) return false;
    }
    return std::all_of(ops.begin(), ops.end(), [&](const Op& op) {
        const auto* put = std::get_if<PutRequest>(&op.request);
        return put == nullptr || out.add_put(put->key);
    });
}

std::size_t size_of(const TxnRequest& txn);

std::size_t size_of(const Op& op) {
    constexpr std::size_t kAround = 16;
    if (const auto* put = std::get_if<PutRequest>(&op.request))
        return kAround + put->key.size() + put->value.size();
    if (const auto* range = std::get_if<RangeRequest>(&op.request))
        return kAround + range->range.key.size() + range->range.end.size();
    if (const auto* erase = std::get_if<DeleteRequest>(&op.request))
        return kAround + erase->range.key.size() + erase->range.end.size();
    if (const auto* inner = std::get_if<TxnRequest>(&op.request)) return kAround + size_of(*inner);
    return kAround;
}

std::size_t size_of(const TxnRequest& txn) {
    std::size_t bytes = 0;
    for (const Compare& compare : txn.compare)
        bytes += compare.range.key.size() + compare.range.end.size() + compare.value.size();
    for (const auto* list : {&txn.success, &txn.failure}) {
        for (const Op& op : *list)
            bytes += size_of(op);
    }
    return bytes;
}

std::size_t size_of(const Command& command) {
    if (const auto* put = std::get_if<PutRequest>(&command.request))
        return put->key.size() + put->value.size();
    if (const auto* txn = std::get_if<TxnRequest>(&command.request)) return size_of(*txn);
    if (const auto* erase = std::get_if<DeleteRequest>(&command.request))
        return erase->range.key.size() + erase->range.end.size();
    return 0;
}

bool writes(const TxnRequest& txn) {
    const auto puts = [](const Op& op) {
        if (const auto* inner = std::get_if<TxnRequest>(&op.request)) return writes(*inner);
        return std::holds_alternative<PutRequest>(op.request);
    };
    return std::any_of(txn.success.begin(), txn.success.end(), puts) ||
           std::any_of(txn.failure.begin(), txn.failure.end(), puts);
}

}  // namespace

Status Store::check(const Command& command, const Limits& limits) {
    if (size_of(command) > limits.request_bytes_max) return Status::kRequestTooLarge;
    if (const auto* put = std::get_if<PutRequest>(&command.request)) return check_request(*put, limits);
    if (const auto* erase = std::get_if<DeleteRequest>(&command.request)) return check_request(*erase);
    if (const auto* grant = std::get_if<LeaseGrantRequest>(&command.request))
        return grant->ttl_seconds > kLeaseTtlSecondsMax ? Status::kLeaseTtlTooLarge : Status::kOk;
    const auto* txn = std::get_if<TxnRequest>(&command.request);
    if (txn == nullptr) return Status::kOk;
    const Status status = check_request(*txn, limits, limits.txn_ops_max, limits.txn_depth_max);
    if (status != Status::kOk) return status;
    for (const auto* list : {&txn->success, &txn->failure}) {
        Writes branch;
        if (!gather(*list, branch)) return Status::kDuplicateKey;
    }
    return Status::kOk;
}

Status Store::admit(const Command& command, const Limits& limits) const {
    if (const Status status = check(command, limits); status != Status::kOk) return status;
    if (bytes_ < limits.store_bytes_max) return Status::kOk;
    const auto* txn = std::get_if<TxnRequest>(&command.request);
    const bool grows = std::holds_alternative<PutRequest>(command.request) ||
                       std::holds_alternative<LeaseGrantRequest>(command.request) ||
                       std::holds_alternative<SessionOpenRequest>(command.request) ||
                       (txn != nullptr && writes(*txn));
    return grows ? Status::kNoSpace : Status::kOk;
}

}  // namespace outrider::store
