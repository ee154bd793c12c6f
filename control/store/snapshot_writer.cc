#include <algorithm>
#include <cstring>

#include <xxhash.h>

#include "base/check.h"
#include "control/store/bugs.h"
#include "control/store/snapshot.h"
#include "control/store/varint.h"

namespace outrider::store {
namespace {

void put_little(char* out, std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i)
        out[i] = static_cast<char>(value >> (8 * i));
}

}  // namespace

SnapshotWriter::SnapshotWriter(Store& store)
    : store_(store), applied_index_(store.applied_index()), revision_(store.revision()) {
    store.collect(SIZE_MAX);
    require(!store.collecting(), "a snapshot is of a store that is collected");
    ++store_.walks_;
    write_tables();
}

SnapshotWriter::~SnapshotWriter() {
    --store_.walks_;
}

void SnapshotWriter::begin(char kind) {
    payload_.assign(1, kind);
}

void SnapshotWriter::end() {
    check_ = XXH3_64bits_withSeed(payload_.data(), payload_.size(), check_ + ordinal_);
    char header[kFrameHeaderBytes];
    put_little(header, payload_.size(), 4);
    put_little(header + 4, ordinal_, 4);
    put_little(header + 8, check_, 8);
    ++ordinal_;
    ready_.append(header, sizeof header).append(payload_);
}

void SnapshotWriter::write_tables() {
    Encoder out(payload_);
    begin('H');
    out.text("OUTRIDER-KV");
    out.number(1);
    out.number(applied_index_);
    out.signed_number(revision_.value);
    out.signed_number(store_.compacted_.value);
    out.signed_number(store_.time_millis_);
    out.number(store_.records_);
    end();

    begin('L');
    for (const auto& [id, lease] : store_.leases_.all()) {
        out.signed_number(id.value);
        out.signed_number(lease.ttl_seconds);
        out.number(lease.granted);
        if (payload_.size() < kFrameBytes) continue;
        end();
        begin('L');
    }
    if (payload_.size() > 1) end();

    begin('S');
    for (const auto& [id, session] : store_.sessions_.all()) {
        if (bug(Bug::kSnapshotWithoutSessions)) break;
        out.number(id.value);
        out.number(session.sequence);
        out.signed_number(session.used_millis);
        out.signed_number(session.revision.value);
        out.text(session.answer);
        if (payload_.size() < kFrameBytes) continue;
        end();
        begin('S');
    }
    if (payload_.size() > 1) end();
}

void SnapshotWriter::write_record(const Record& record, bool same_key) {
    Encoder out(payload_);
    const Record::Fields f = record.fields();
    out.text(same_key ? std::string_view() : f.key);
    out.signed_number(f.mod.value);
    out.number(f.sub);
    out.byte(f.tombstone ? 1 : 0);
    if (f.tombstone) return;
    out.signed_number(f.create.value);
    out.signed_number(f.version);
    out.signed_number(f.lease.value);
    out.text(f.value);
}

// One frame; false when no record is left.
bool SnapshotWriter::write_records() {
    begin('K');
    // A chain does not change while the writer is there, but for its newest, which may have moved to cold memory meanwhile.
    if (!chain_.empty()) chain_.front() = at_revision(store_.index_.find(key_).record(), revision_);
    auto at = store_.index_.lower_bound(next_key_);
    while (payload_.size() < kFrameBytes) {
        if (chain_.empty()) {
            if (!at.valid()) break;
            for (const Record* r = at_revision(at.record(), revision_); r != nullptr; r = r->prev())
                chain_.push_back(r);
            key_.assign(at.record()->key());
            next_key_.assign(key_).push_back('\0');  // the least key above it
            same_key_ = false;
            at.next();
            continue;
        }
        write_record(*chain_.back(), same_key_);
        same_key_ = true;
        chain_.pop_back();
    }
    store_.cool();
    if (payload_.size() == 1) return false;
    end();
    return true;
}

bool SnapshotWriter::next(std::string& out) {
    if (taken_ == ready_.size()) {
        ready_.clear();
        taken_ = 0;
        if (at_end_) return false;
        if (!write_records()) {
            Encoder items(payload_);
            begin('E');
            items.number(ordinal_);
            end();
            at_end_ = true;
        }
    }
    std::uint32_t size = 0;
    for (int i = 3; i >= 0; --i)
        size = size << 8 | static_cast<unsigned char>(ready_[taken_ + static_cast<std::size_t>(i)]);
    out.append(ready_, taken_, kFrameHeaderBytes + size);
    taken_ += kFrameHeaderBytes + size;
    return true;
}

}  // namespace outrider::store
