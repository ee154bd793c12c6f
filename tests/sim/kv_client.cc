#include "tests/sim/kv_client.h"

#include <algorithm>
#include <utility>

#include "tests/sim/history.h"
#include "tests/sim/key_space.h"

namespace outrider::sim {
using namespace std::chrono_literals;

namespace {

// Set afterwards: g++ 12 takes a moved temporary's other alternatives for uninitialized memory.
template <typename Request>
void add(std::vector<store::Op>& ops, Request request) {
    ops.emplace_back().request = std::move(request);
}

}  // namespace

void KvClient::begin(std::uint32_t id) {
    id_ = id;
    space_.wake_at(id, space_.now() + space_.cluster().between(0s, space_.profile().think_max));
}

void KvClient::turn(std::uint64_t) {
    if (!space_.harming()) return;
    floor_ = space_.chronicle().known();
    space_.call(id_, draw());
}

void KvClient::answered(const Request& request, const Answer& answer) {
    if (request.kind == Request::Kind::kWrite)
        check_write(space_, request, answer, floor_);
    else
        check_read(space_, request, answer, floor_);
    space_.wake_at(id_, space_.now() + space_.cluster().between(0s, space_.profile().think_max));
}

Request KvClient::draw() {
    Random& random = space_.random();
    if (random.below(100) < space_.profile().read_percent) return draw_read();
    Request request;
    auto& command = request.command.request;
    if (random.below(1000) < space_.profile().compact_per_mille) {
        command = draw_compaction();
        return request;
    }
    switch (random.below(8)) {
        case 0:
            command = store::DeleteRequest{{key(random.below(kKeys)), {}}, space_.one_in(2)};
            break;
        case 1:
            command = store::DeleteRequest{draw_range(), space_.one_in(2)};
            break;
        case 2:
        case 3:
            command = draw_swap();
            break;
        case 4:
            command = draw_batch();
            break;
        default:
            command = draw_put();
    }
    return request;
}

Request KvClient::draw_read() {
    Request request;
    request.kind = space_.one_in(3) ? Request::Kind::kStaleRead : Request::Kind::kRead;
    request.range.range = draw_range();
    request.range.keys_only = space_.one_in(4);
    if (space_.one_in(4)) request.range.limit = static_cast<std::int64_t>(1 + space_.random().below(3));
    if (space_.one_in(3)) {
        // Not before the compaction by much.
        const std::int64_t low = std::max<std::int64_t>(1, space_.chronicle().compacted().value - 2);
        const std::int64_t span = space_.chronicle().known().value - low + 1;
        if (span > 0) {
            request.range.revision = {
                low + static_cast<std::int64_t>(space_.random().below(static_cast<std::uint64_t>(span)))};
        }
    }
    return request;
}

store::KeyRange KvClient::draw_range() {
    Random& random = space_.random();
    switch (random.below(4)) {
        case 0:
            return prefix();
        case 1:
            return {key(random.below(3)), key(3 + random.below(3))};
        default:
            return {key(random.below(kKeys)), {}};
    }
}

std::string KvClient::value() {
    std::string text = std::to_string(id_) + "." + std::to_string(++values_);
    text.resize(
        text.size() + static_cast<std::size_t>(space_.random().below(space_.profile().value_bytes + 1)), '.');
    return text;
}

store::PutRequest KvClient::draw_put() {
    store::PutRequest put;
    put.key = key(space_.random().below(kKeys));
    put.value = value();
    put.prev_kv = space_.one_in(2);
    return put;
}

// Compare and swap, from the newest version that anybody knows of.
store::TxnRequest KvClient::draw_swap() {
    store::TxnRequest txn;
    store::PutRequest put = draw_put();
    const store::KeyValue* now = space_.chronicle().at(put.key, space_.chronicle().known());
    store::Compare compare;
    compare.range = {put.key, {}};
    compare.target = store::Compare::Target::kMod;
    compare.number = now == nullptr ? 0 : now->mod_revision.value;
    txn.compare.push_back(std::move(compare));
    store::RangeRequest range;
    range.range = {put.key, {}};
    add(txn.failure, std::move(range));
    add(txn.success, std::move(put));
    return txn;
}

// Several changes in one revision, and a look at them.
store::TxnRequest KvClient::draw_batch() {
    store::TxnRequest txn;
    const std::uint64_t first = space_.random().below(kKeys);
    const std::uint64_t count = 2 + space_.random().below(3);
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::string name = key((first + i) % kKeys);
        if (space_.one_in(4)) {
            add(txn.success, store::DeleteRequest{{name, {}}, false});
        } else {
            store::PutRequest put = draw_put();
            put.key = name;
            add(txn.success, std::move(put));
        }
    }
    store::RangeRequest range;
    range.range = prefix();
    add(txn.success, std::move(range));
    return txn;
}

store::CompactRequest KvClient::draw_compaction() {
    const std::int64_t known = space_.chronicle().known().value;
    const std::int64_t low = space_.chronicle().compacted().value;
    // Mostly near the newest: there watchers are.
    const auto back = static_cast<std::int64_t>(space_.random().below(space_.one_in(2) ? 3 : 30));
    return {{std::clamp(known - back, std::min(low + 1, known), known)}};
}

}  // namespace outrider::sim
