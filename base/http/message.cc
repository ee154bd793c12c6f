#include "base/http/message.h"

#include <array>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <utility>

#include "base/bytes.h"

namespace outrider::http {

namespace {

// Eight bytes of a name in lower case. Field names are tokens: the only token bytes that become a letter or a '-' by
// setting 0x20 are that letter and that '-' themselves, so comparing these words compares names without case.
constexpr std::uint64_t kLowerBits = 0x2020202020202020u;

std::uint64_t load(const char* p, std::size_t size) {
    std::uint64_t w = 0;
    std::memcpy(&w, p, size);
    return w;
}

// A name as two words: its first and its last eight bytes, which overlap below sixteen; a shorter one is two such halves
// in one word, and the second is 0.
struct Words {
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    bool operator==(const Words&) const = default;
};

// At least two bytes.
Words words(const char* p, std::size_t n) {
    if (n >= 8) return {load(p, 8) | kLowerBits, load(p + n - 8, 8) | kLowerBits};
    if (n >= 4) return {(load(p, 4) | load(p + n - 4, 4) << 32) | kLowerBits, 0};
    return {(load(p, 2) | load(p + n - 2, 2) << 32) | kLowerBits, 0};
}

struct Known {
    Words words;
    FieldId id = FieldId::kOther;
};

constexpr std::size_t kKnownSizeMax = 17;
constexpr std::size_t kKnownPerSize = 3;

// By length; names of up to 17 bytes are covered by their first and last eight (the middle byte of 17 is checked apart).
struct KnownTable {
    std::array<std::array<Known, kKnownPerSize>, kKnownSizeMax + 1> by_size;
    KnownTable() {
        for (const auto& [name, id] : std::initializer_list<std::pair<std::string_view, FieldId>>{
                 {"te", FieldId::kTe},
                 {"via", FieldId::kVia},
                 {"host", FieldId::kHost},
                 {"date", FieldId::kDate},
                 {"accept", FieldId::kAccept},
                 {"cookie", FieldId::kCookie},
                 {"expect", FieldId::kExpect},
                 {"upgrade", FieldId::kUpgrade},
                 {"trailer", FieldId::kTrailer},
                 {"connection", FieldId::kConnection},
                 {"keep-alive", FieldId::kKeepAlive},
                 {"tracestate", FieldId::kTracestate},
                 {"traceparent", FieldId::kTraceparent},
                 {"content-type", FieldId::kContentType},
                 {"x-request-id", FieldId::kXRequestId},
                 {"content-length", FieldId::kContentLength},
                 {"x-forwarded-for", FieldId::kXForwardedFor},
                 {"x-forwarded-host", FieldId::kXForwardedHost},
                 {"proxy-connection", FieldId::kProxyConnection},
                 {"transfer-encoding", FieldId::kTransferEncoding},
                 {"x-forwarded-proto", FieldId::kXForwardedProto}}) {
            for (Known& slot : by_size[name.size()]) {
                if (slot.id != FieldId::kOther) continue;
                slot = {words(name.data(), name.size()), id};
                break;
            }
        }
    }
};
const KnownTable known_table;

}  // namespace

FieldId field_id(std::string_view name) {
    if (name.size() <= kKnownSizeMax && name.size() >= 2) {
        const Words key = words(name.data(), name.size());
        for (const Known& known : known_table.by_size[name.size()]) {
            if (known.words != key) continue;
            // Of 17 bytes the ninth is in neither word: the hyphens of both known names stand elsewhere.
            if (name.size() == 17 && (name[8] | 0x20) != (known.id == FieldId::kTransferEncoding ? '-' : 'd'))
                continue;
            return known.id;
        }
    }
    if (name.size() > 9 && (name[0] | 0x20) == 'o' && iequals(name.substr(0, 9), "outrider-")) {
        return FieldId::kOutrider;
    }
    return FieldId::kOther;
}

FieldRef* Head::find(FieldId id) const {
    for (FieldRef& f : all()) {
        if (f.id == id && !f.dropped) return &f;
    }
    return nullptr;
}

FieldRef* Head::find(std::string_view wanted) const {
    for (FieldRef& f : all()) {
        if (f.name_size == wanted.size() && !f.dropped && iequals(name(f), wanted)) return &f;
    }
    return nullptr;
}

std::string_view Head::value_of(FieldId id) const {
    const FieldRef* f = find(id);
    return f != nullptr ? value(*f) : std::string_view();
}

std::string_view Head::value_of(std::string_view wanted) const {
    const FieldRef* f = find(wanted);
    return f != nullptr ? value(*f) : std::string_view();
}

std::string_view RequestHead::path_and_query() const {
    return path_total == 0 ? std::string_view("/") : at(path_begin, path_total);
}

std::string_view RequestHead::query() const {
    const std::string_view all = path_and_query();
    return path_size < all.size() ? all.substr(path_size + 1) : std::string_view();
}

void HeadStorage::keep(Head& head) {
    const std::size_t fields_size = head.field_count * sizeof(FieldRef);
    const std::size_t needed = fields_size + head.bytes_size;
    if (needed > capacity_) {
        capacity_ = needed < 768 ? 768 : needed;
        block_ = std::make_unique_for_overwrite<char[]>(capacity_);
    }
    if (fields_size != 0) std::memcpy(block_.get(), head.fields, fields_size);
    if (head.bytes_size != 0) std::memcpy(block_.get() + fields_size, head.bytes, head.bytes_size);
    head.fields = reinterpret_cast<FieldRef*>(block_.get());
    head.bytes = block_.get() + fields_size;
}

void HeadStorage::clear_if_larger_than(std::size_t bytes_max) {
    if (capacity_ <= bytes_max) return;
    block_.reset();
    capacity_ = 0;
}

std::optional<std::string_view> query_value(std::string_view query, std::string_view name) {
    std::optional<std::string_view> found;
    for_each_parameter(query, [&](std::string_view each, std::optional<std::string_view> value) {
        if (each == name) found = value.value_or("");
        return !found;
    });
    return found;
}

std::string_view reason_phrase(int status) {
    switch (status) {
        case 100:
            return "Continue";
        case 101:
            return "Switching Protocols";
        case 103:
            return "Early Hints";
        case 200:
            return "OK";
        case 201:
            return "Created";
        case 202:
            return "Accepted";
        case 204:
            return "No Content";
        case 206:
            return "Partial Content";
        case 301:
            return "Moved Permanently";
        case 302:
            return "Found";
        case 303:
            return "See Other";
        case 304:
            return "Not Modified";
        case 307:
            return "Temporary Redirect";
        case 308:
            return "Permanent Redirect";
        case 400:
            return "Bad Request";
        case 401:
            return "Unauthorized";
        case 403:
            return "Forbidden";
        case 404:
            return "Not Found";
        case 405:
            return "Method Not Allowed";
        case 408:
            return "Request Timeout";
        case 409:
            return "Conflict";
        case 410:
            return "Gone";
        case 411:
            return "Length Required";
        case 412:
            return "Precondition Failed";
        case 413:
            return "Content Too Large";
        case 414:
            return "URI Too Long";
        case 415:
            return "Unsupported Media Type";
        case 417:
            return "Expectation Failed";
        case 421:
            return "Misdirected Request";
        case 422:
            return "Unprocessable Content";
        case 425:
            return "Too Early";
        case 426:
            return "Upgrade Required";
        case 428:
            return "Precondition Required";
        case 429:
            return "Too Many Requests";
        case 431:
            return "Request Header Fields Too Large";
        case 500:
            return "Internal Server Error";
        case 501:
            return "Not Implemented";
        case 502:
            return "Bad Gateway";
        case 503:
            return "Service Unavailable";
        case 504:
            return "Gateway Timeout";
        case 505:
            return "HTTP Version Not Supported";
        default:
            return "Unknown";
    }
}

}  // namespace outrider::http
