#include "base/uv/dns_message.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace outrider::uv {
namespace {

constexpr std::size_t kHeaderSize = 12;
constexpr std::size_t kNameMax = 253;
constexpr std::uint16_t kTypeSrv = 33;
constexpr std::uint16_t kClassInternet = 1;

bool host_name_byte(std::uint8_t byte) {
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
           byte == '-' || byte == '_';
}

// A cursor over the whole message. After a read past the end, good() is false and every read gives
// 0.
class Reader {
  public:
    explicit Reader(std::span<const std::uint8_t> message) : message_(message) {}

    bool good() const { return good_; }
    std::size_t at() const { return at_; }

    void skip(std::size_t bytes) {
        if (bytes > message_.size() - at_) {
            good_ = false;
            return;
        }
        at_ += bytes;
    }
    std::uint8_t u8() {
        if (!good_ || at_ == message_.size()) {
            good_ = false;
            return 0;
        }
        return message_[at_++];
    }
    std::uint16_t u16() {
        const unsigned high = u8();
        return static_cast<std::uint16_t>(high << 8 | u8());
    }
    std::uint32_t u32() {
        const std::uint32_t high = u16();
        return high << 16 | u16();
    }

    // Reads a name and leaves the cursor behind it. "" is the root. Nothing when it does not parse,
    // is too long, or `host` is asked for and a byte may not stand in a host name.
    std::optional<std::string> name(bool host) {
        std::string out;
        std::optional<std::size_t> behind;  // where the cursor goes once a pointer has been followed
        std::size_t pointer_limit = at_;    // the next pointer must point before this
        for (;;) {
            const std::uint8_t length = u8();
            if (!good_) return std::nullopt;
            if (length == 0) break;
            if ((length & 0xc0) == 0xc0) {
                const std::size_t target = static_cast<std::size_t>(length & 0x3f) << 8 | u8();
                if (!good_ || target >= pointer_limit) return fail();
                if (!behind) behind = at_;
                pointer_limit = at_ = target;
                continue;
            }
            if ((length & 0xc0) != 0) return fail();
            if (!append_label(length, host, out)) return fail();
        }
        if (behind) at_ = *behind;
        return out;
    }

  private:
    std::nullopt_t fail() {
        good_ = false;
        return std::nullopt;
    }

    bool append_label(std::size_t length, bool host, std::string& out) {
        if (!out.empty()) out.push_back('.');
        if (out.size() + length > kNameMax) return false;
        for (std::size_t i = 0; i < length; ++i) {
            const std::uint8_t byte = u8();
            if (!good_ || (host && !host_name_byte(byte))) return false;
            out.push_back(static_cast<char>(byte));
        }
        return true;
    }

    std::span<const std::uint8_t> message_;
    std::size_t at_ = 0;
    bool good_ = true;
};

ResolveError malformed(const char* what) {
    return {ResolveFailure::kMalformed, what};
}

// One record of the answer section into `records`; false when it does not parse.
bool read_record(Reader& reader, SrvRecords& records, Duration& ttl) {
    if (!reader.name(false)) return false;
    const std::uint16_t type = reader.u16();
    const std::uint16_t record_class = reader.u16();
    const std::uint32_t seconds = reader.u32();
    const std::size_t size = reader.u16();
    if (!reader.good()) return false;
    const std::size_t begin = reader.at();
    // RFC 2181 section 8: a TTL with the top bit set counts as 0.
    ttl = std::min(ttl, Duration(std::chrono::seconds((seconds >> 31) != 0 ? 0 : seconds)));
    if (type != kTypeSrv || record_class != kClassInternet) {
        reader.skip(size);
        return reader.good();
    }
    SrvTarget target;
    target.priority = reader.u16();
    target.weight = reader.u16();
    target.port = reader.u16();
    std::optional<std::string> host = reader.name(true);
    if (!host || reader.at() != begin + size) return false;
    target.host = std::move(*host);
    if (!target.host.empty()) records.targets.push_back(std::move(target));
    return true;
}

}  // namespace

Resolution<SrvRecords> parse_srv_response(std::span<const std::uint8_t> message) {
    if (message.size() < kHeaderSize) return malformed("shorter than a header");
    Reader reader(message);
    reader.skip(4);  // id and flags
    const std::uint16_t questions = reader.u16();
    const std::uint16_t answers = reader.u16();
    reader.skip(4);  // counts of the sections that are not read
    for (std::uint16_t i = 0; i < questions; ++i) {
        if (!reader.name(false)) return malformed("the question does not parse");
        reader.skip(4);
        if (!reader.good()) return malformed("the question does not parse");
    }
    SrvRecords records;
    Duration ttl = Duration::max();
    for (std::uint16_t i = 0; i < answers; ++i) {
        if (!read_record(reader, records, ttl)) return malformed("a record does not parse");
    }
    if (records.targets.empty()) {
        return ResolveError{ResolveFailure::kNotFound, "no SRV target"};
    }
    records.ttl = ttl;
    std::stable_sort(records.targets.begin(), records.targets.end(),
                     [](const SrvTarget& a, const SrvTarget& b) { return a.priority < b.priority; });
    return records;
}

}  // namespace outrider::uv
