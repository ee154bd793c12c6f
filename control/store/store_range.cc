// Reading at a revision.
#include <algorithm>

#include "control/store/store.h"
#include "control/store/transaction.h"

namespace outrider::store {
namespace {

bool pruned(const RangeRequest& request, const Record::Fields& kv) {
    const auto below = [](Revision have, Revision min) { return min.value != 0 && have < min; };
    const auto above = [](Revision have, Revision max) { return max.value != 0 && have > max; };
    return below(kv.mod, request.min_mod_revision) || above(kv.mod, request.max_mod_revision) ||
           below(kv.create, request.min_create_revision) || above(kv.create, request.max_create_revision);
}

bool less(RangeRequest::Target target, const Record* left, const Record* right) {
    const Record::Fields a = left->fields();
    const Record::Fields b = right->fields();
    switch (target) {
        case RangeRequest::Target::kKey:
            return a.key < b.key;
        case RangeRequest::Target::kVersion:
            return a.version < b.version;
        case RangeRequest::Target::kCreate:
            return a.create < b.create;
        case RangeRequest::Target::kMod:
            return a.mod < b.mod;
        case RangeRequest::Target::kValue:
            return a.value < b.value;
    }
    return false;
}

void sort(const RangeRequest& request, std::vector<const Record*>& found) {
    const bool descend = request.order == RangeRequest::Order::kDescend;
    if (request.target == RangeRequest::Target::kKey) {  // they come in this order
        if (descend) std::reverse(found.begin(), found.end());
        return;
    }
    std::stable_sort(found.begin(), found.end(), [&](const Record* a, const Record* b) {
        return descend ? less(request.target, b, a) : less(request.target, a, b);
    });
}

}  // namespace

Status Store::check(const RangeRequest& request, const Limits& limits) {
    if (request.range.key.empty()) return Status::kEmptyKey;
    // One byte more: what comes behind the largest key begins at that key and a zero.
    const std::size_t most = limits.key_bytes_max + 1;
    const bool large = request.range.key.size() > most || request.range.end.size() > most;
    return large ? Status::kRequestTooLarge : Status::kOk;
}

Store::RangeResult Store::range(const RangeRequest& request, const Limits& limits) const {
    if (const Status status = check(request, limits); status != Status::kOk) return {status, {}};
    if (request.revision.value > 0) {
        if (request.revision > revision_) return {Status::kFutureRevision, {}};
        if (request.revision < compacted_) return {Status::kCompacted, {}};
    }
    return range_at(request, limits);
}

Store::Found Store::find(const RangeRequest& request, const Planned* planned) const {
    const Revision revision = request.revision.value > 0 ? request.revision : revision_;
    const bool prunes = request.min_mod_revision.value != 0 || request.max_mod_revision.value != 0 ||
                        request.min_create_revision.value != 0 || request.max_create_revision.value != 0;
    const std::size_t limit = request.limit > 0 ? static_cast<std::size_t>(request.limit) : SIZE_MAX;
    // One more than the limit tells that there are more. Sorting and pruning need all.
    const bool needs_all = prunes || request.order != RangeRequest::Order::kNone || limit == SIZE_MAX;
    const std::size_t wanted = request.count_only ? 0 : needs_all ? SIZE_MAX : limit + 1;

    Found result;
    std::vector<const Record*>& found = result.records;
    for (auto at = index_.lower_bound(request.range.key); at.valid(); at.next()) {
        if (!request.range.contains(at.record()->key())) break;
        const Record* record = at_revision(at.record(), revision);
        if (record == nullptr || record->tombstone()) continue;
        if (planned != nullptr && planned->touches(record->key())) continue;
        ++result.count;
        if (found.size() >= wanted) continue;
        if (prunes && pruned(request, record->fields())) continue;
        found.push_back(record);
    }
    if (request.order != RangeRequest::Order::kNone || request.target != RangeRequest::Target::kKey) {
        sort(request, found);
    }
    if (found.size() > limit) {
        found.resize(limit);
        result.more = true;
    }
    return result;
}

Store::RangeResult Store::range_at(const RangeRequest& request, const Limits& limits) const {
    const Found found = find(request, nullptr);
    RangeResult result;
    result.response.count = found.count;
    result.response.more = found.more;
    std::size_t bytes = 0;
    result.response.kvs.reserve(found.records.size());
    for (const Record* record : found.records) {
        const Record::Fields f = record->fields();
        bytes += f.key.size() + (request.keys_only ? 0 : f.value.size());
        if (bytes > limits.response_bytes_max) return {Status::kResponseTooLarge, {}};
        KeyValue& kv = result.response.kvs.emplace_back();
        kv = {std::string(f.key), f.create, f.mod, f.version, {}, f.lease};
        if (!request.keys_only) kv.value = f.value;
    }
    return result;
}

}  // namespace outrider::store
