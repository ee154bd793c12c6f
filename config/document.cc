#include "config/document.h"

#include <algorithm>
#include <optional>

#include "config/toml_library.h"

namespace outrider::config {
namespace {

constexpr unsigned kDottedPartsMax = 16;

Position begin_of(const toml::source_region& region) {
    return {static_cast<unsigned>(region.begin.line), static_cast<unsigned>(region.begin.column)};
}

// Finds a dotted key with too many parts. toml++ 3.3 bounds the nesting of values but not that of
// dotted keys, and frees the tables they make by recursion: one long line of "a.a.a..." would
// overflow the stack. The scan agrees with TOML up to the first syntax error, where parsing stops.
class DottedKeyScan {
  public:
    explicit DottedKeyScan(std::string_view text) : text_(text) {}

    std::optional<Position> too_deep() {
        while (pos_ < text_.size()) {
            const char c = text_[pos_];
            if (c == '"' || c == '\'') {
                skip_string(c);
                continue;
            }
            if (c == '#') {
                while (pos_ < text_.size() && text_[pos_] != '\n')
                    ++pos_;
                continue;
            }
            if (c == '.') {
                if (++dots_ >= kDottedPartsMax) return position();
            } else if (c == '\n') {
                dots_ = 0;
                new_line();
            } else if (std::string_view("=,[]{}").find(c) != std::string_view::npos) {
                dots_ = 0;
            }
            ++pos_;
        }
        return std::nullopt;
    }

  private:
    void new_line() {
        ++line_;
        line_start_ = pos_ + 1;
    }
    Position position() const { return {line_, static_cast<unsigned>(pos_ - line_start_ + 1)}; }

    void skip_string(char quote) {
        const std::string triple(3, quote);
        const bool multi_line = text_.substr(pos_, 3) == triple;
        pos_ += multi_line ? 3 : 1;
        while (pos_ < text_.size()) {
            const char c = text_[pos_];
            if (c == '\\' && quote == '"' && pos_ + 1 < text_.size() && text_[pos_ + 1] != '\n') {
                pos_ += 2;
                continue;
            }
            if (c == '\n') {
                if (!multi_line) return;  // unterminated: TOML stops here too
                new_line();
            }
            if (c == quote && (!multi_line || text_.substr(pos_, 3) == triple)) {
                pos_ += multi_line ? 3 : 1;
                // Up to two quotes may stand directly before the closing three.
                while (multi_line && pos_ < text_.size() && text_[pos_] == quote)
                    ++pos_;
                return;
            }
            ++pos_;
        }
    }

    std::string_view text_;
    std::size_t pos_ = 0;
    std::size_t line_start_ = 0;
    unsigned line_ = 1;
    unsigned dots_ = 0;
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

Value parse_document(std::string_view text, Diagnostics& diagnostics) {
    if (const auto at = DottedKeyScan(text).too_deep()) {
        diagnostics.error(*at, "", "a key of more than " + std::to_string(kDottedPartsMax) + " dotted parts");
        return {};
    }
    const toml::parse_result parsed = toml::parse(text);
    if (!parsed) {
        diagnostics.error(begin_of(parsed.error().source()), "",
                          "not valid TOML: " + std::string(parsed.error().description()));
        return {};
    }
    return convert(parsed.table());
}

}  // namespace outrider::config
