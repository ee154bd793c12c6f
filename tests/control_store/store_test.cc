#include "control/store/store.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "tests/control_store/commands.h"

namespace outrider::store::test {
namespace {

Status status_of(const Store::Applied& applied) {
    return applied.response.status;
}

std::string only_value(const Store& store, const RangeRequest& request) {
    const auto result = store.range(request, {});
    if (result.status != Status::kOk || result.response.kvs.size() != 1) return "?";
    return result.response.kvs[0].value;
}

TEST(Store, CountsVersionsOfAKeyUntilItIsDeleted) {
    Driver apply;
    EXPECT_EQ(apply.store->revision().value, 1);
    apply(put("a", "1"));
    const auto second = apply(put("a", "2"));
    EXPECT_EQ(second.response.revision.value, 3);
    const KeyValue kv = apply.store->range(get("a"), {}).response.kvs.at(0);
    EXPECT_EQ(kv, (KeyValue{"a", {2}, {3}, 2, "2", {}}));
    EXPECT_EQ(only_value(*apply.store, get("a", {}, 2)), "1");
    apply(erase("a"));
    EXPECT_EQ(apply(erase("a")).response.revision.value, 4) << "a deletion of nothing takes no revision";
    apply(put("a", "3"));
    EXPECT_EQ(apply.store->range(get("a"), {}).response.kvs.at(0), (KeyValue{"a", {5}, {5}, 1, "3", {}}));
}

TEST(Store, PutAnswersThePreviousAndKeepsWhatItIsToldToKeep) {
    Driver apply;
    apply(LeaseGrantRequest{{7}, 60});
    apply(put("a", "1", 7));
    PutRequest again = put("a", "");
    again.ignore_value = again.prev_kv = true;
    const auto applied = apply(again);
    EXPECT_EQ(std::get<PutResponse>(applied.response.body).prev_kv->lease.value, 7);
    EXPECT_EQ(apply.store->range(get("a"), {}).response.kvs.at(0), (KeyValue{"a", {2}, {3}, 2, "1", {}}));
    EXPECT_TRUE(apply.store->leases().keys({7}).empty()) << "a put without a lease detaches the key";
    again.key = "b";
    EXPECT_EQ(status_of(apply(again)), Status::kKeyNotFound);
    EXPECT_EQ(status_of(apply(put("b", "", 8))), Status::kLeaseNotFound);
    EXPECT_EQ(apply.store->revision().value, 3);
}

TEST(Store, ARangeIsOneKeyOrAnIntervalOrOpen) {
    Driver apply;
    for (const char* key : {"a", "b", "ba", "c"})
        apply(put(key, key));
    const auto count = [&](const char* key, std::string end) {
        return apply.store->range(get(key, std::move(end)), {}).response.count;
    };
    EXPECT_EQ(count("b", ""), 1);
    EXPECT_EQ(count("b", "c"), 2);
    EXPECT_EQ(count("b", kAll), 3);
    EXPECT_EQ(count("c", "b"), 0);
    EXPECT_EQ(apply.store->range(get("", kAll), {}).status, Status::kEmptyKey);
}

TEST(Store, ARangeIsCutSortedAndPruned) {
    Driver apply;
    for (const char* key : {"a", "b", "c"})
        apply(put(key, std::string(1, static_cast<char>('z' - key[0] + 'a'))));
    RangeRequest request = get(kAll, kAll);
    request.limit = 2;
    auto result = apply.store->range(request, {}).response;
    EXPECT_EQ(result.count, 3);
    EXPECT_TRUE(result.more);
    EXPECT_EQ(result.kvs.size(), 2U);
    request.order = RangeRequest::Order::kDescend;
    EXPECT_EQ(apply.store->range(request, {}).response.kvs.at(0).key, "c");
    request.target = RangeRequest::Target::kValue;
    EXPECT_EQ(apply.store->range(request, {}).response.kvs.at(0).key, "a");
    request.min_mod_revision = {3};
    request.max_create_revision = {3};
    result = apply.store->range(request, {}).response;
    EXPECT_EQ(result.kvs.size(), 1U);
    EXPECT_EQ(result.count, 3) << "pruning does not change the count";
    EXPECT_FALSE(result.more);
}

TEST(Store, ARangeBeyondItsBoundIsRefused) {
    Driver apply;
    apply(put("a", std::string(100, 'x')));
    Limits limits;
    limits.response_bytes_max = 100;
    EXPECT_EQ(apply.store->range(get("a"), limits).status, Status::kResponseTooLarge);
    limits.response_bytes_max = 101;
    EXPECT_EQ(apply.store->range(get("a"), limits).status, Status::kOk);
}

// A mebibyte a value, so that the bound is met after a few dozen.
TxnRequest reads_of(const RangeRequest& range, int times) {
    TxnRequest txn;
    txn.success.push_back({put("new", "1")});
    for (int i = 0; i < times; ++i)
        txn.success.push_back({range});
    return txn;
}

TEST(Store, ATransactionWhoseAnswerIsTooLargeIsRefusedWhole) {
    Driver apply;
    apply(put("a", std::string(std::size_t{1} << 20, 'x')));
    EXPECT_EQ(status_of(apply(reads_of(get("a"), 63))), Status::kOk);
    const Revision before = apply.store->revision();
    EXPECT_EQ(status_of(apply(reads_of(get("a"), 64))), Status::kResponseTooLarge);
    EXPECT_EQ(apply.store->revision(), before);
    TxnRequest outer;
    outer.success = {{reads_of(get("a"), 32)}, {reads_of(get("a"), 32)}};
    outer.success[1] = {TxnRequest{{}, std::vector<Op>(32, Op{get("a")}), {}}};
    EXPECT_EQ(status_of(apply(outer)), Status::kResponseTooLarge) << "those inside count too";
    TxnRequest reads{{}, std::vector<Op>(64, Op{get("a")}), {}};
    EXPECT_EQ(apply.store->read(reads).status, Status::kResponseTooLarge);
    RangeRequest keys = get("a");
    keys.keys_only = true;
    EXPECT_EQ(status_of(apply(reads_of(keys, 100))), Status::kOk);
}

// A transaction runs in one go, on every member at once.
TEST(StoreAtScale, WhatATransactionLooksAtIsBounded) {
    Driver apply;
    constexpr int kKeys = 100'000;
    for (int i = 0; i < kKeys; ++i)
        apply(put("k" + std::to_string(i), "v"));
    const Revision before = apply.store->revision();
    RangeRequest all = get(kAll, kAll);
    all.count_only = true;
    EXPECT_EQ(status_of(apply(reads_of(all, 80))), Status::kOk);
    EXPECT_EQ(status_of(apply(reads_of(all, 84))), Status::kResponseTooLarge);
    Compare any;
    any.range = {kAll, kAll};
    any.result = Compare::Result::kGreater;
    TxnRequest compares{std::vector<Compare>(80, any), {{put("x", "y")}}, {}};
    EXPECT_EQ(status_of(apply(compares)), Status::kOk);
    compares.compare.resize(84, any);
    EXPECT_EQ(status_of(apply(compares)), Status::kResponseTooLarge);
    EXPECT_EQ(apply.store->revision(), before + 2);
    TxnRequest erases{{}, std::vector<Op>(86, Op{erase(kAll, kAll)}), {}};
    EXPECT_EQ(status_of(apply(erases)), Status::kResponseTooLarge);
    erases.success.resize(80, Op{erase(kAll, kAll)});
    EXPECT_EQ(status_of(apply(erases)), Status::kOk);
    EXPECT_EQ(apply.store->range(get(kAll, kAll), {}).response.count, 0);
}

TEST(Store, ATransactionsAnswerIsCountedWithWhatItWritesItself) {
    Driver apply;
    for (const char* key : {"a", "b"})
        apply(put(key, std::string(std::size_t{1} << 20, 'x')));
    apply(put("small", "1"));
    RangeRequest first = get(kAll, kAll);
    first.limit = 1;
    TxnRequest txn{{}, {{erase("a")}}, {}};
    txn.success.insert(txn.success.end(), 64, Op{first});
    EXPECT_EQ(status_of(apply(txn)), Status::kResponseTooLarge) << "the limit leaves b, once a is gone";
    txn.success[0] = {erase("a", "c")};
    EXPECT_EQ(status_of(apply(txn)), Status::kOk) << "what is deleted is not counted";
    txn.success[0] = {put("a", std::string(std::size_t{1} << 20, 'y'))};
    EXPECT_EQ(status_of(apply(txn)), Status::kResponseTooLarge) << "what is put is";
    EXPECT_EQ(apply.store->range(get("a"), {}).response.count, 0);
}

TEST(Store, ADeletionWhosePreviousValuesAreTooManyIsRefused) {
    Driver apply;
    for (int i = 0; i < 64; ++i)
        apply(put("k" + std::to_string(i), std::string(std::size_t{1} << 20, 'x')));
    DeleteRequest all = erase(kAll, kAll);
    all.prev_kv = true;
    EXPECT_EQ(status_of(apply(all)), Status::kResponseTooLarge);
    EXPECT_EQ(status_of(apply(TxnRequest{{}, {{all}}, {}})), Status::kResponseTooLarge);
    RangeRequest count = get(kAll, kAll);
    count.count_only = true;
    EXPECT_EQ(apply.store->range(count, {}).response.count, 64);
    apply(erase("k0"));
    EXPECT_EQ(status_of(apply(all)), Status::kOk);
    EXPECT_EQ(apply.store->range(count, {}).response.count, 0);
}

TEST(Store, ATransactionHasOneRevisionAndSeesItsOwnWrites) {
    Driver apply;
    TxnRequest txn;
    txn.success = {{put("a", "1")}, {get("a")}, {erase("b")}, {put("c", "2")}};
    const auto applied = apply(txn);
    EXPECT_EQ(applied.response.revision.value, 2);
    ASSERT_EQ(applied.events.size(), 2U);
    EXPECT_EQ(applied.events[1]->mod().value, 2);
    EXPECT_EQ(applied.events[1]->fields().sub, 1U);
    const auto& responses = std::get<TxnResponse>(applied.response.body).responses;
    EXPECT_EQ(std::get<RangeResponse>(responses.at(1).body).kvs.at(0).value, "1");
}

TEST(Store, ATransactionIsAllOrNothing) {
    Driver apply;
    TxnRequest txn;
    txn.success = {{put("a", "1")}, {put("b", "1", 99)}};
    EXPECT_EQ(status_of(apply(txn)), Status::kLeaseNotFound);
    txn.success = {{put("a", "1")}, {get("a", {}, 9)}};
    EXPECT_EQ(status_of(apply(txn)), Status::kFutureRevision);
    EXPECT_EQ(apply.store->revision().value, 1);
    EXPECT_EQ(apply.store->key_count(), 0U);
}

TEST(Store, ComparisonsInsideSeeTheStateBefore) {
    Driver apply;
    Compare absent;
    absent.range.key = "a";
    TxnRequest inner;
    inner.compare = {absent};  // version == 0
    inner.success = {{put("b", "yes")}};
    inner.failure = {{put("b", "no")}};
    TxnRequest outer;
    outer.success = {{put("a", "1")}, {inner}};
    apply(outer);
    EXPECT_EQ(only_value(*apply.store, get("b")), "yes");
    EXPECT_EQ(apply.store->revision().value, 2);
}

TEST(Store, ComparesEachTargetInEachWay) {
    Driver apply;
    apply(LeaseGrantRequest{{7}, 60});
    apply(put("a", "m", 7));
    apply(put("a", "m", 7));  // create 2, mod 3, version 2
    struct Row {
        Compare::Target target;
        std::int64_t number;
        const char* value;
    };
    using Result = Compare::Result;
    for (const Row& row : {Row{Compare::Target::kVersion, 2, ""}, Row{Compare::Target::kCreate, 2, ""},
                           Row{Compare::Target::kMod, 3, ""}, Row{Compare::Target::kLease, 7, ""},
                           Row{Compare::Target::kValue, 0, "m"}}) {
        const auto holds = [&](Result result, std::int64_t shift) {
            Compare c;
            c.range.key = "a";
            c.target = row.target;
            c.result = result;
            c.number = row.number + shift;
            if (*row.value != 0) c.value = std::string(1, static_cast<char>(row.value[0] + shift));
            TxnRequest txn;
            txn.compare = {c};
            return std::get<TxnResponse>(apply.store->read(txn).body).succeeded;
        };
        EXPECT_TRUE(holds(Result::kEqual, 0));
        EXPECT_FALSE(holds(Result::kEqual, 1));
        EXPECT_TRUE(holds(Result::kNotEqual, 1));
        EXPECT_FALSE(holds(Result::kNotEqual, 0));
        EXPECT_TRUE(holds(Result::kGreater, -1));
        EXPECT_FALSE(holds(Result::kGreater, 0));
        EXPECT_TRUE(holds(Result::kLess, 1));
        EXPECT_FALSE(holds(Result::kLess, 0));
    }
}

TEST(Store, ARangeComparesEveryKeyAndAbsenceAsZeros) {
    Driver apply;
    apply(put("a", "1"));
    apply(put("b", "2"));
    Compare c;
    c.range = {"a", "c"};
    c.target = Compare::Target::kVersion;
    c.number = 1;
    TxnRequest txn;
    txn.compare = {c};
    const auto succeeded = [&] { return std::get<TxnResponse>(apply.store->read(txn).body).succeeded; };
    EXPECT_TRUE(succeeded());
    apply(put("b", "3"));
    EXPECT_FALSE(succeeded());
    txn.compare[0].range = {"x", "z"};
    txn.compare[0].number = 0;
    EXPECT_TRUE(succeeded());
    txn.compare[0].target = Compare::Target::kValue;
    txn.compare[0].result = Compare::Result::kNotEqual;
    EXPECT_FALSE(succeeded()) << "a value that is not there is not even unequal";
}

TEST(Store, RefusesBeforeTheLogWhatNoStateMakesRight) {
    const auto check = [](auto request) { return Store::check(command(std::move(request)), {}); };
    EXPECT_EQ(check(put("", "x")), Status::kEmptyKey);
    EXPECT_EQ(check(erase("")), Status::kEmptyKey);
    EXPECT_EQ(check(put(std::string(16 * 1024, 'k'), "")), Status::kOk);
    EXPECT_EQ(check(put(std::string(16 * 1024 + 1, 'k'), "")), Status::kRequestTooLarge);
    EXPECT_EQ(check(put("k", std::string(1536 * 1024, 'v'))), Status::kRequestTooLarge);
    PutRequest p = put("k", "v", 3);
    p.ignore_lease = true;
    EXPECT_EQ(check(p), Status::kLeaseProvided);
    p.ignore_value = true;
    EXPECT_EQ(check(p), Status::kValueProvided);
    EXPECT_EQ(check(LeaseGrantRequest{{}, 9'000'000'001}), Status::kLeaseTtlTooLarge);

    TxnRequest txn;
    txn.success.assign(128, Op{get("a")});
    EXPECT_EQ(check(txn), Status::kOk);
    txn.success.push_back(Op{get("a")});
    EXPECT_EQ(check(txn), Status::kTooManyOps);
    txn.success = {Op{}};
    EXPECT_EQ(check(txn), Status::kKeyNotFound);
    TxnRequest deep;
    for (int i = 0; i < 8; ++i) {
        TxnRequest outer;
        outer.success = {Op{deep}};
        deep = std::move(outer);
    }
    EXPECT_EQ(check(deep), Status::kOk);
    TxnRequest deeper;
    deeper.success = {Op{deep}};
    EXPECT_EQ(check(deeper), Status::kTooDeep);
}

TEST(Store, ARangesKeysAreBoundedLikeThoseThatArePut) {
    Driver apply;
    Limits limits;
    limits.key_bytes_max = 4;
    EXPECT_EQ(Store::check(get(std::string("1234\0", 5), "2345"), limits), Status::kOk);
    for (const RangeRequest& request : {get("123456"), get("1234", "234567")}) {
        EXPECT_EQ(Store::check(request, limits), Status::kRequestTooLarge);
        EXPECT_EQ(apply.store->range(request, limits).status, Status::kRequestTooLarge);
        EXPECT_EQ(Store::check(command(TxnRequest{{}, {{request}}, {}}), limits), Status::kRequestTooLarge);
    }
}

TEST(Store, AKeyIsWrittenOnceInATransaction) {
    const auto check = [](std::vector<Op> ops) {
        TxnRequest txn;
        txn.failure = std::move(ops);
        return Store::check(command(std::move(txn)), {});
    };
    EXPECT_EQ(check({{put("a", "")}, {put("a", "")}}), Status::kDuplicateKey);
    EXPECT_EQ(check({{put("b", "")}, {erase("a", "c")}}), Status::kDuplicateKey);
    EXPECT_EQ(check({{put("c", "")}, {erase("a", "c")}, {erase("a")}}), Status::kOk);
    TxnRequest either;
    either.success = {{put("a", "")}};
    either.failure = {{put("a", "")}};
    EXPECT_EQ(check({{either}}), Status::kOk) << "only one branch runs";
    EXPECT_EQ(check({{either}, {put("a", "")}}), Status::kDuplicateKey);
    EXPECT_EQ(check({{either}, {either}}), Status::kDuplicateKey);
}

TEST(Store, CompactionDropsWhatNobodyMayReadAnyMore) {
    Driver apply;
    apply(put("a", "1"));  // 2
    apply(put("a", "2"));  // 3
    apply(put("b", "1"));  // 4
    apply(erase("b"));     // 5
    apply(put("a", "3"));  // 6
    EXPECT_EQ(status_of(apply(CompactRequest{{7}})), Status::kFutureRevision);
    EXPECT_EQ(status_of(apply(CompactRequest{{0}})), Status::kCompacted);
    EXPECT_EQ(status_of(apply(CompactRequest{{5}})), Status::kOk);
    EXPECT_EQ(status_of(apply(CompactRequest{{5}})), Status::kCompacted);
    EXPECT_EQ(apply.store->range(get("a", {}, 4), {}).status, Status::kCompacted);
    EXPECT_EQ(only_value(*apply.store, get("a", {}, 5)), "2");
    EXPECT_EQ(apply.store->record_count(), 3U) << "a at 3 and 6, b's deletion at 5 for watchers from 5 on";
    apply(CompactRequest{{6}});
    EXPECT_EQ(apply.store->record_count(), 1U);
    EXPECT_EQ(apply.store->key_count(), 1U);
    EXPECT_EQ(apply.store->bytes(), 64U + 2U);
}

TEST(Store, ADeletionBelowANewerValueIsDroppedToo) {
    Driver apply;
    apply(put("a", "1"));
    apply(erase("a"));     // 3
    apply(put("z", "1"));  // 4
    apply(put("a", "2"));  // 5
    apply(put("a", "3"));  // 6
    apply(CompactRequest{{4}});
    EXPECT_EQ(apply.store->record_count(), 3U);
    EXPECT_EQ(apply.store->range(get("a", {}, 4), {}).response.count, 0);
    EXPECT_EQ(snapshot(*apply.store), snapshot(*restore(snapshot(*apply.store))));
}

TEST(Store, ALeaseTakesItsKeysAlongInOneRevision) {
    Driver apply;
    EXPECT_EQ(std::get<LeaseGrantResponse>(apply(LeaseGrantRequest{{7}, 0}).response.body).ttl_seconds, 2);
    EXPECT_EQ(status_of(apply(LeaseGrantRequest{{7}, 60})), Status::kLeaseExists);
    apply(LeaseGrantRequest{{8}, 60});
    for (const char* key : {"c", "a", "b"})
        apply(put(key, "", 7));
    apply(put("b", "", 8));
    EXPECT_EQ(apply.store->leases().keys({7}), (std::vector<std::string>{"a", "c"}));
    const auto revoked = apply(LeaseRevokeRequest{{7}});
    EXPECT_EQ(revoked.response.revision.value, 6);
    ASSERT_EQ(revoked.events.size(), 2U);
    EXPECT_EQ(revoked.events[0]->key(), "a");
    EXPECT_TRUE(revoked.events[1]->tombstone());
    EXPECT_EQ(status_of(apply(LeaseRevokeRequest{{7}})), Status::kLeaseNotFound);
    EXPECT_EQ(status_of(apply(LeaseRevokeRequest{{7}, true})), Status::kOk) << "expired twice is no error";
}

// The leader proposes an expiry before it has applied what stands in front of it in the log. Found by sim_store.
TEST(Store, AnExpiryDoesNotTakeTheNextGrantOfItsId) {
    Driver apply;
    apply(LeaseGrantRequest{{7}, 2});
    const LeaseRevokeRequest expiry = apply.store->expiry({7});
    EXPECT_TRUE(expiry.expired);
    apply(LeaseRevokeRequest{{7}});
    apply(LeaseGrantRequest{{7}, 2});
    apply(put("a", "", 7));
    const auto restored = restore(snapshot(*apply.store));
    EXPECT_EQ(restored->leases().find({7})->granted, apply.store->leases().find({7})->granted);

    EXPECT_EQ(status_of(apply(expiry)), Status::kOk);
    EXPECT_EQ(apply.store->leases().keys({7}), (std::vector<std::string>{"a"}));
    apply(apply.store->expiry({7}));
    EXPECT_FALSE(apply.store->leases().contains({7}));
    EXPECT_EQ(apply.store->expiry({7}).granted, 0U) << "it is gone";
}

TEST(Store, ALeaseWithoutAnIdGetsOneThatEveryMemberAgreesOn) {
    Driver one;
    Driver other;
    const auto grant = [](Driver& apply) {
        return std::get<LeaseGrantResponse>(apply(LeaseGrantRequest{{}, 60}).response.body).id;
    };
    const LeaseId first = grant(one);
    EXPECT_GT(first.value, 0);
    EXPECT_EQ(first, grant(other));
    EXPECT_NE(grant(one), first);
}

TEST(Store, LeasesFillIt) {
    Driver apply;
    Limits limits;
    limits.store_bytes_max = 2 * kLeaseCharge;
    const Command grant = command(LeaseGrantRequest{{}, 60});
    apply(LeaseGrantRequest{{7}, 60});
    EXPECT_EQ(apply.store->admit(grant, limits), Status::kOk);
    apply(LeaseGrantRequest{{8}, 60});
    EXPECT_EQ(status_of(apply(LeaseGrantRequest{{8}, 60})), Status::kLeaseExists);
    EXPECT_EQ(apply.store->bytes(), 2 * kLeaseCharge);
    EXPECT_EQ(apply.store->admit(grant, limits), Status::kNoSpace);
    EXPECT_EQ(restore(snapshot(*apply.store))->bytes(), apply.store->bytes());
    apply(LeaseRevokeRequest{{7}});
    apply(apply.store->expiry({8}));
    apply(apply.store->expiry({8}));
    EXPECT_EQ(apply.store->bytes(), 0U);
    EXPECT_EQ(apply.store->admit(grant, limits), Status::kOk);
}

TEST(Store, AFullStoreCanBeReadEmptiedAndCompacted) {
    Driver apply;
    Limits limits;
    limits.store_bytes_max = 200;
    apply(put("a", std::string(200, 'x')));
    TxnRequest reads;
    reads.success = {{get("a")}, {erase("a")}};
    EXPECT_EQ(apply.store->admit(command(put("b", "")), limits), Status::kNoSpace);
    EXPECT_EQ(apply.store->admit(command(reads), limits), Status::kOk);
    reads.failure = {{put("b", "")}};
    EXPECT_EQ(apply.store->admit(command(reads), limits), Status::kNoSpace);
    EXPECT_EQ(apply.store->admit(command(erase("a")), limits), Status::kOk);
    apply(erase("a"));
    apply(put("c", ""));
    apply(CompactRequest{apply.store->revision()});
    EXPECT_EQ(apply.store->admit(command(put("b", "")), limits), Status::kOk);
}

TEST(Sessions, ARetriedCommandTakesEffectOnce) {
    Driver apply;
    const SessionId session = apply(SessionOpenRequest{}).response.session;
    Command c = command(put("a", "1"));
    c.session = session;
    c.sequence = 1;
    PutRequest with_prev = put("a", "2");
    with_prev.prev_kv = true;
    EXPECT_EQ(apply.run(c).response.revision.value, 2);
    apply(put("a", "other"));
    const auto again = apply.run(c);
    EXPECT_TRUE(again.repeated);
    EXPECT_TRUE(again.events.empty());
    EXPECT_EQ(again.response.revision.value, 2);
    c.sequence = 2;
    c.request = with_prev;
    apply.run(c);
    // Also after a restart from a snapshot.
    apply.store = restore(snapshot(*apply.store));
    EXPECT_EQ(std::get<PutResponse>(apply.run(c).response.body).prev_kv->value, "other");
    EXPECT_EQ(only_value(*apply.store, get("a")), "2");
    c.sequence = 1;
    EXPECT_EQ(status_of(apply.run(c)), Status::kSessionStale);
    apply(SessionCloseRequest{session});
    c.sequence = 3;
    EXPECT_EQ(status_of(apply.run(c)), Status::kSessionUnknown);
}

TEST(Sessions, ARefusalIsRememberedAndAnAnswerThatIsTooLargeSaysSo) {
    Driver apply;
    Command c = command(put("a", "1", 99));
    c.session = apply(SessionOpenRequest{}).response.session;
    c.sequence = 1;
    EXPECT_EQ(status_of(apply.run(c)), Status::kLeaseNotFound);
    apply(LeaseGrantRequest{{99}, 60});
    EXPECT_EQ(status_of(apply.run(c)), Status::kLeaseNotFound);
    PutRequest large = put("b", std::string(kAnswerBytesMax, 'x'));
    apply(large);
    large.prev_kv = true;
    c.request = large;
    c.sequence = 2;
    EXPECT_EQ(status_of(apply.run(c)), Status::kOk);
    const auto gone = apply.run(c);
    EXPECT_EQ(status_of(gone), Status::kSessionAnswerGone);
    EXPECT_EQ(gone.response.revision.value, 3);
}

TEST(Sessions, AreBoundedAndIdleOnesGoByTheLogsTime) {
    Driver apply;
    const Command open = command(SessionOpenRequest{});
    for (std::size_t i = 0; i < kSessionsMax; ++i)
        ASSERT_EQ(status_of(apply.run(open)), Status::kOk);
    EXPECT_EQ(status_of(apply.run(open)), Status::kSessionsFull);
    Command used = command(put("a", "1"));
    used.session = {1};
    used.sequence = 1;
    apply(SessionsAgeRequest{1000});
    apply.run(used);
    apply(SessionsAgeRequest{kSessionIdleMillis - 1000});
    EXPECT_EQ(apply.store->sessions().all().size(), kSessionsMax) << "exactly an hour";
    apply(SessionsAgeRequest{1});
    EXPECT_EQ(status_of(apply.run(open)), Status::kOk);
    EXPECT_EQ(apply.store->sessions().all().size(), 2U) << "the one used since, and the new one";
    used.sequence = 2;
    used.session = {2};
    EXPECT_EQ(status_of(apply.run(used)), Status::kSessionUnknown);
}

// As a file on a broken disk gives it back.
class Broken final : public ColdMemory {
  public:
    std::span<char> take(std::size_t bytes) override { return heap_memory()->take(bytes); }
    void give_back(std::span<char> block) override { heap_memory()->give_back(block); }
    void cool(std::span<char> block) override { std::ranges::fill(block.first(4096), '\0'); }
};

TEST(Store, HistoryThatIsNotWhatItWasIsNotAnswered) {
    Driver apply;
    apply.store = std::make_unique<Store>(std::make_shared<Broken>());
    for (int i = 0; i < 3000; ++i)
        apply(put("key", std::string(100, 'a')));
    EXPECT_DEATH(apply.store->range(get("key", {}, 2), {}), "is the disk of the data directory broken");
    EXPECT_EQ(apply.store->range(get("key", {}, 2500), {}).response.count, 1);
    EXPECT_EQ(apply.store->range(get("key"), {}).response.kvs[0].version, 3000);
}

TEST(Store, EveryByteOfHistoryIsCheckedBeforeItIsUsed) {
    const auto memory = std::make_shared<Shown>();
    Driver apply;
    apply.store = std::make_unique<Store>(memory);
    for (const char* value : {"one", "two", "now"})
        apply(put("key", value));
    const auto first_two = [&] {
        return apply.store->range(get("key", {}, 3), {}).response.kvs[0].value +
               apply.store->range(get("key", {}, 2), {}).response.kvs[0].value;
    };
    EXPECT_EQ(first_two(), "twoone");
    // The block of changes comes first, with the first of them; then that of records, of which there are two: 40 bytes each.
    ASSERT_EQ(memory->blocks.size(), 2U);
    const std::span<char> records = memory->blocks[1];
    const std::string before(records.data(), 80);
    EXPECT_NE(before.find("two"), std::string::npos);
    const auto flipped = [&](std::size_t i, int bits) {
        records[i] = static_cast<char>(records[i] ^ bits);
        EXPECT_DEATH(first_two(), "is the disk of the data directory broken") << i << " ^ " << bits;
        records[i] = static_cast<char>(records[i] ^ bits);
    };
    for (std::size_t i = 0; i < 80; ++i)
        flipped(i, 1 << i % 8);
    for (int bit = 1; bit < 256; bit *= 2) {
        flipped(16, bit);  // the flags, with where it is
        flipped(56, bit);
    }
    flipped(56, 0x54 ^ 0xA8);  // "on the heap"
    // A whole record in another one's place.
    std::swap_ranges(records.begin(), records.begin() + 40, records.begin() + 40);
    EXPECT_DEATH(first_two(), "is the disk of the data directory broken");
    std::swap_ranges(records.begin(), records.begin() + 40, records.begin() + 40);
    EXPECT_EQ(first_two(), "twoone");
}

TEST(Store, EveryChangeIsCheckedBeforeItIsUsed) {
    const auto memory = std::make_shared<Shown>();
    Driver apply;
    apply.store = std::make_unique<Store>(memory);
    for (const char* value : {"one", "two", "now"})
        apply(put("key", value));
    const std::span<char> changes = memory->blocks[0];
    for (std::size_t i = 0; i < 2 * sizeof(Change); ++i) {
        changes[i] = static_cast<char>(changes[i] ^ 1 << i % 7);
        // Collected; and searched for the change that is to move.
        EXPECT_DEATH(apply(CompactRequest{{4}}), "is the disk of the data directory broken") << i;
        if (i < sizeof(Change)) {
            EXPECT_DEATH(apply(put("key", "more")), "is the disk of the data directory broken") << i;
        }
        changes[i] = static_cast<char>(changes[i] ^ 1 << i % 7);
    }
    apply(CompactRequest{{4}});
    EXPECT_EQ(apply.store->range(get("key"), {}).response.kvs[0].value, "now");
}

}  // namespace
}  // namespace outrider::store::test
