#include "config/document.h"

#include <algorithm>
#include <string>

#include "config/toml_library.h"

namespace outrider::config {
namespace {

constexpr std::size_t kDottedPartsMax = 16;

Position begin_of(const toml::source_region& region) {
    return {static_cast<unsigned>(region.begin.line), static_cast<unsigned>(region.begin.column)};
}

// Finds what toml++ 3.3 does not bound. It scans as TOML reads up to the first syntax error, where parsing stops.
//   * A dotted key with too many parts: the library frees the tables that they make by recursion, so one long line of
//     "a.a.a..." would overflow the stack.
//   * Too many tables: the library keeps those that arrays, dotted keys and headers made in plain vectors and searches
//     them for each part of each header and dotted key. 4 MiB of "[[a]] [[a.b]] [[a.b.c]]" took 20 seconds.
class TableScan {
  public:
    explicit TableScan(std::string_view text) : text_(text) {}

    // Reports the first and returns true.
    bool too_much(Diagnostics& diagnostics) {
        while (pos_ < text_.size()) {
            const char c = text_[pos_];
            if (c == '"' || c == '\'') {
                skip_string();
                continue;
            }
            if (c == '#') {
                pos_ = std::min(text_.find('\n', pos_), text_.size());
                continue;
            }
            if (c == '.' || (c == '[' && blank_line_)) {
                if (c == '.' && ++dots_ >= kDottedPartsMax) {
                    return report(diagnostics, "a key of more than ", kDottedPartsMax, " dotted parts");
                }
                if (!in_value_ && ++parts_ > kTablePartsMax) {
                    return report(diagnostics, "more than ", kTablePartsMax,
                                  " table headers and dots in keys");
                }
            }
            step(c);
            ++pos_;
        }
        return false;
    }

  private:
    void step(char c) {
        if (c == '\n') {
            dots_ = 0;
            blank_line_ = true;
            in_value_ = false;
            new_line(pos_);
            return;
        }
        if (c != ' ' && c != '\t') blank_line_ = false;
        if (std::string_view("=,[]{}").find(c) != std::string_view::npos) {
            dots_ = 0;
            in_value_ = c == '=';  // behind '{' and ',' there may be keys again
        }
    }
    void new_line(std::size_t at) {
        ++line_;
        line_start_ = at + 1;
    }
    bool report(Diagnostics& diagnostics, std::string_view before, std::size_t max, std::string_view after) {
        const Position at{line_, static_cast<unsigned>(pos_ - line_start_ + 1)};
        diagnostics.error(at, "", std::string(before) + std::to_string(max) + std::string(after));
        return true;
    }
    void skip_string() {
        const std::size_t end = end_of_string(text_, pos_);
        for (; pos_ < end; ++pos_) {
            if (text_[pos_] == '\n') new_line(pos_);
        }
        blank_line_ = false;
    }

    std::string_view text_;
    std::size_t pos_ = 0;
    std::size_t line_start_ = 0;
    unsigned line_ = 1;
    std::size_t dots_ = 0;   // in this key
    std::size_t parts_ = 0;  // of all keys and headers
    bool blank_line_ = true;
    bool in_value_ = false;
};

Value convert(const toml::node& node);

Value convert_table(const toml::table& table) {
    Value out;
    out.kind = Value::Kind::kTable;
    for (const auto& [key, node] : table) {
        out.members.push_back({std::string(key.str()), begin_of(key.source()), convert(node)});
    }
    // The library sorts by key; people think in file order.
    std::stable_sort(out.members.begin(), out.members.end(),
                     [](const Member& a, const Member& b) { return a.at < b.at; });
    return out;
}

Value convert(const toml::node& node) {
    Value out;
    if (const auto* table = node.as_table()) {
        out = convert_table(*table);
    } else if (const auto* array = node.as_array()) {
        out.kind = Value::Kind::kArray;
        out.elements.reserve(array->size());
        for (const toml::node& element : *array)
            out.elements.push_back(convert(element));
    } else if (const auto* string = node.as_string()) {
        out.kind = Value::Kind::kString;
        out.string = string->get();
    } else if (const auto* integer = node.as_integer()) {
        out.kind = Value::Kind::kInteger;
        out.integer = integer->get();
    } else if (const auto* number = node.as_floating_point()) {
        out.kind = Value::Kind::kNumber;
        out.number = number->get();
    } else if (const auto* boolean = node.as_boolean()) {
        out.kind = Value::Kind::kBoolean;
        out.boolean = boolean->get();
    } else {
        out.kind = Value::Kind::kTime;
    }
    out.at = begin_of(node.source());
    return out;
}

}  // namespace

std::string_view kind_name(Value::Kind kind) {
    switch (kind) {
        case Value::Kind::kString:
            return "a string";
        case Value::Kind::kInteger:
            return "an integer";
        case Value::Kind::kNumber:
            return "a number";
        case Value::Kind::kBoolean:
            return "a boolean";
        case Value::Kind::kTime:
            return "a date or time";
        case Value::Kind::kArray:
            return "an array";
        case Value::Kind::kTable:
            return "a table";
    }
    return "a value";
}

std::size_t end_of_string(std::string_view text, std::size_t at) {
    const char quote = text[at];
    const std::string triple(3, quote);
    const bool multi_line = text.substr(at, 3) == triple;
    at += multi_line ? 3 : 1;
    while (at < text.size()) {
        const char c = text[at];
        if (c == '\\' && quote == '"' && at + 1 < text.size() && text[at + 1] != '\n') {
            at += 2;
        } else if (c == '\n' && !multi_line) {
            return at;  // not closed
        } else if (c == quote && (!multi_line || text.substr(at, 3) == triple)) {
            at += multi_line ? 3 : 1;
            // Up to two quotes may stand directly before the closing three.
            while (multi_line && at < text.size() && text[at] == quote)
                ++at;
            return at;
        } else {
            ++at;
        }
    }
    return at;
}

namespace {

// The library's words for the most frequent slip name its consequence.
std::string_view hint_for(std::string_view description) {
    const bool line_end = description.find("control characters") != std::string_view::npos;
    return line_end ? " (is a closing quote missing on this line?)" : "";
}

}  // namespace

Value parse_document(std::string_view text, Diagnostics& diagnostics) {
    if (TableScan(text).too_much(diagnostics)) return {};
    const toml::parse_result parsed = toml::parse(text);
    if (!parsed) {
        diagnostics.error(begin_of(parsed.error().source()), "",
                          "not valid TOML: " + std::string(parsed.error().description()) +
                              std::string(hint_for(parsed.error().description())));
        return {};
    }
    return convert(parsed.table());
}

}  // namespace outrider::config
