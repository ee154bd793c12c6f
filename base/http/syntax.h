// What names and values of fields consist of (RFC 9110 sections 5.1, 5.5 and 5.6.2).
#pragma once

#include <algorithm>
#include <string_view>

#include "base/bytes.h"

namespace outrider::http {

// RFC 9110 section 5.6.2.
inline constexpr bool is_token_char(char c) {
    if (ascii_digit(c) || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z')) return true;
    switch (c) {
        case '!':
        case '#':
        case '$':
        case '%':
        case '&':
        case '\'':
        case '*':
        case '+':
        case '-':
        case '.':
        case '^':
        case '_':
        case '`':
        case '|':
        case '~':
            return true;
        default:
            return false;
    }
}

inline bool is_token(std::string_view s) {
    return !s.empty() && std::all_of(s.begin(), s.end(), is_token_char);
}

// field-vchar, obs-text, space and tab (RFC 9110 section 5.5).
inline bool is_field_text(std::string_view s) {
    return std::all_of(s.begin(), s.end(), [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return (byte >= 0x20 && byte != 0x7F) || byte == '\t';
    });
}

}  // namespace outrider::http
