// LEB128 varints and length-prefixed strings, for records in memory, snapshots and kept answers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace outrider::store {

constexpr std::size_t varint_bytes(std::uint64_t v) {
    std::size_t n = 1;
    while (v >= 0x80) {
        v >>= 7;
        ++n;
    }
    return n;
}

inline unsigned char* write_varint(unsigned char* out, std::uint64_t v) {
    while (v >= 0x80) {
        *out++ = static_cast<unsigned char>(v | 0x80);
        v >>= 7;
    }
    *out++ = static_cast<unsigned char>(v);
    return out;
}

// Of bytes that write_varint() wrote.
inline std::uint64_t read_varint(const unsigned char*& in) {
    std::uint64_t v = *in & 0x7f;
    for (unsigned shift = 7; (*in++ & 0x80) != 0; shift += 7)
        v |= static_cast<std::uint64_t>(*in & 0x7f) << shift;
    return v;
}

class Encoder {
  public:
    explicit Encoder(std::string& out) : out_(out) {}

    void byte(std::uint8_t v) { out_.push_back(static_cast<char>(v)); }
    void number(std::uint64_t v) {
        unsigned char bytes[10];
        out_.append(reinterpret_cast<const char*>(bytes),
                    static_cast<std::size_t>(write_varint(bytes, v) - bytes));
    }
    void signed_number(std::int64_t v) { number(static_cast<std::uint64_t>(v)); }
    void text(std::string_view v) {
        number(v.size());
        out_.append(v);
    }

  private:
    std::string& out_;
};

// Reads what nobody vouches for: past the end, or in a number longer than need be, it fails and answers zeros.
class Decoder {
  public:
    explicit Decoder(std::string_view in) : in_(in) {}

    bool ok() const { return ok_; }
    bool at_end() const { return in_.empty(); }
    void fail() { ok_ = false; }

    std::uint8_t byte() {
        if (in_.empty()) ok_ = false;
        if (!ok_) return 0;
        const auto v = static_cast<std::uint8_t>(in_.front());
        in_.remove_prefix(1);
        return v;
    }
    std::uint64_t number() {
        std::uint64_t v = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const std::uint8_t b = byte();
            if (shift == 63 && b > 1) break;
            v |= static_cast<std::uint64_t>(b & 0x7f) << shift;
            if ((b & 0x80) != 0) continue;
            if (b == 0 && shift > 0) break;
            return ok_ ? v : 0;
        }
        ok_ = false;
        return 0;
    }
    std::int64_t signed_number() { return static_cast<std::int64_t>(number()); }
    std::string_view text() {
        const std::uint64_t size = number();
        if (size > in_.size()) ok_ = false;
        if (!ok_) return {};
        const std::string_view v = in_.substr(0, size);
        in_.remove_prefix(size);
        return v;
    }

  private:
    std::string_view in_;
    bool ok_ = true;
};

}  // namespace outrider::store
