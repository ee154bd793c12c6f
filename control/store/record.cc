#include "control/store/record.h"

#include <algorithm>
#include <cstring>
#include <new>

#include <xxhash.h>

#include "base/check.h"
#include "control/store/varint.h"

namespace outrider::store {
namespace {

// Beside key and value: about what a record takes in memory and in the index.
constexpr std::uint64_t kRecordCharge = 64;

std::uint32_t read_word(const unsigned char* at) {
    std::uint32_t value = 0;
    std::memcpy(&value, at, sizeof value);
    return value;
}

unsigned char* write_text(unsigned char* out, std::string_view text) {
    if (!text.empty()) std::memcpy(out, text.data(), text.size());
    return out + text.size();
}

std::string_view read_text(const unsigned char*& in, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(in), size);
    in += size;
    return text;
}

}  // namespace

Record* Record::make(const Fields& f, Record* prev) {
    const auto age = static_cast<std::uint64_t>(f.mod.value - f.create.value);
    const auto version = static_cast<std::uint64_t>(f.version);
    const bool leased = !f.tombstone && f.lease.value != 0;
    std::size_t packed_bytes = varint_bytes(f.key.size()) + f.key.size() + varint_bytes(f.sub);
    if (!f.tombstone) {
        packed_bytes +=
            varint_bytes(age) + varint_bytes(version) + varint_bytes(f.value.size()) + f.value.size();
    }
    if (leased) packed_bytes += sizeof f.lease.value;

    static_assert(offsetof(Record, flags_) + 1 == kHead);
    const std::size_t bytes = std::max(sizeof(Record), kHead + packed_bytes);
    auto* record = new (::operator new(bytes)) Record;
    record->prev_ = prev;
    record->mod_ = f.mod.value;
    record->flags_ =
        static_cast<std::uint8_t>(kOnHeap | (f.tombstone ? kTombstone : 0) | (leased ? kLeased : 0));

    unsigned char* out = reinterpret_cast<unsigned char*>(record) + kHead;
    out = write_varint(out, f.key.size());
    out = write_text(out, f.key);
    out = write_varint(out, f.sub);
    if (f.tombstone) return record;
    out = write_varint(out, age);
    out = write_varint(out, version);
    out = write_varint(out, f.value.size());
    out = write_text(out, f.value);
    if (leased) std::memcpy(out, &f.lease.value, sizeof f.lease.value);
    return record;
}

std::uint32_t Record::link_check() const {
    return static_cast<std::uint32_t>(
        XXH3_64bits_withSeed(begin(), kLink, reinterpret_cast<std::uintptr_t>(this)));
}

// Of this link's contents: one page of a record may be what it was, and another not.
std::uint32_t Record::packed_check(std::size_t bytes) const {
    const std::uint64_t seed = reinterpret_cast<std::uintptr_t>(this) ^
                               (static_cast<std::uint64_t>(mod_) << 8 | flags_) * 0x9E3779B97F4A7C15u;
    return static_cast<std::uint32_t>(XXH3_64bits_withSeed(packed(), bytes, seed));
}

void Record::write_link_check() {
    const std::uint32_t value = link_check();
    static_assert(sizeof value == kCheck);
    std::memcpy(reinterpret_cast<unsigned char*>(this) + kLink, &value, kCheck);
}

bool Record::whole_link() const {
    return cold() && link_check() == read_word(begin() + kLink);
}

// `mod_max`: what stands behind another record is not younger than that.
void Record::require_link(std::int64_t mod_max) const {
    require(whole_link() && mod_ <= mod_max, kBrokenDisk);
}

void Record::cut(Record* prev) {
    prev_ = prev;
    if (cold()) write_link_check();
}

Record* Record::copy_to(ColdArena& cold, const Record& record) {
    Fields fields;
    const unsigned char* packed = record.packed();
    const auto packed_bytes = static_cast<std::size_t>(record.unpack(fields) - packed);
    const std::size_t bytes = kLink + kCheck + packed_bytes + kCheck;
    auto* room = reinterpret_cast<unsigned char*>(cold.take(std::max(sizeof(Record), bytes)));
    auto* copy = new (room) Record;
    copy->prev_ = record.prev_;
    copy->mod_ = record.mod_;
    copy->flags_ = static_cast<std::uint8_t>((record.flags_ & ~kPlace) | kCold);
    const auto word = static_cast<std::uint32_t>(packed_bytes);
    std::memcpy(room + kHead, &word, sizeof word);
    copy->write_link_check();
    unsigned char* out = room + kLink + kCheck;
    std::memcpy(out, packed, packed_bytes);
    const std::uint32_t value = copy->packed_check(packed_bytes);
    std::memcpy(out + packed_bytes, &value, kCheck);
    return copy;
}

void Record::destroy(ColdArena& cold, Record* record) {
    if (record->cold())
        cold.give_back(reinterpret_cast<const char*>(record));
    else
        ::operator delete(record);
}

std::string_view Record::key() const {
    const unsigned char* in = packed();
    const std::size_t size = read_varint(in);
    return {reinterpret_cast<const char*>(in), size};
}

Record::Fields Record::fields() const {
    require_whole();
    if (cold()) {
        const std::size_t bytes = read_word(begin() + kHead);
        require(packed_check(bytes) == read_word(packed() + bytes), kBrokenDisk);
    }
    Fields f;
    unpack(f);
    return f;
}

const unsigned char* Record::unpack(Fields& f) const {
    const unsigned char* in = packed();
    const std::size_t key_bytes = read_varint(in);
    f.key = read_text(in, key_bytes);
    f.mod = mod();
    f.sub = static_cast<std::uint32_t>(read_varint(in));
    f.tombstone = tombstone();
    if (f.tombstone) return in;
    f.create = {mod_ - static_cast<std::int64_t>(read_varint(in))};
    f.version = static_cast<std::int64_t>(read_varint(in));
    const std::size_t value_bytes = read_varint(in);
    f.value = read_text(in, value_bytes);
    if ((flags_ & kLeased) == 0) return in;
    std::memcpy(&f.lease.value, in, sizeof f.lease.value);
    return in + sizeof f.lease.value;
}

KeyValue Record::key_value() const {
    const Fields f = fields();
    return {std::string(f.key), f.create, f.mod, f.version, std::string(f.value), f.lease};
}

std::uint64_t Record::charge() const {
    const Fields f = fields();
    return kRecordCharge + f.key.size() + f.value.size();
}

}  // namespace outrider::store
