// HTTP messages apart from any wire format: methods, fields, heads. The HTTP/1.1 codec fills and writes them.
//
// A head is a view: its bytes lie in one stable block that somebody else owns (HeadStorage below), and each field is
// offsets into it. Copying a head means copying two blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace outrider::http {

// The fields that some part of outrider acts on; everything else is kOther. Order is of no meaning.
enum class FieldId : std::uint8_t {
    kOther,
    kAccept,
    kConnection,
    kContentLength,
    kContentType,
    kCookie,
    kDate,
    kExpect,
    kHost,
    kKeepAlive,
    kOutrider,  // any field whose name begins with "Outrider-"
    kProxyConnection,
    kTe,
    kTraceparent,
    kTracestate,
    kTrailer,
    kTransferEncoding,
    kUpgrade,
    kVia,
    kXForwardedFor,
    kXForwardedHost,
    kXForwardedProto,
    kXRequestId,
};

// Case does not matter (RFC 9110 section 5.1).
FieldId field_id(std::string_view name);

struct FieldRef {
    std::uint32_t name_begin = 0;
    std::uint32_t value_begin = 0;
    std::uint32_t value_size = 0;
    std::uint16_t name_size = 0;
    FieldId id = FieldId::kOther;
    bool dropped = false;  // hop-by-hop, or removed by a filter: not forwarded
};
static_assert(sizeof(FieldRef) == 16);

struct Field {
    std::string_view name;
    std::string_view value;
};

// How the end of a body is found (RFC 9112 section 6).
enum class Framing : std::uint8_t { kNone, kLength, kChunked, kUntilClose };

// What both kinds of head share.
struct Head {
    const char* bytes = nullptr;
    FieldRef* fields = nullptr;
    std::uint32_t bytes_size = 0;
    std::uint32_t field_count = 0;

    std::uint64_t content_length = 0;  // with Framing::kLength
    Framing framing = Framing::kNone;
    std::uint8_t version_minor = 1;  // HTTP/1.0 or HTTP/1.1
    bool keep_alive = true;          // what the sender allows
    bool upgrade = false;            // Connection names Upgrade, and an Upgrade field is there
    bool has_trailer_field = false;

    std::string_view at(std::uint32_t begin, std::uint32_t size) const { return {bytes + begin, size}; }
    std::string_view name(const FieldRef& f) const { return at(f.name_begin, f.name_size); }
    std::string_view value(const FieldRef& f) const { return at(f.value_begin, f.value_size); }
    std::span<FieldRef> all() const { return {fields, field_count}; }

    // First field of that id that is not dropped; nullptr when none.
    FieldRef* find(FieldId id) const;
    // By name, for fields that have no id.
    FieldRef* find(std::string_view name) const;
    std::string_view value_of(FieldId id) const;  // empty when absent
    std::string_view value_of(std::string_view name) const;
};

enum class Method : std::uint8_t {
    kGet,
    kHead,
    kPost,
    kPut,
    kDelete,
    kOptions,
    kTrace,
    kPatch,
    kConnect,
    kOther
};

// Safe methods (RFC 9110 section 9.2.1) may run beside each other and be repeated.
inline bool is_safe(Method m) {
    return m == Method::kGet || m == Method::kHead || m == Method::kOptions || m == Method::kTrace;
}
// Idempotent methods (RFC 9110 section 9.2.2).
inline bool is_idempotent(Method m) {
    return is_safe(m) || m == Method::kPut || m == Method::kDelete;
}

struct RequestHead : Head {
    std::string_view method_text() const { return at(method_begin, method_size); }
    // As it came: origin-form, absolute-form or "*".
    std::string_view target() const { return at(target_begin, target_size); }
    // Origin-form: path and query. For an absolute-form target the part behind the authority ("/" when empty).
    std::string_view path_and_query() const;
    std::string_view path() const { return path_and_query().substr(0, path_size); }
    std::string_view query() const;  // without '?'; empty when none
    // The authority the request is for: of an absolute-form target, else the Host field ("" for HTTP/1.0 without one).
    std::string_view authority() const { return at(authority_begin, authority_size); }

    std::uint32_t method_begin = 0;
    std::uint32_t target_begin = 0;
    std::uint32_t target_size = 0;
    std::uint32_t path_begin = 0;  // 0 with path_total 0: the path is "/"
    std::uint32_t path_total = 0;  // path and query
    std::uint32_t path_size = 0;
    std::uint32_t authority_begin = 0;
    std::uint32_t authority_size = 0;
    std::uint16_t method_size = 0;
    Method method = Method::kGet;
    bool absolute_form = false;
    bool expects_continue = false;
};

struct ResponseHead : Head {
    std::string_view reason() const { return at(reason_begin, reason_size); }

    int status = 0;
    std::uint32_t reason_begin = 0;
    std::uint32_t reason_size = 0;
};

// Calls f(name, value) for each parameter, as they stand there; without a '=' there is no value. Until f answers false.
template <typename F>
void for_each_parameter(std::string_view query, F&& f) {
    while (!query.empty()) {
        const std::string_view pair = query.substr(0, query.find('&'));
        query.remove_prefix(std::min(pair.size() + 1, query.size()));
        const std::size_t equals = pair.find('=');
        std::optional<std::string_view> value;
        if (equals != std::string_view::npos) value = pair.substr(equals + 1);
        if (!f(pair.substr(0, equals), value)) return;
    }
}
// The value of the first parameter of that name, empty without a '='; nothing when there is none.
std::optional<std::string_view> query_value(std::string_view query, std::string_view name);

// The standard reason phrase, "Unknown" for others.
std::string_view reason_phrase(int status);

// The two blocks behind a head; filled from a parser's, owned by whoever keeps the head.
class HeadStorage {
  public:
    // Copies the blocks and points the head at the copies. Reuses its memory.
    void keep(Head& head);
    void clear_if_larger_than(std::size_t bytes_max);
    std::size_t capacity() const { return capacity_; }

  private:
    std::unique_ptr<char[]> block_;
    std::size_t capacity_ = 0;
};

}  // namespace outrider::http
