// X-Request-Id and W3C Trace Context (www.w3.org/TR/trace-context, level 1): every exchange has an id, every hop a span.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "filters/filter.h"

namespace outrider::filters {
namespace {

constexpr std::size_t kIdMax = 128;  // longer ids from outside are replaced

// The two digits of a byte, as the word that they are in memory.
constexpr auto kHexPairs = [] {
    std::array<std::uint16_t, 256> pairs{};
    constexpr std::string_view kDigits = "0123456789abcdef";
    for (std::size_t i = 0; i < pairs.size(); ++i)
        pairs[i] = std::bit_cast<std::uint16_t>(std::array<char, 2>{kDigits[i / 16], kDigits[i % 16]});
    return pairs;
}();

// Sixteen digits of a random word. Their order is the machine's; of a random word any order is as good.
void hex64(char* out, std::uint64_t value) {
    for (int i = 0; i < 8; ++i)
        std::memcpy(out + 2 * i, &kHexPairs[(value >> (8 * i)) & 0xFF], 2);
}

bool is_hex(std::string_view s) {
    return std::all_of(s.begin(), s.end(),
                       [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// version 00: 00-<32 hex>-<16 hex>-<2 hex>, ids not all zero; later versions may be longer (section 3.2).
bool is_traceparent(std::string_view s) {
    if (s.size() < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-') return false;
    if (!is_hex(s.substr(0, 2)) || s.substr(0, 2) == "ff") return false;
    if (s.size() > 55 && (s.substr(0, 2) == "00" || s[55] != '-')) return false;
    const std::string_view trace = s.substr(3, 32);
    const std::string_view parent = s.substr(36, 16);
    return is_hex(trace) && is_hex(parent) && is_hex(s.substr(53, 2)) &&
           trace.find_first_not_of('0') != std::string_view::npos &&
           parent.find_first_not_of('0') != std::string_view::npos;
}

// Printable and without quotes, so that an id can be pasted anywhere.
bool is_request_id(std::string_view s) {
    return !s.empty() && s.size() <= kIdMax && std::all_of(s.begin(), s.end(), [](char c) {
        return c > 0x20 && c < 0x7F && c != '"' && c != '\\' && c != ',' && c != ';';
    });
}

class RequestId final : public Filter {
    Verdict on_request(Context& c) const override {
        const bool trusted = c.listener->trust_forwarded;
        http::FieldRef* id = c.request->find(http::FieldId::kXRequestId);
        // An id is only a name: one from outside is kept when it is well-formed and the outside is trusted.
        if (id != nullptr && trusted && is_request_id(c.request->value(*id))) {
            c.request_id = c.request->value(*id);
        } else {
            drop_all(*c.request, http::FieldId::kXRequestId);
            char* text = c.arena->take(32);
            hex64(text, c.random->next());
            hex64(text + 16, c.random->next());
            c.request_id = {text, 32};
            c.request_fields.add("X-Request-Id", c.request_id);
        }
        add_traceparent(c, trusted);
        return Continue{};
    }

    static void drop_all(http::RequestHead& request, http::FieldId id) {
        for (http::FieldRef& f : request.all()) {
            if (f.id == id) f.dropped = true;
        }
    }

    static void add_traceparent(Context& c, bool trusted) {
        char* text = c.arena->take(55);
        const std::string_view came = c.request->value_of(http::FieldId::kTraceparent);
        if (trusted && is_traceparent(came)) {
            std::memcpy(text, "00", 2);
            std::memcpy(text + 2, came.data() + 2, 53);
        } else {
            std::memcpy(text, "00-", 3);
            hex64(text + 3, c.random->next());
            hex64(text + 19, c.random->next() | 1);  // never all zero
            std::memcpy(text + 35, "-                -00", 20);
            if (!trusted) drop_all(*c.request, http::FieldId::kTracestate);
        }
        drop_all(*c.request, http::FieldId::kTraceparent);
        hex64(text + 36, c.random->next() | 1);
        c.request_fields.add("traceparent", {text, 55});
    }

    void on_response(Context& c) const override {
        // The caller learns the id under which our logs know its request.
        if (c.response == nullptr || c.response->find(http::FieldId::kXRequestId) == nullptr) {
            if (!c.request_id.empty()) c.response_fields.add("X-Request-Id", c.request_id);
        }
    }
};

}  // namespace

std::unique_ptr<const Filter> make_request_id() {
    return std::make_unique<RequestId>();
}

}  // namespace outrider::filters
