#include <algorithm>

#include <xxhash.h>

#include "base/check.h"
#include "control/store/bugs.h"
#include "control/store/snapshot.h"
#include "control/store/varint.h"

namespace outrider::store {
namespace {

std::uint64_t get_little(const char* in, int bytes) {
    std::uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; --i)
        value = value << 8 | static_cast<unsigned char>(in[i]);
    return value;
}

bool earlier(const Change& a, const Change& b) {
    if (a.mod() != b.mod()) return a.mod() < b.mod();
    return a.record()->fields().sub < b.record()->fields().sub;
}

}  // namespace

SnapshotReader::SnapshotReader(std::shared_ptr<ColdMemory> memory)
    : store_(std::make_unique<Store>(std::move(memory))) {}
SnapshotReader::~SnapshotReader() = default;

Error SnapshotReader::wrong(std::string_view what) const {
    return Error{"snapshot, frame " + std::to_string(ordinal_) + ": " + std::string(what)};
}

Result<void> SnapshotReader::add(std::string_view bytes) {
    if (!error_.empty()) return Error{error_};
    pending_.append(bytes);
    std::size_t done = 0;
    Result<void> result;
    while (result.ok() && pending_.size() - done >= kFrameHeaderBytes) {
        const char* header = pending_.data() + done;
        const std::uint64_t size = get_little(header, 4);
        if (size == 0 || size > kFrameBytesMax) {
            result = wrong("its length is out of bounds");
        } else if (get_little(header + 4, 4) != ordinal_) {
            result = wrong("another frame is in its place");
        } else if (pending_.size() - done - kFrameHeaderBytes < size) {
            break;
        } else {
            const std::string_view payload(header + kFrameHeaderBytes, size);
            check_ = XXH3_64bits_withSeed(payload.data(), payload.size(), check_ + ordinal_);
            result =
                check_ == get_little(header + 8, 8) ? read_frame(payload) : wrong("its check is not right");
            done += kFrameHeaderBytes + size;
            ++ordinal_;
        }
    }
    pending_.erase(0, done);
    if (!result.ok()) error_ = result.error();
    return result;
}

Result<void> SnapshotReader::read_frame(std::string_view payload) {
    constexpr std::string_view kKinds = "HLSKE";
    const char kind = payload.front();
    const std::size_t rank = kKinds.find(kind);
    if (rank == std::string_view::npos) return wrong("its kind is unknown");
    const bool once = kind == 'H' || kind == 'E';
    const bool follows = last_kind_ == 0
                             ? kind == 'H'
                             : rank > kKinds.find(last_kind_) || (rank == kKinds.find(last_kind_) && !once);
    if (!follows) return wrong("its kind must not come here");
    last_kind_ = kind;
    payload.remove_prefix(1);
    switch (kind) {
        case 'H':
            return read_header(payload);
        case 'L':
            return read_leases(payload);
        case 'S':
            return read_sessions(payload);
        case 'K':
            return read_records(payload);
        default:
            return read_end(payload);
    }
}

Result<void> SnapshotReader::read_header(std::string_view items) {
    Decoder in(items);
    if (in.text() != "OUTRIDER-KV") return wrong("this is no snapshot of a key space");
    if (const std::uint64_t version = in.number(); in.ok() && version != 1)
        return wrong("its format is of version " + std::to_string(version) +
                     "; this program reads version 1");
    store_->applied_index_ = in.number();
    store_->revision_ = {in.signed_number()};
    store_->compacted_ = {in.signed_number()};
    store_->collected_ = store_->compacted_;
    store_->time_millis_ = in.signed_number();
    records_expected_ = in.number();
    const bool sane = store_->revision_.value >= 1 && store_->revision_.value < INT64_MAX &&
                      store_->compacted_.value >= 0 && store_->compacted_ <= store_->revision_ &&
                      store_->time_millis_ >= 0;
    if (!in.ok() || !in.at_end() || !sane) return wrong("its header is malformed");
    return {};
}

Result<void> SnapshotReader::read_leases(std::string_view items) {
    Decoder in(items);
    while (in.ok() && !in.at_end()) {
        const LeaseId id{in.signed_number()};
        const std::int64_t ttl = in.signed_number();
        const std::uint64_t granted = in.number();
        const auto& all = store_->leases_.all();
        if (id.value == 0 || ttl < kLeaseTtlSecondsMin || ttl > kLeaseTtlSecondsMax || granted == 0 ||
            granted > store_->applied_index_ || (!all.empty() && all.rbegin()->first >= id)) {
            return wrong("a lease is malformed");
        }
        store_->leases_.grant(id, ttl, granted);
        store_->bytes_ += kLeaseCharge;
    }
    if (!in.ok()) return wrong("a lease is cut short");
    return {};
}

Result<void> SnapshotReader::read_sessions(std::string_view items) {
    Decoder in(items);
    while (in.ok() && !in.at_end()) {
        const SessionId id{in.number()};
        SessionTable::Session session;
        session.sequence = in.number();
        session.used_millis = in.signed_number();
        session.revision = {in.signed_number()};
        session.answer = in.text();
        const auto& all = store_->sessions_.all();
        if (id.value == 0 || all.size() >= kSessionsMax || (!all.empty() && all.rbegin()->first >= id) ||
            session.used_millis < 0 || session.answer.size() > kAnswerBytesMax) {
            return wrong("a session is malformed");
        }
        store_->sessions_.restore(id, std::move(session));
    }
    if (!in.ok()) return wrong("a session is cut short");
    return {};
}

Result<void> SnapshotReader::read_records(std::string_view items) {
    Decoder in(items);
    while (in.ok() && !in.at_end()) {
        Record::Fields f;
        f.key = in.text();
        f.mod = {in.signed_number()};
        const std::uint64_t sub = in.number();
        const std::uint8_t kind = in.byte();
        if (sub > UINT32_MAX || kind > 1) return wrong("a record is malformed");
        f.sub = static_cast<std::uint32_t>(sub);
        f.tombstone = kind == 1;
        if (!f.tombstone) {
            f.create = {in.signed_number()};
            f.version = in.signed_number();
            f.lease = {in.signed_number()};
            f.value = in.text();
            if (f.create.value < 1 || f.create > f.mod || f.version < 1)
                return wrong("a record is malformed");
        }
        if (!in.ok() || f.mod.value < 1 || f.mod > store_->revision_) return wrong("a record is malformed");
        if (Result<void> placed = place(f, f.key.empty()); !placed.ok()) return placed;
    }
    return {};
}

// Behind all that came before.
Result<void> SnapshotReader::place(const Record::Fields& fields, bool same_key) {
    KeyIndex& index = store_->index_;
    Record::Fields f = fields;
    Record* before = index.size() > 0 ? index.last() : nullptr;
    if (same_key) {
        if (before == nullptr) return wrong("the first record has no key");
        f.key = before->key();
        const bool rises = before->mod() != f.mod ? before->mod() < f.mod : before->fields().sub < f.sub;
        // Below the compaction one record of a key is left at most, and only when none is of the compaction itself.
        if (!rises || f.mod <= store_->compacted_) {
            if (!rises || before->mod() < store_->compacted_)
                return wrong("a key's records are out of order");
        }
    } else if (before != nullptr && before->key() >= f.key) {
        return wrong("keys are out of order");
    }
    if (f.tombstone && f.mod < store_->compacted_) return wrong("a deletion is older than the compaction");
    Record* record = Record::make(f, nullptr);
    if (same_key) {
        Record* older = Record::copy_to(store_->cold_, *before);
        if (!history_.empty() && history_.back().record() == before) history_.back().moved_to(older);
        Record::destroy(store_->cold_, before);
        record->cut(older);
        index.replace_last(record);
    } else {
        index.append(record);
    }
    store_->bytes_ += record->charge();
    if (record->mod() >= store_->compacted_) history_.emplace_back(record);
    ++store_->records_;
    return {};
}

Result<void> SnapshotReader::read_end(std::string_view items) {
    Decoder in(items);
    const std::uint64_t frames = in.number();
    if (!in.ok() || !in.at_end() || frames != ordinal_ || store_->records_ != records_expected_)
        return wrong("its end does not match what came before it");
    if (!bug(Bug::kRestoredHistoryByKey)) std::sort(history_.begin(), history_.end(), earlier);
    for (std::size_t i = 0; i < history_.size() && !bug(Bug::kRestoredHistoryByKey); ++i) {
        const bool goes_on = i > 0 && history_[i - 1].mod() == history_[i].mod();
        const std::uint32_t expected = goes_on ? history_[i - 1].record()->fields().sub + 1 : 0;
        if (history_[i].record()->fields().sub != expected)
            return wrong("the changes of a revision are not numbered from 0 without a gap");
    }
    for (const Change& change : history_)
        store_->history_.push_back(change);
    history_ = {};
    for (auto at = store_->index_.begin(); at.valid() && !bug(Bug::kSnapshotLosesLeaseKeys); at.next())
        store_->leases_.replaced(nullptr, at.record());
    return {};
}

Result<std::unique_ptr<Store>> SnapshotReader::finish() {
    if (!error_.empty()) return Error{error_};
    if (last_kind_ != 'E' || !pending_.empty() || store_ == nullptr) return wrong("it is cut short");
    return std::move(store_);
}

}  // namespace outrider::store
