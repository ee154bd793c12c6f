// A TOML file as a plain tree with positions. It stands between the TOML library and the readers,
// so that one file alone knows the library (and pays for compiling it).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/diagnostics.h"

namespace outrider::config {

struct Member;

struct Value {
    enum class Kind : std::uint8_t { kString, kInteger, kNumber, kBoolean, kTime, kArray, kTable };
    Kind kind = Kind::kTable;
    Position at;  // of the value; for [table] headers, of the bracket
    std::string string;
    std::int64_t integer = 0;
    double number = 0;
    bool boolean = false;
    std::vector<Value> elements;  // kArray
    std::vector<Member> members;  // kTable, in file order
};

struct Member {
    std::string key;
    Position at;  // of the key
    Value value;
};

// "a string", "an integer", ...: for sentences like "expected a string, found an integer".
std::string_view kind_name(Value::Kind kind);

// Parses TOML 1.0. A syntax error is reported to `diagnostics` (the library stops at the first) and
// yields an empty table. Keys of more than 16 dotted parts and values nested deeper than 32 are
// errors, which bounds the recursion here and in the library on hostile input. So are more than
// kTablePartsMax table headers and dots in keys, since the library looks for each among all of them.
inline constexpr std::size_t kTablePartsMax = 100'000;
Value parse_document(std::string_view text, Diagnostics& diagnostics);

// Where the string literal that begins at text[at], with a quote, ends: behind its last quote, or, when it is not
// closed, where TOML stops to read it.
std::size_t end_of_string(std::string_view text, std::size_t at);

}  // namespace outrider::config
