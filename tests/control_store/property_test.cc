// Random commands against a model so simple that it is right: every state that ever was, kept whole.
//
// At every step the store's answers, its watchers' events and its snapshots must be what the model says. A failing seed
// is printed and replays exactly.
#include <deque>
#include <map>

#include <gtest/gtest.h>

#include "base/random.h"
#include "control/store/watch_hub.h"
#include "tests/control_store/commands.h"

namespace outrider::store::test {
namespace {

using State = std::map<std::string, KeyValue>;

struct Change {
    std::int64_t revision;
    std::string key;
    bool deleted;
    std::string value;
    friend bool operator==(const Change&, const Change&) = default;
};

struct Model {
    std::map<std::int64_t, State> states{{1, {}}};  // by revision
    std::vector<Change> changes;
    std::map<std::int64_t, std::int64_t> leases;
    std::int64_t revision = 1;
    std::int64_t compacted = 0;

    State& now() { return states[revision]; }

    // The state that changes at the next revision.
    State begin() { return now(); }
    void commit(State next, const std::vector<Change>& made) {
        if (made.empty()) return;
        states[++revision] = std::move(next);
        changes.insert(changes.end(), made.begin(), made.end());
    }
    void put(State& s, const PutRequest& p, std::vector<Change>& made) const {
        auto [it, fresh] = s.try_emplace(p.key, KeyValue{p.key, {revision + 1}, {}, 0, {}, {}});
        KeyValue& kv = it->second;
        kv.mod_revision = {revision + 1};
        ++kv.version;
        if (!p.ignore_value) kv.value = p.value;
        if (!p.ignore_lease) kv.lease = p.lease;
        made.push_back({revision + 1, p.key, false, kv.value});
    }
    std::int64_t erase(State& s, const KeyRange& range, std::vector<Change>& made) const {
        std::int64_t deleted = 0;
        for (auto it = s.begin(); it != s.end();) {
            if (!range.contains(it->first)) {
                ++it;
                continue;
            }
            made.push_back({revision + 1, it->first, true, {}});
            it = s.erase(it);
            ++deleted;
        }
        return deleted;
    }
};

class Property : public ::testing::TestWithParam<std::uint64_t> {
  protected:
    // Few keys, some with common beginnings, so that commands meet.
    std::string key() {
        std::string k(1, static_cast<char>('a' + random.below(4)));
        if (random.below(2) != 0) k += std::to_string(random.below(many ? 500 : 6));
        return k;
    }
    KeyRange range() {
        KeyRange r{key(), {}};
        const std::uint64_t kind = random.below(4);
        if (kind == 1) r.end = key();
        if (kind == 2) r.end = std::string(1, static_cast<char>(r.key[0] + 1));
        if (kind == 3) r.end = kAll;
        return r;
    }
    PutRequest random_put() {
        PutRequest p = put(key(), std::string(random.below(20), static_cast<char>('a' + random.below(26))));
        if (random.below(4) == 0 && !model.leases.empty()) {
            auto it = model.leases.begin();
            std::advance(it, static_cast<std::ptrdiff_t>(random.below(model.leases.size())));
            p.lease = {it->first};
        }
        return p;
    }

    void step();
    void put_one();
    void erase_some();
    void transact();
    void compact();
    void lease();
    void snapshot_and_restore();
    void walk_and_collect();
    void check_reads();
    void begin_watch();
    void take_events(std::size_t polls);
    void check_watchers_done();

    struct Watched {
        WatchRequest request;
        std::int64_t from;  // the first revision that it gets
        std::int64_t next;  // of the next change that it must get
        std::vector<Change> got;
    };

    bool many = GetParam() % 4 == 0;
    Random random{GetParam()};
    Driver apply;
    Model model;
    WatchHub::Options options{.watchers_max = 50, .batch_bytes = 40, .scan_max = 7};
    WatchHub hub{options};
    std::map<std::uint64_t, Watched> watched;
    std::unique_ptr<HashWalk> walk;  // holds up what compaction would collect
    std::uint64_t walk_digest = 0;   // that it must find
};

void Property::put_one() {
    PutRequest p = random_put();
    p.prev_kv = true;
    State next = model.begin();
    const bool exists = next.contains(p.key);
    p.ignore_value = exists && random.below(5) == 0;
    if (p.ignore_value) p.value.clear();
    const auto before = exists ? std::optional(next[p.key]) : std::nullopt;
    std::vector<Change> made;
    model.put(next, p, made);
    model.commit(std::move(next), made);
    const auto applied = apply(p);
    hub.applied(applied.events);
    ASSERT_EQ(applied.response.status, Status::kOk);
    ASSERT_EQ(std::get<PutResponse>(applied.response.body).prev_kv, before);
}

void Property::erase_some() {
    DeleteRequest d;
    d.range = random.below(3) == 0 ? range() : KeyRange{key(), {}};
    State next = model.begin();
    std::vector<Change> made;
    const std::int64_t deleted = model.erase(next, d.range, made);
    model.commit(std::move(next), made);
    const auto applied = apply(d);
    hub.applied(applied.events);
    ASSERT_EQ(std::get<DeleteResponse>(applied.response.body).deleted, deleted);
}

void Property::transact() {
    TxnRequest txn;
    Compare c;
    c.range.key = key();
    c.number = static_cast<std::int64_t>(random.below(3));
    c.result = random.below(2) != 0 ? Compare::Result::kGreater : Compare::Result::kEqual;
    txn.compare = {c};
    for (auto* list : {&txn.success, &txn.failure}) {
        for (std::uint64_t n = random.below(5); n > 0; --n) {
            Op& op = list->emplace_back();
            if (random.below(3) == 0)
                op.request = erase(key());
            else
                op.request = random_put();
        }
    }
    if (Store::check(command(txn), {}) != Status::kOk) return;
    State next = model.begin();
    const auto it = next.find(c.range.key);
    const std::int64_t version = it == next.end() ? 0 : it->second.version;
    const bool holds = c.result == Compare::Result::kEqual ? version == c.number : version > c.number;
    std::vector<Change> made;
    for (const Op& op : holds ? txn.success : txn.failure) {
        if (const auto* p = std::get_if<PutRequest>(&op.request)) model.put(next, *p, made);
        if (const auto* d = std::get_if<DeleteRequest>(&op.request)) model.erase(next, d->range, made);
    }
    model.commit(std::move(next), made);
    const auto applied = apply(txn);
    hub.applied(applied.events);
    ASSERT_EQ(std::get<TxnResponse>(applied.response.body).succeeded, holds);
    ASSERT_EQ(applied.events.size(), made.size());
}

void Property::compact() {
    const auto revision =
        static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(model.revision) + 2));
    const auto applied = apply(CompactRequest{{revision}});
    if (revision <= model.compacted) {
        ASSERT_EQ(applied.response.status, Status::kCompacted);
    } else if (revision > model.revision) {
        ASSERT_EQ(applied.response.status, Status::kFutureRevision);
    } else {
        ASSERT_EQ(applied.response.status, Status::kOk);
        model.compacted = revision;
    }
}

void Property::lease() {
    const auto id = static_cast<std::int64_t>(1 + random.below(5));
    if (!model.leases.contains(id)) {
        apply(LeaseGrantRequest{{id}, 60});
        model.leases[id] = 60;
        return;
    }
    State next = model.begin();
    std::vector<Change> made;
    std::vector<std::string> keys;
    for (const auto& [k, kv] : next) {
        if (kv.lease.value == id) keys.push_back(k);
    }
    ASSERT_EQ(apply.store->leases().keys({id}), keys);
    for (const std::string& k : keys)
        model.erase(next, {k, {}}, made);
    model.commit(std::move(next), made);
    model.leases.erase(id);
    hub.applied(apply(LeaseRevokeRequest{{id}}).events);
}

// Also with commands applied while it is being written: it must be of the moment in which it began.
void Property::snapshot_and_restore() {
    walk.reset();
    if (random.below(4) == 0) return;
    const std::uint64_t hash = apply.store->hash(apply.store->revision());
    const std::string now = snapshot(*apply.store);
    ASSERT_EQ(apply.store->hash(apply.store->revision()), hash) << "collecting shows nowhere";
    auto copy = restore(now, 1 + random.below(100));
    ASSERT_NE(copy, nullptr);
    ASSERT_EQ(snapshot(*copy), now);
    ASSERT_EQ(copy->bytes(), apply.store->bytes());
    ASSERT_EQ(copy->record_count(), apply.store->record_count());
    ASSERT_EQ(copy->hash(copy->revision()), apply.store->hash(apply.store->revision()));
    if (random.below(2) == 0) {
        apply.store = std::move(copy);
        return;
    }
    SnapshotWriter writer(*apply.store);
    std::string bytes;
    const bool read_first = random.below(2) == 0;
    if (read_first) {
        ASSERT_TRUE(writer.next(bytes));
    }
    for (int i = 0; i < 5 && !HasFatalFailure(); ++i) {
        put_one();
        erase_some();
        if (random.below(3) == 0) compact();
    }
    while (writer.next(bytes)) {
    }
    ASSERT_EQ(bytes, now);
}

// Under way while commands are applied and history is compacted; and what it held up, collected in small pieces.
void Property::walk_and_collect() {
    Store& store = *apply.store;
    if (!walk && random.below(2) == 0) {
        store.collect(random.below(5));
        return;
    }
    if (!walk) {
        const auto from = static_cast<std::uint64_t>(model.compacted);
        const Revision revision{static_cast<std::int64_t>(
            from + random.below(static_cast<std::uint64_t>(model.revision) - from + 1))};
        walk_digest = store.hash(revision);
        walk = std::make_unique<HashWalk>(store, revision);
        return;
    }
    if (walk->next(1 + random.below(4))) return;
    ASSERT_EQ(walk->digest(), walk_digest);
    walk.reset();
}

void Property::check_reads() {
    RangeRequest request;
    request.range = range();
    request.revision = {
        static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(model.revision) + 2))};
    const auto result = apply.store->range(request, {});
    if (request.revision.value > model.revision) {
        ASSERT_EQ(result.status, Status::kFutureRevision);
        return;
    }
    if (request.revision.value != 0 && request.revision.value < model.compacted) {
        ASSERT_EQ(result.status, Status::kCompacted);
        return;
    }
    const std::int64_t at = request.revision.value == 0 ? model.revision : request.revision.value;
    std::vector<KeyValue> expected;
    for (const auto& [k, kv] : model.states.at(at)) {
        if (request.range.contains(k)) expected.push_back(kv);
    }
    ASSERT_EQ(result.response.kvs, expected);
    ASSERT_EQ(result.response.count, static_cast<std::int64_t>(expected.size()));
}

void Property::begin_watch() {
    WatchRequest request;
    request.range = range();
    if (request.empty()) return;
    request.start = {static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(model.revision) + 3))};
    request.no_put = random.below(6) == 0;
    request.no_delete = random.below(6) == 0;
    request.fragment = random.below(2) == 0;
    const std::int64_t next = request.start.value == 0 ? model.revision + 1 : request.start.value;
    if (const auto id = hub.add(*apply.store, request)) watched[id->value] = {request, next, next, {}};
}

void Property::take_events(std::size_t polls) {
    for (; polls > 0; --polls) {
        const auto id = hub.next_ready();
        if (!id) return;
        const WatchBatch batch = hub.poll(*apply.store, *id);
        Watched& w = watched.at(id->value);
        if (batch.kind == WatchBatch::Kind::kCancelled) {
            ASSERT_EQ(batch.compacted.value, model.compacted);
            ASSERT_LT(w.next, model.compacted) << "a watcher that is not behind must not be cancelled";
            // As a client does: it begins anew with the revision it was told; the changes in between are lost to it.
            WatchRequest again = w.request;
            again.start = batch.compacted;
            watched.erase(id->value);
            if (const auto fresh = hub.add(*apply.store, again))
                watched[fresh->value] = {again, again.start.value, again.start.value, {}};
            continue;
        }
        for (const auto& event : batch.events) {
            const Record::Fields f = event.record->fields();
            w.got.push_back({f.mod.value, std::string(f.key), f.tombstone, std::string(f.value)});
            w.next = batch.fragment ? f.mod.value : f.mod.value + 1;
        }
        ASSERT_TRUE(w.request.fragment || !batch.fragment);
    }
}

void Property::check_watchers_done() {
    take_events(SIZE_MAX);
    for (const auto& [id, w] : watched) {
        std::vector<Change> expected;
        for (const Change& c : model.changes) {
            const bool passes = c.deleted ? !w.request.no_delete : !w.request.no_put;
            if (c.revision >= w.from && passes && w.request.range.contains(c.key)) expected.push_back(c);
        }
        ASSERT_EQ(w.got, expected) << "watcher " << id;
    }
}

void Property::step() {
    const std::uint64_t what = random.below(100);
    if (what < 45)
        put_one();
    else if (what < 58)
        erase_some();
    else if (what < 72)
        transact();
    else if (what < 76)
        lease();
    else if (what < 79)
        compact();
    else if (what < 81)
        snapshot_and_restore();
    else if (what < 86)
        walk_and_collect();
    else if (what < 92)
        take_events(random.below(8));
    else
        begin_watch();
}

TEST_P(Property, TheStoreIsTheModel) {
    for (int i = 0; i < 700 && !HasFatalFailure(); ++i) {
        SCOPED_TRACE("seed " + std::to_string(GetParam()) + ", step " + std::to_string(i));
        step();
        if (HasFatalFailure()) return;
        ASSERT_EQ(apply.store->revision().value, model.revision);
        check_reads();
    }
    if (!HasFatalFailure()) check_watchers_done();
    walk.reset();
}

INSTANTIATE_TEST_SUITE_P(Seeds, Property, ::testing::Range<std::uint64_t>(1, 41));

}  // namespace
}  // namespace outrider::store::test
