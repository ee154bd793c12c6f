#include "config/diagnostics.h"

#include <algorithm>
#include <tuple>

#include "base/bytes.h"

namespace outrider::config {
namespace {

constexpr std::size_t kQuotedMax = 80;

std::string escape_controls(std::string_view text) {
    constexpr std::string_view kHex = "0123456789abcdef";
    std::string out;
    out.reserve(text.size());
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte >= 0x20 && byte != 0x7f) {
            out += c;
        } else if (c == '\n') {
            out += "\\n";
        } else {
            out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
        }
    }
    return out;
}

}  // namespace

std::string key_text(std::string_view key) {
    const bool bare = !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
        return (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') || ascii_digit(c) || c == '_' || c == '-';
    });
    return bare ? std::string(key) : "\"" + printable(key) + "\"";
}

std::string indexed(std::string_view path, std::size_t index) {
    return std::string(path) + "[" + std::to_string(index + 1) + "]";
}

std::string printable(std::string_view text) {
    if (text.size() <= kQuotedMax) return escape_controls(text);
    std::size_t end = kQuotedMax;
    // Not within a UTF-8 sequence.
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80)
        --end;
    return escape_controls(text.substr(0, end)) + "...";
}

std::string in_quotes(std::string_view text) {
    return "'" + printable(text) + "'";
}

std::string to_string(const Diagnostic& d) {
    std::string out = d.file;
    if (d.line > 0) out += ":" + std::to_string(d.line) + ":" + std::to_string(d.column);
    out += ": ";
    if (d.severity == Diagnostic::Severity::kWarning) out += "warning: ";
    if (!d.key.empty()) out += d.key + ": ";
    return out + d.reason;
}

void Diagnostics::error(Position at, std::string_view key, std::string_view reason) {
    add(Diagnostic::Severity::kError, at, key, reason);
}

void Diagnostics::warning(Position at, std::string_view key, std::string_view reason) {
    add(Diagnostic::Severity::kWarning, at, key, reason);
}

void Diagnostics::add(Diagnostic::Severity severity, Position at, std::string_view key,
                      std::string_view reason) {
    if (severity == Diagnostic::Severity::kError) ++errors_;
    if (list_.size() >= kDiagnosticsMax) {
        overflowed_ = true;
        return;
    }
    list_.push_back({.severity = severity,
                     .file = file_,
                     .line = at.line,
                     .column = at.column,
                     .key = escape_controls(key),
                     .reason = escape_controls(reason)});
}

Position Diagnostics::position_of(std::string_view key) const {
    while (!key.empty()) {
        if (const auto it = positions_.find(key); it != positions_.end()) return it->second;
        const std::size_t cut = key.find_last_of(".[");
        key = key.substr(0, cut == std::string_view::npos ? 0 : cut);
    }
    return {1, 1};
}

std::vector<Diagnostic> Diagnostics::take() {
    std::stable_sort(list_.begin(), list_.end(), [](const Diagnostic& a, const Diagnostic& b) {
        return std::tie(a.line, a.column) < std::tie(b.line, b.column);
    });
    if (overflowed_) {
        const Diagnostic& last = list_.back();
        list_.push_back(
            {.severity = errors_ > 0 ? Diagnostic::Severity::kError : Diagnostic::Severity::kWarning,
             .file = file_,
             .line = last.line,
             .column = last.column,
             .key = "",
             .reason =
                 "there are more; only the first " + std::to_string(kDiagnosticsMax) + " found are listed"});
    }
    errors_ = 0;
    overflowed_ = false;
    return std::move(list_);
}

}  // namespace outrider::config
