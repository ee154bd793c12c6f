#include "base/bytes.h"

namespace outrider {

std::size_t utf8_sequence(std::string_view s) {
    const auto at = [&](std::size_t i) { return static_cast<unsigned char>(s[i]); };
    const auto tail = [&](std::size_t i) { return i < s.size() && (at(i) & 0xC0) == 0x80; };
    if (s.empty()) return 0;
    const unsigned char b = at(0);
    if (b < 0x80) return 1;
    if (b >= 0xC2 && b <= 0xDF) return tail(1) ? 2 : 0;
    if (b >= 0xE0 && b <= 0xEF) {
        if (!tail(1) || !tail(2)) return 0;
        if (b == 0xE0 && at(1) < 0xA0) return 0;
        if (b == 0xED && at(1) > 0x9F) return 0;
        return 3;
    }
    if (b >= 0xF0 && b <= 0xF4) {
        if (!tail(1) || !tail(2) || !tail(3)) return 0;
        if (b == 0xF0 && at(1) < 0x90) return 0;
        if (b == 0xF4 && at(1) > 0x8F) return 0;
        return 4;
    }
    return 0;
}

std::optional<std::uint64_t> parse_decimal(std::string_view s) {
    if (s.empty()) return std::nullopt;
    if (s.size() <= 18) {  // cannot overflow
        std::uint64_t small = 0;
        for (const char c : s) {
            if (!ascii_digit(c)) return std::nullopt;
            small = small * 10 + static_cast<std::uint64_t>(c - '0');
        }
        return small;
    }
    constexpr std::uint64_t kMax = 0x7FFF'FFFF'FFFF'FFFFu;
    std::uint64_t value = 0;
    for (const char c : s) {
        if (!ascii_digit(c)) return std::nullopt;
        const auto digit = static_cast<std::uint64_t>(c - '0');
        if (value > (kMax - digit) / 10) return std::nullopt;
        value = value * 10 + digit;
    }
    return value;
}

std::string to_lower(std::string_view s) {
    std::string out(s);
    for (char& c : out)
        c = ascii_lower(c);
    return out;
}

void append_json_escaped(std::string& out, std::string_view s) {
    static constexpr char kHex[] = "0123456789abcdef";
    while (!s.empty()) {
        const auto c = static_cast<unsigned char>(s.front());
        if (c == '"' || c == '\\') {
            out += '\\';
            out += s.front();
        } else if (c < 0x20 || c == 0x7F) {
            out += "\\u00";
            out += kHex[c >> 4];
            out += kHex[c & 15];
        } else if (c < 0x80) {
            out += s.front();
        } else if (const std::size_t n = utf8_sequence(s); n != 0) {
            out.append(s.substr(0, n));
            s.remove_prefix(n);
            continue;
        } else {
            out += "\\ufffd";
        }
        s.remove_prefix(1);
    }
}

std::optional<std::string> percent_decoded(std::string_view s) {
    const auto digit = [](char c) {
        if (ascii_digit(c)) return c - '0';
        const char lower = ascii_lower(c);
        return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
    };
    std::string out;
    for (std::size_t i = 0; i < s.size(); ++i) {
        if (s[i] != '%') {
            out += s[i];
            continue;
        }
        if (i + 2 >= s.size()) return std::nullopt;
        const int high = digit(s[i + 1]);
        const int low = digit(s[i + 2]);
        if (high < 0 || low < 0) return std::nullopt;
        out += static_cast<char>(high * 16 + low);
        i += 2;
    }
    return out;
}

}  // namespace outrider
