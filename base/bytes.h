// ASCII and byte helpers for protocol text. HTTP's names are ASCII and compare without case
// (RFC 9110 section 5.1); nothing here looks at the locale.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace outrider {

inline constexpr char ascii_lower(char c) {
    return (c >= 'A' && c <= 'Z') ? static_cast<char>(c | 0x20) : c;
}
inline constexpr bool ascii_digit(char c) {
    return c >= '0' && c <= '9';
}

inline constexpr bool iequals(std::string_view a, std::string_view b) {
    if (a.size() != b.size()) return false;
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (ascii_lower(a[i]) != ascii_lower(b[i])) return false;
    }
    return true;
}

// Strips optional white space as HTTP means it: space and tab (RFC 9110 section 5.6.3).
inline constexpr std::string_view trim_ows(std::string_view s) {
    while (!s.empty() && (s.front() == ' ' || s.front() == '\t'))
        s.remove_prefix(1);
    while (!s.empty() && (s.back() == ' ' || s.back() == '\t'))
        s.remove_suffix(1);
    return s;
}

// Decimal digits only: no sign, no white space, nothing behind; nothing on overflow of 2^63-1.
std::optional<std::uint64_t> parse_decimal(std::string_view s);

std::string to_lower(std::string_view s);

// %XX replaced by the byte it stands for (RFC 3986 section 2.1); nothing when a '%' is not followed by two digits.
std::optional<std::string> percent_decoded(std::string_view s);

// Calls f(element) for each comma-separated element, trimmed, empty ones skipped (RFC 9110 section 5.6.1).
template <typename F>
void for_each_list_element(std::string_view list, F&& f) {
    while (!list.empty()) {
        const std::size_t comma = list.find(',');
        const std::string_view element = trim_ows(list.substr(0, comma));
        if (!element.empty()) f(element);
        if (comma == std::string_view::npos) return;
        list.remove_prefix(comma + 1);
    }
}

// Length of the well-formed UTF-8 sequence that s starts with (Unicode table 3-7), 0 when there is none.
std::size_t utf8_sequence(std::string_view s);

// Appends s as the inside of a JSON string: quotes, backslashes and control bytes escaped, bytes that
// are not UTF-8 replaced by U+FFFD.
void append_json_escaped(std::string& out, std::string_view s);

}  // namespace outrider
