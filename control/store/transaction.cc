#include "control/store/transaction.h"

#include <algorithm>

namespace outrider::store {
namespace {

bool judge(Compare::Result wanted, std::strong_ordering order) {
    switch (wanted) {
        case Compare::Result::kEqual:
            return order == 0;
        case Compare::Result::kGreater:
            return order > 0;
        case Compare::Result::kLess:
            return order < 0;
        case Compare::Result::kNotEqual:
            return order != 0;
    }
    return false;
}

bool holds_for(const Compare& compare, const Record::Fields& kv) {
    std::int64_t have = 0;
    switch (compare.target) {
        case Compare::Target::kValue:
            return judge(compare.result, kv.value <=> std::string_view(compare.value));
        case Compare::Target::kVersion:
            have = kv.version;
            break;
        case Compare::Target::kCreate:
            have = kv.create.value;
            break;
        case Compare::Target::kMod:
            have = kv.mod.value;
            break;
        case Compare::Target::kLease:
            have = kv.lease.value;
            break;
    }
    return judge(compare.result, have <=> compare.number);
}

}  // namespace

bool Planned::touches(std::string_view key) const {
    return puts_.contains(key) || std::any_of(erased_.begin(), erased_.end(),
                                              [&](const KeyRange* range) { return range->contains(key); });
}

std::uint64_t Planned::put_bytes(const KeyRange& range, bool keys_only) const {
    std::uint64_t bytes = 0;
    for (auto it = puts_.lower_bound(range.key); it != puts_.end() && range.contains(it->first); ++it)
        bytes += kTxnAnswerKeyCharge + it->first.size() + (keys_only ? 0 : it->second);
    return bytes;
}

Status Transaction::check(const PutRequest& put) const {
    if (put.key.empty()) return Status::kEmptyKey;  // no key can be empty: snapshots rely on it
    if (put.ignore_value || put.ignore_lease) {
        const auto at = store_.index_.find(put.key);
        if (!at.valid() || at.record()->tombstone()) return Status::kKeyNotFound;
    }
    if (put.lease.value != 0 && !store_.leases_.contains(put.lease)) return Status::kLeaseNotFound;
    return Status::kOk;
}

Status Transaction::check(const RangeRequest& range) const {
    if (range.revision.value <= 0) return Status::kOk;
    if (range.revision > store_.revision_) return Status::kFutureRevision;
    if (range.revision < store_.compacted_) return Status::kCompacted;
    return Status::kOk;
}

Status Transaction::check(const DeleteRequest& request) {
    plan(request);
    return room();
}

void Transaction::count(const Record& record, bool keys_only) {
    const Record::Fields f = record.fields();
    answer_bytes_ += kTxnAnswerKeyCharge + f.key.size() + (keys_only ? 0 : f.value.size());
}

void Transaction::plan(const PutRequest& put) {
    const auto at = store_.index_.find(put.key);
    const Record* before = at.valid() && !at.record()->tombstone() ? at.record() : nullptr;
    if (put.prev_kv && before != nullptr) count(*before, false);
    const bool keeps = put.ignore_value && before != nullptr;
    planned_.put(put.key, keeps ? before->fields().value.size() : put.value.size());
}

// What the operations before it wrote is counted as if all of it were in the answer, and the rest as if that were not there:
// whatever the order and the limit, that is no less than what the answer will hold.
void Transaction::plan(const RangeRequest& range) {
    const bool newest = range.revision.value <= 0;
    const Store::Found found = store_.find(range, newest ? &planned_ : nullptr);
    answer_bytes_ += kTxnLookCharge * static_cast<std::uint64_t>(found.count);
    if (range.count_only) return;
    for (const Record* record : found.records) {
        count(*record, range.keys_only);
        if (room() != Status::kOk) return;
    }
    if (newest) answer_bytes_ += planned_.put_bytes(range.range, range.keys_only);
}

void Transaction::plan(const DeleteRequest& request) {
    const bool first = planned_.erase(request.range);
    if (first && !request.prev_kv) return;
    for (auto at = store_.index_.lower_bound(request.range.key); at.valid(); at.next()) {
        const Record* before = at.record();
        if (!request.range.contains(before->key()) || room() != Status::kOk) break;
        if (before->tombstone()) continue;
        if (!first) answer_bytes_ += kTxnLookCharge;
        if (request.prev_kv) count(*before, false);
    }
    if (request.prev_kv) answer_bytes_ += planned_.put_bytes(request.range, false);
}

void Transaction::write(KeyIndex::Cursor at, Record* before, Record::Fields fields) {
    fields.mod = base_ + 1;
    fields.sub = sub_++;
    Record* record = Record::make(fields, before);
    if (before != nullptr)
        at.replace(record);
    else
        store_.index_.insert(at, record);
    store_.history_.push_back(Change(record));
    store_.events_.push_back(record);
    store_.leases_.replaced(before, record);
    if (before != nullptr) record->cut(store_.settle(before));
    store_.bytes_ += record->charge();
    ++store_.records_;
}

PutResponse Transaction::put(const PutRequest& put) {
    PutResponse response;
    const auto at = store_.index_.lower_bound(put.key);
    Record* before = at.valid() && at.record()->key() == put.key ? at.record() : nullptr;
    Record::Fields fields;
    fields.key = put.key;
    fields.value = put.value;
    fields.lease = put.lease;
    fields.create = base_ + 1;
    fields.version = 1;
    if (before != nullptr && !before->tombstone()) {
        const Record::Fields old = before->fields();
        fields.create = old.create;
        fields.version = old.version + 1;
        if (put.ignore_value) fields.value = old.value;
        if (put.ignore_lease) fields.lease = old.lease;
        if (put.prev_kv) response.prev_kv = before->key_value();
    }
    write(at, before, fields);
    return response;
}

DeleteResponse Transaction::erase(const DeleteRequest& request) {
    DeleteResponse response;
    for (auto at = store_.index_.lower_bound(request.range.key); at.valid(); at.next()) {
        Record* before = at.record();
        if (!request.range.contains(before->key())) break;
        if (before->tombstone()) continue;
        ++response.deleted;
        if (request.prev_kv) response.prev_kvs.push_back(before->key_value());
        Record::Fields fields;
        fields.key = before->key();
        fields.tombstone = true;
        write(at, before, fields);
    }
    return response;
}

void Transaction::erase_key(std::string_view key) {
    erase({.range = {.key = std::string(key), .end = {}}, .prev_kv = false});
}

RangeResponse Transaction::range(const RangeRequest& request) const {
    Limits none;  // check() has counted it
    none.response_bytes_max = SIZE_MAX;
    RangeRequest unbounded = request;
    // Its own changes are above revision_, so the newest is what it sees.
    if (unbounded.revision.value <= 0) unbounded.revision = {INT64_MAX};
    return store_.range_at(unbounded, none).response;
}

bool Transaction::holds(const Compare& compare) {
    bool any = false;
    for (auto at = store_.index_.lower_bound(compare.range.key); at.valid(); at.next()) {
        const Record* record = at.record();
        if (!compare.range.contains(record->key())) break;
        if (record->tombstone()) continue;
        any = true;
        answer_bytes_ += kTxnLookCharge;
        if (room() != Status::kOk) return false;
        if (!holds_for(compare, record->fields())) return false;
    }
    if (any) return true;
    return compare.target != Compare::Target::kValue && holds_for(compare, {});
}

void Transaction::choose(const TxnRequest& txn, Path& path) {
    const bool success =
        std::all_of(txn.compare.begin(), txn.compare.end(), [this](const Compare& c) { return holds(c); });
    path.push_back(success);
    for (const Op& op : success ? txn.success : txn.failure) {
        if (const auto* inner = std::get_if<TxnRequest>(&op.request)) choose(*inner, path);
    }
}

Status Transaction::check(const TxnRequest& txn, const Path& path, std::size_t& next) {
    for (const Op& op : path[next++] ? txn.success : txn.failure) {
        if (const Status status = check(op, path, next); status != Status::kOk) return status;
    }
    return Status::kOk;
}

Status Transaction::check(const Op& op, const Path& path, std::size_t& next) {
    if (const auto* inner = std::get_if<TxnRequest>(&op.request)) return check(*inner, path, next);
    if (const auto* erase_op = std::get_if<DeleteRequest>(&op.request)) return check(*erase_op);
    if (const auto* put_op = std::get_if<PutRequest>(&op.request)) {
        if (const Status status = check(*put_op); status != Status::kOk) return status;
        plan(*put_op);
    } else if (const auto* range_op = std::get_if<RangeRequest>(&op.request)) {
        if (const Status status = check(*range_op); status != Status::kOk) return status;
        plan(*range_op);
    }
    return room();
}

OpResponse Transaction::run(const Op& op, const Path& path, std::size_t& next) {
    OpResponse response;
    if (const auto* put_op = std::get_if<PutRequest>(&op.request)) response.body = put(*put_op);
    if (const auto* erase_op = std::get_if<DeleteRequest>(&op.request)) response.body = erase(*erase_op);
    if (const auto* range_op = std::get_if<RangeRequest>(&op.request)) response.body = range(*range_op);
    response.revision = revision();
    if (const auto* inner = std::get_if<TxnRequest>(&op.request)) {
        response.body = run(*inner, path, next);
        response.revision = {};
    }
    return response;
}

TxnResponse Transaction::run(const TxnRequest& txn, const Path& path, std::size_t& next) {
    TxnResponse response;
    response.succeeded = path[next++];
    for (const Op& op : response.succeeded ? txn.success : txn.failure)
        response.responses.push_back(run(op, path, next));
    return response;
}

Response Transaction::run(const TxnRequest& txn) {
    Path path;
    choose(txn, path);
    std::size_t next = 0;
    Response response;
    response.status = room();
    if (response.status == Status::kOk) response.status = check(txn, path, next);
    if (response.status == Status::kOk) {
        next = 0;
        response.body = run(txn, path, next);
    }
    response.revision = revision();
    return response;
}

}  // namespace outrider::store
