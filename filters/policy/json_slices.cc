#include "filters/policy/json_slices.h"

#include <algorithm>

namespace outrider::policy {
namespace {

constexpr std::string_view kWhitespace = " \t\r\n";

// Behind the string that text begins with.
std::size_t string_end(std::string_view text) {
    for (std::size_t i = 1; i < text.size(); ++i) {
        if (text[i] == '\\') {
            ++i;
        } else if (text[i] == '"') {
            return i + 1;
        }
    }
    return text.size();
}

std::size_t value_end(std::string_view text) {
    if (text.empty()) return 0;
    if (text[0] == '"') return string_end(text);
    if (text[0] != '[' && text[0] != '{') return std::min(text.find_first_of(" \t\r\n,]}"), text.size());
    std::size_t depth = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '"') {
            i += string_end(text.substr(i)) - 1;
        } else if (c == '[' || c == '{') {
            ++depth;
        } else if ((c == ']' || c == '}') && --depth == 0) {
            return i + 1;
        }
    }
    return text.size();
}

}  // namespace

std::string_view trim_json(std::string_view text) {
    const std::size_t begin = text.find_first_not_of(kWhitespace);
    if (begin == std::string_view::npos) return {};
    return text.substr(begin, text.find_last_not_of(kWhitespace) - begin + 1);
}

void JsonSlices::skip_to_value() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n,:"), rest_.size()));
}

std::string_view JsonSlices::take() {
    skip_to_value();
    const std::string_view value = rest_.substr(0, value_end(rest_));
    rest_.remove_prefix(value.size());
    return value;
}

std::string_view JsonSlices::next() {
    if (keyed_) take();
    return take();
}

}  // namespace outrider::policy
