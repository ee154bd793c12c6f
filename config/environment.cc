#include "config/environment.h"

#include <algorithm>

#include "base/bytes.h"
#include "config/diagnostics.h"

namespace outrider::config {
namespace {

constexpr std::size_t kValueMax = 64 * 1024;
constexpr std::size_t kExpandedMax = 1024 * 1024;  // many uses of one long variable multiply

bool is_variable_name(std::string_view name) {
    const auto letter = [](char c) { return c == '_' || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z'); };
    return !name.empty() && letter(name.front()) &&
           std::all_of(name.begin(), name.end(), [&](char c) { return letter(c) || ascii_digit(c); });
}

// `inside` is what stands between the braces.
void expand_one(std::string_view inside, const EnvLookup& env, Expansion& out) {
    const std::size_t separator = inside.find(":-");
    const std::string name(inside.substr(0, separator));
    if (!is_variable_name(name)) {
        out.errors.push_back(in_quotes("${" + std::string(inside) + "}") +
                             " does not name an environment variable (write ${NAME} or "
                             "${NAME:-default}; $${ for a literal ${)");
        return;
    }
    const std::optional<std::string> value = env ? env(name) : std::nullopt;
    if (separator != std::string_view::npos && (!value || value->empty())) {
        out.text += inside.substr(separator + 2);
    } else if (!value) {
        out.errors.push_back("environment variable " + name + " is not set (${" + name +
                             ":-default} would give a default)");
    } else if (value->size() > kValueMax) {
        out.errors.push_back("environment variable " + name + " is longer than 64 KiB");
    } else if (!is_utf8(*value)) {
        out.errors.push_back("environment variable " + name + " is not UTF-8 text");
    } else {
        out.text += *value;
    }
}

}  // namespace

Expansion expand_environment(std::string_view text, const EnvLookup& env) {
    Expansion out;
    while (!text.empty()) {
        if (text.starts_with("$${")) {
            out.text += "${";
            text.remove_prefix(3);
        } else if (text.starts_with("${")) {
            const std::size_t end = text.find('}');
            if (end == std::string_view::npos) {
                out.errors.push_back(in_quotes(text) + " has no closing } ($${ writes a literal ${)");
                return out;
            }
            expand_one(text.substr(2, end - 2), env, out);
            text.remove_prefix(end + 1);
            if (out.text.size() > kExpandedMax) {
                out.errors.emplace_back("is longer than 1 MiB after substitution");
                return out;
            }
        } else {
            out.text += text.front();
            text.remove_prefix(1);
        }
    }
    return out;
}

std::string escape_environment(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text.substr(i, 2) == "${") out += '$';
        out += text[i];
    }
    return out;
}

bool is_utf8(std::string_view text) {
    std::size_t i = 0;
    while (i < text.size()) {
        const auto lead = static_cast<unsigned char>(text[i]);
        if (lead < 0x80) {
            ++i;
            continue;
        }
        // RFC 3629 section 4: no overlong forms, no surrogates, nothing above U+10FFFF.
        const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
        if (lead < 0xc2 || lead > 0xf4 || i + length > text.size()) return false;
        const auto second = static_cast<unsigned char>(text[i + 1]);
        const unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
        const unsigned high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
        if (second < low || second > high) return false;
        for (std::size_t k = 2; k < length; ++k) {
            if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) return false;
        }
        i += length;
    }
    return true;
}

}  // namespace outrider::config
