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

std::uint32_t Record::check(const unsigned char* end) const {
    const unsigned char* begin = reinterpret_cast<const unsigned char*>(this) + kCheckFrom;
    return static_cast<std::uint32_t>(XXH3_64bits(begin, static_cast<std::size_t>(end - begin)));
}

Record* Record::copy_to(ColdArena& cold, const Record& record) {
    Fields fields;
    const auto* begin = reinterpret_cast<const unsigned char*>(&record);
    const unsigned char* end = record.unpack(fields);
    const auto bytes = static_cast<std::size_t>(end - begin);
    char* room = cold.take(std::max(sizeof(Record), bytes + sizeof(std::uint32_t)));
    std::memcpy(room, begin, bytes);
    auto* copy = reinterpret_cast<Record*>(room);
    copy->flags_ = static_cast<std::uint8_t>(copy->flags_ & ~kOnHeap);
    const std::uint32_t check = copy->check(reinterpret_cast<unsigned char*>(room) + bytes);
    std::memcpy(room + bytes, &check, sizeof check);
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
    Fields f;
    const unsigned char* end = unpack(f);
    if (cold()) {
        std::uint32_t expected = 0;
        std::memcpy(&expected, end, sizeof expected);
        require(check(end) == expected,
                "history is read as it was written; is the disk of the data directory broken?");
    }
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
