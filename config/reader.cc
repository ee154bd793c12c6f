#include "config/reader.h"

#include <algorithm>

#include "base/check.h"
#include "config/environment.h"
#include "config/suggest.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

// What a person most likely meant by the wrong type.
std::string type_hint(std::string_view wanted, const Value& found) {
    if (found.kind == Value::Kind::kInteger && wanted.starts_with("a duration")) {
        return "; a unit is needed: \"" + std::to_string(found.integer) + "s\"";
    }
    if (found.kind == Value::Kind::kInteger && wanted.starts_with("a size")) {
        return "; a unit is needed: \"" + std::to_string(found.integer) + "B\"";
    }
    if (found.kind == Value::Kind::kString && !wanted.starts_with("a string") &&
        (wanted.find("integer") != std::string_view::npos || wanted == "true or false")) {
        return "; write it without quotes";
    }
    return "";
}

}  // namespace

TableReader::TableReader(ReadContext& context, const Value& table, std::string path)
    : context_(context), table_(&table), path_(std::move(path)) {
    require(table.kind == Value::Kind::kTable, "a TableReader reads a table");
    if (!path_.empty()) context_.diagnostics.locate(path_, table.at);
}

std::string TableReader::path_of(std::string_view key) const {
    return path_.empty() ? key_text(key) : path_ + "." + key_text(key);
}

const Member* TableReader::find(std::string_view key) {
    if (std::find(known_.begin(), known_.end(), key) == known_.end()) known_.emplace_back(key);
    for (const Member& member : table_->members) {
        if (member.key != key) continue;
        context_.diagnostics.locate(path_of(key), member.value.at);
        return &member;
    }
    return nullptr;
}

bool TableReader::has(std::string_view key) {
    return find(key) != nullptr;
}

bool TableReader::holds(std::string_view key, Value::Kind kind) {
    const Member* member = find(key);
    return member != nullptr && member->value.kind == kind;
}

bool TableReader::require_key(std::string_view key, std::string_view example) {
    if (has(key)) return true;
    context_.diagnostics.error(table_->at, path_of(key),
                               "missing; it is required (" + std::string(example) + ")");
    return false;
}

bool TableReader::expect(const Member& member, Value::Kind kind, std::string_view wanted) {
    if (member.value.kind == kind) return true;
    context_.diagnostics.error(member.value.at, path_of(member.key),
                               "expected " + std::string(wanted) + ", found " +
                                   std::string(kind_name(member.value.kind)) +
                                   type_hint(wanted, member.value));
    return false;
}

bool TableReader::expand(const Value& value, const std::string& path, std::string& out) {
    Expansion expansion = expand_environment(value.string, context_.env);
    for (const std::string& reason : expansion.errors) {
        context_.diagnostics.error(value.at, path, reason);
    }
    if (!expansion.errors.empty()) return false;
    out = std::move(expansion.text);
    return true;
}

bool TableReader::text(std::string_view key, std::string& out) {
    const Member* member = find(key);
    return member != nullptr && expect(*member, Value::Kind::kString, "a string") &&
           expand(member->value, path_of(key), out);
}

bool TableReader::boolean(std::string_view key, bool& out) {
    const Member* member = find(key);
    if (member == nullptr || !expect(*member, Value::Kind::kBoolean, "true or false")) return false;
    out = member->value.boolean;
    return true;
}

bool TableReader::duration(std::string_view key, Duration& out, Range<Duration> range) {
    const Member* member = find(key);
    std::string raw;
    if (member == nullptr || !expect(*member, Value::Kind::kString, "a duration such as \"250ms\"") ||
        !expand(member->value, path_of(key), raw)) {
        return false;
    }
    const Result<Duration> value = parse_duration(raw);
    if (!value) {
        error(key, value.error());
        return false;
    }
    if (value.value() < range.min || value.value() > range.max) {
        error(key, raw + " is out of range (" + outrider::to_string(range.min) + " to " +
                       outrider::to_string(range.max) + ")");
        return false;
    }
    out = value.value();
    return true;
}

bool TableReader::size(std::string_view key, Bytes& out, Range<Bytes> range) {
    const Member* member = find(key);
    std::string raw;
    if (member == nullptr || !expect(*member, Value::Kind::kString, "a size such as \"64KiB\"") ||
        !expand(member->value, path_of(key), raw)) {
        return false;
    }
    const Result<Bytes> value = parse_bytes(raw);
    if (!value) {
        error(key, value.error());
        return false;
    }
    if (value.value() < range.min || value.value() > range.max) {
        error(key, raw + " is out of range (" + outrider::to_string(range.min) + " to " +
                       outrider::to_string(range.max) + ")");
        return false;
    }
    out = value.value();
    return true;
}

bool TableReader::number(std::string_view key, double& out, Range<double> range) {
    const Member* member = find(key);
    if (member == nullptr) return false;
    double value = 0;
    if (member->value.kind == Value::Kind::kInteger) {
        value = static_cast<double>(member->value.integer);
    } else if (expect(*member, Value::Kind::kNumber, "a number")) {
        value = member->value.number;
    } else {
        return false;
    }
    if (!(value >= range.min && value <= range.max)) {  // so that NaN is refused
        error(key, number_text(value) + " is out of range (" + number_text(range.min) + " to " +
                       number_text(range.max) + ")");
        return false;
    }
    out = value;
    return true;
}

std::optional<std::int64_t> TableReader::integer_within(std::string_view key, std::int64_t min,
                                                        std::int64_t max) {
    const Member* member = find(key);
    if (member == nullptr || !expect(*member, Value::Kind::kInteger, "an integer")) {
        return std::nullopt;
    }
    const std::int64_t value = member->value.integer;
    if (value < min || value > max) {
        error(key, std::to_string(value) + " is out of range (" + std::to_string(min) + " to " +
                       std::to_string(max) + ")");
        return std::nullopt;
    }
    return value;
}

std::optional<std::size_t> TableReader::word_index(std::string_view key,
                                                   const std::vector<std::string>& words) {
    std::string raw;
    if (!text(key, raw)) return std::nullopt;
    const auto it = std::find(words.begin(), words.end(), raw);
    if (it != words.end()) return static_cast<std::size_t>(it - words.begin());
    std::string all;
    for (const std::string& word : words)
        all += (all.empty() ? "" : ", ") + word;
    error(key, in_quotes(raw) + " is not one of: " + all + did_you_mean(raw, words));
    return std::nullopt;
}

bool TableReader::for_each_text(
    std::string_view key, Range<std::size_t> count,
    const std::function<bool(const std::string&, Position, const std::string&)>& f) {
    const Member* member = find(key);
    if (member == nullptr || !expect(*member, Value::Kind::kArray, "an array of strings")) {
        return false;
    }
    const std::vector<Value>& elements = member->value.elements;
    if (elements.size() < count.min) {
        error(key, "is empty; give at least one element or leave the key out");
        return false;
    }
    if (elements.size() > count.max) {
        error(key, "has more than " + std::to_string(count.max) + " elements");
        return false;
    }
    bool right = true;
    for (std::size_t i = 0; i < elements.size(); ++i) {
        const Value& element = elements[i];
        const std::string path = indexed(path_of(key), i);
        context_.diagnostics.locate(path, element.at);
        std::string raw;
        if (element.kind != Value::Kind::kString) {
            context_.diagnostics.error(element.at, path,
                                       "expected a string, found " + std::string(kind_name(element.kind)));
            right = false;
        } else if (!expand(element, path, raw) || !f(path, element.at, raw)) {
            right = false;
        }
    }
    return right;
}

std::optional<TableReader> TableReader::table(std::string_view key) {
    const Member* member = find(key);
    if (member == nullptr) return std::nullopt;
    const Value& value = member->value;
    if (value.kind == Value::Kind::kArray && value.elements.size() == 1 &&
        value.elements.front().kind == Value::Kind::kTable) {
        error(key, "there is only one; write [" + path_of(key) + "], not [[" + path_of(key) + "]]");
        return TableReader(context_, value.elements.front(), path_of(key));
    }
    if (!expect(*member, Value::Kind::kTable, "a table")) return std::nullopt;
    return TableReader(context_, value, path_of(key));
}

std::vector<TableReader> TableReader::tables(std::string_view key, Range<std::size_t> count) {
    std::vector<TableReader> out;
    const Member* member = find(key);
    if (member == nullptr) return out;
    const Value& value = member->value;
    const std::string path = path_of(key);
    if (value.kind == Value::Kind::kTable) {
        context_.diagnostics.error(value.at, path,
                                   "there can be several; write [[" + path + "]], not [" + path + "]");
        out.emplace_back(context_, value, indexed(path, 0));
        return out;
    }
    if (!expect(*member, Value::Kind::kArray, "an array of tables")) return out;
    if (value.elements.size() < count.min) error(key, "is empty; at least one is needed");
    if (value.elements.size() > count.max) {
        error(key, "there are more than " + std::to_string(count.max));
        return out;
    }
    out.reserve(value.elements.size());
    for (std::size_t i = 0; i < value.elements.size(); ++i) {
        const Value& element = value.elements[i];
        if (element.kind == Value::Kind::kTable) {
            out.emplace_back(context_, element, indexed(path, i));
        } else {
            context_.diagnostics.error(element.at, indexed(path, i),
                                       "expected a table, found " + std::string(kind_name(element.kind)));
        }
    }
    return out;
}

void TableReader::for_each_key(std::string_view key, std::size_t max,
                               const std::function<void(TableReader&, const std::string&)>& f) {
    std::optional<TableReader> inner = table(key);
    if (!inner) return;
    if (inner->table_->members.size() > max) {
        error(key, "has more than " + std::to_string(max) + " keys");
        return;
    }
    for (const Member& member : inner->table_->members)
        f(*inner, member.key);
}

bool TableReader::texts(std::string_view key, std::size_t max, std::vector<std::string>& out) {
    const Member* member = find(key);
    if (member == nullptr) return false;
    if (member->value.kind == Value::Kind::kArray) {
        return for_each_text(key, {1, max}, [&](const std::string&, Position, const std::string& value) {
            out.push_back(value);
            return true;
        });
    }
    std::string value;
    if (!expect(*member, Value::Kind::kString, "a string or an array of strings") ||
        !expand(member->value, path_of(key), value)) {
        return false;
    }
    out.push_back(std::move(value));
    return true;
}

void TableReader::error(std::string_view key, std::string_view reason) {
    const std::string path = path_of(key);
    context_.diagnostics.error(context_.diagnostics.position_of(path), path, reason);
}

void TableReader::error_above(std::string_view low, std::string_view low_text, std::string_view high,
                              std::string_view high_text) {
    const bool at_low = has(low);
    const std::string_view other = at_low ? high : low;
    std::string reason(at_low ? low_text : high_text);
    reason.append(at_low ? " is above " : " is below ").append(other).append(" (");
    reason.append(at_low ? high_text : low_text).append(has(other) ? ")" : ", the default)");
    error(at_low ? low : high, reason);
}

void TableReader::error_here(std::string_view reason) {
    context_.diagnostics.error(table_->at, path_, reason);
}

void TableReader::warning(std::string_view key, std::string_view reason) {
    const std::string path = path_of(key);
    context_.diagnostics.warning(context_.diagnostics.position_of(path), path, reason);
}

void TableReader::finish() {
    std::size_t unknown = 0;
    for (const Member& member : table_->members) {
        if (std::find(known_.begin(), known_.end(), member.key) != known_.end()) continue;
        if (++unknown > kDiagnosticsMax + 1) return;  // no more than that is kept anyway
        const std::string near = context_.diagnostics.full() ? "" : did_you_mean(member.key, known_);
        context_.diagnostics.error(member.at, path_of(member.key), "unknown key" + near);
    }
}

}  // namespace outrider::config
