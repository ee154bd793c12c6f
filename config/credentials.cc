#include "config/credentials.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "config/diagnostics.h"
#include "config/document.h"
#include "config/load.h"
#include "config/redis_url.h"

namespace outrider::config {
namespace {

constexpr std::string_view kHidden = "***";

bool word_character(char c) {
    return (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') || ascii_digit(c) || c == '-' || c == '_';
}

// A string, or an array of such: what a header's value may be, and what is written in one place.
bool is_literal(const Value& value) {
    return value.kind == Value::Kind::kString ||
           (value.kind == Value::Kind::kArray &&
            std::all_of(value.elements.begin(), value.elements.end(), is_literal));
}

struct Hidden {
    Position at;        // where the value begins
    std::string shown;  // in its place
    friend bool operator<(const Hidden& a, const Hidden& b) { return a.at < b.at; }
};

// The values to hide: of every key that carries credentials below a "headers", the only tables whose keys are free; and the
// password in every "url" elsewhere, whatever it is of. False when one is no literal.
bool find_values(const Value& value, bool in_headers, std::vector<Hidden>& out) {
    const auto all = [&](const Value& element) { return find_values(element, in_headers, out); };
    if (!std::all_of(value.elements.begin(), value.elements.end(), all)) return false;
    for (const Member& member : value.members) {
        if (in_headers && carries_credentials(member.key)) {
            if (!is_literal(member.value)) return false;
            out.push_back({member.value.at, std::string(kHidden)});
        } else if (!in_headers && member.key == "url") {
            if (member.value.kind != Value::Kind::kString) return false;
            if (auto shown = hide_password(member.value.string)) {
                out.push_back({member.value.at, std::move(*shown)});
            }
        } else if (!find_values(member.value, in_headers || member.key == "headers", out)) {
            return false;
        }
    }
    return true;
}

// Behind the array that begins at text[at].
std::size_t end_of_array(std::string_view text, std::size_t at) {
    std::size_t depth = 0;
    while (at < text.size()) {
        const char c = text[at];
        if (c == '"' || c == '\'') {
            at = end_of_string(text, at);
            continue;
        }
        if (c == '#') {
            at = std::min(text.find('\n', at), text.size());
            continue;
        }
        ++at;
        if (c == '[') ++depth;
        if (c == ']' && --depth == 0) break;
    }
    return at;
}

// How much of a comment may be shown: up to a credential's name with something that may be its value behind it.
class CommentFilter {
  public:
    // A comment with its '#'. `follows`: it stands alone on its line, and what is above it is a comment too.
    std::string shown(std::string_view comment, bool follows) {
        if (open_ && follows) return "# " + std::string(kHidden);
        open_ = false;
        // An escape may spell any name.
        if (comment.find("\\u") != std::string_view::npos || comment.find("\\U") != std::string_view::npos) {
            open_ = true;
            return "# " + std::string(kHidden);
        }
        // A URL with something before an '@' in it, or that may go on below.
        const std::size_t scheme = comment.find("://");
        if (scheme != std::string_view::npos) {
            const std::string_view rest = comment.substr(scheme + 3);
            const bool more = !trim_ows(rest).empty() && goes_on(rest);
            if (more || rest.find('@') != std::string_view::npos) {
                std::string out = words_shown(comment.substr(0, scheme + 3));
                const bool whole = out.size() == scheme + 3;
                open_ |= more;
                return whole ? out + std::string(kHidden) : out;
            }
        }
        return words_shown(comment);
    }

  private:
    std::string words_shown(std::string_view comment) {
        bool signs = true;  // there may be one behind `at`
        for (std::size_t at = 0; at < comment.size();) {
            if (!word_character(comment[at])) {
                ++at;
                continue;
            }
            const std::size_t begin = at;
            while (at < comment.size() && word_character(comment[at]))
                ++at;
            const std::string_view word = comment.substr(begin, at - begin);
            const bool scheme =
                iequals(word, "bearer");  // what follows it is a token, whatever stands before
            if (!scheme && !carries_credentials(word)) continue;
            std::size_t keep = at;
            if (!scheme) {
                if (!signs) continue;
                const bool quoted = at < comment.size() && comment[at] == '"';
                const std::size_t sign = comment.find_first_of("=:\"", quoted ? at + 1 : at);
                signs = sign != std::string_view::npos;
                if (!signs) continue;
                keep = comment[sign] == '"' ? sign : sign + 1;
            }
            open_ = goes_on(comment.substr(keep));
            return std::string(trim_ows(comment.substr(0, keep))) + " " + std::string(kHidden);
        }
        return std::string(comment);
    }

    // The value goes on in the comment below: it has not begun, or a bracket or a long string is open.
    static bool goes_on(std::string_view value) {
        if (trim_ows(value).empty()) return true;
        const auto count = [&](char c) { return std::count(value.begin(), value.end(), c); };
        return count('[') > count(']') || value.find("\"\"\"") != std::string_view::npos ||
               value.find("'''") != std::string_view::npos || trim_ows(value).back() == '\\';
    }

    bool open_ = false;
};

class SourceFilter {
  public:
    SourceFilter(std::string_view text, std::vector<Hidden> values)
        : text_(text), values_(std::move(values)) {
        std::sort(values_.begin(), values_.end());
    }

    // False when a value is not where it should be: `out` is not to be shown then.
    bool run(std::string& out) {
        if (text_.starts_with("\xef\xbb\xbf")) {
            out += text_.substr(0, 3);
            pos_ = 3;
        }
        while (pos_ < text_.size()) {
            const char c = text_[pos_];
            if (next_ < values_.size() && values_[next_].at == at_) {
                if (c != '"' && c != '\'' && c != '[') return false;
                out.append("\"").append(values_[next_++].shown).append("\"");
                skip_to(c == '[' ? end_of_array(text_, pos_) : end_of_string(text_, pos_));
                only_comment_ = false;
            } else if (c == '"' || c == '\'') {
                const std::size_t end = end_of_string(text_, pos_);
                out += text_.substr(pos_, end - pos_);
                skip_to(end);
                only_comment_ = false;
            } else if (c == '#') {
                std::size_t end = std::min(text_.find('\n', pos_), text_.size());
                if (end > pos_ && text_[end - 1] == '\r') --end;
                out += comments_.shown(text_.substr(pos_, end - pos_), only_comment_ && comment_above_);
                comment_here_ = true;
                skip_to(end);
            } else {
                out += c;
                skip_to(pos_ + 1);
                if (c == '\n') {
                    if (comment_here_ || !only_comment_) comment_above_ = std::exchange(comment_here_, false);
                    only_comment_ = true;
                } else if (c != ' ' && c != '\t' && c != '\r') {
                    only_comment_ = false;
                }
            }
        }
        return next_ == values_.size();
    }

  private:
    // Counts as the parser does: lines, and characters of UTF-8.
    void skip_to(std::size_t end) {
        for (; pos_ < end; ++pos_) {
            if (text_[pos_] == '\n') {
                at_ = {at_.line + 1, 1};
            } else if ((static_cast<unsigned char>(text_[pos_]) & 0xc0) != 0x80) {
                ++at_.column;
            }
        }
    }

    std::string_view text_;
    std::vector<Hidden> values_;
    std::size_t next_ = 0;
    std::size_t pos_ = 0;
    Position at_{1, 1};
    CommentFilter comments_;
    bool only_comment_ = true;    // nothing but one stands on this line so far
    bool comment_here_ = false;   // one does
    bool comment_above_ = false;  // one stands on the last line that is not empty
};

}  // namespace

bool carries_credentials(std::string_view header) {
    const std::string name = to_lower(header);
    for (const std::string_view part :
         {"authorization", "authenticat", "cookie", "token", "secret", "password", "passwd", "signature",
          "session", "credential", "api-key", "apikey", "api_key"}) {
        if (name.find(part) != std::string::npos) return true;
    }
    for (std::size_t begin = 0; begin <= name.size();) {
        const std::size_t end = std::min(name.find_first_of("-_", begin), name.size());
        const std::string_view part = std::string_view(name).substr(begin, end - begin);
        if (part.ends_with("auth") || part.ends_with("key") || part == "jwt" || part == "pwd") return true;
        begin = end + 1;
    }
    return false;
}

std::string hide_secrets(std::string_view source) {
    constexpr std::string_view kNothing =
        "# This file cannot be shown with its credentials hidden; see /config.\n";
    Diagnostics diagnostics("");
    const Value document = parse_document(source, diagnostics);
    std::vector<Hidden> values;
    std::string out;
    const bool sure = !diagnostics.has_errors() && find_values(document, false, values) &&
                      SourceFilter(source, std::move(values)).run(out);
    return sure ? out : std::string(kNothing);
}

}  // namespace outrider::config
