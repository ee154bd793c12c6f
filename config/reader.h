// Reads one TOML table into settings: types, ranges, unknown keys, positions.
//
// Invariants:
//   * every mistake is reported once and reading goes on: what is wrong keeps its default
//   * each key that is asked for is thereby known; finish() reports all others
//   * every read returns true exactly when the key was there and right
//   * strings are substituted from the environment before they are looked at
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "config/diagnostics.h"
#include "config/document.h"
#include "config/load.h"

namespace outrider::config {

struct ReadContext {
    Diagnostics& diagnostics;
    const EnvLookup& env;
};

template <typename T>
struct Range {
    T min;
    T max;
};

template <typename E>
struct Choice {
    std::string_view word;
    E value;
};

class TableReader {
  public:
    // `table` must be of kind kTable and outlive the reader. `path` is "" for the root.
    TableReader(ReadContext& context, const Value& table, std::string path);

    bool has(std::string_view key);
    bool holds(std::string_view key, Value::Kind kind);  // with a value of that kind; reports nothing
    // Reports a missing key at the table's header.
    bool require_key(std::string_view key, std::string_view example);

    bool text(std::string_view key, std::string& out);
    bool boolean(std::string_view key, bool& out);
    bool duration(std::string_view key, Duration& out, Range<Duration> range);
    bool size(std::string_view key, Bytes& out, Range<Bytes> range);
    bool number(std::string_view key, double& out, Range<double> range);

    template <typename T>
    bool integer(std::string_view key, T& out, Range<T> range) {
        const auto value =
            integer_within(key, static_cast<std::int64_t>(range.min), static_cast<std::int64_t>(range.max));
        if (value) out = static_cast<T>(*value);
        return value.has_value();
    }

    // One of the words.
    template <typename E>
    bool choice(std::string_view key, std::span<const Choice<E>> choices, E& out) {
        std::vector<std::string> words;
        words.reserve(choices.size());
        for (const Choice<E>& c : choices)
            words.emplace_back(c.word);
        const auto index = word_index(key, words);
        if (index) out = choices[*index].value;
        return index.has_value();
    }

    // A string with a grammar of its own (syntax.h).
    template <typename T, typename Out>
    bool parsed(std::string_view key, Out& out, Result<T> (*parse)(std::string_view)) {
        std::string raw;
        if (!text(key, raw)) return false;
        Result<T> value = parse(raw);
        if (!value) {
            error(key, value.error());
            return false;
        }
        out = std::move(*value);
        return true;
    }

    // An array of `count` strings, each with a grammar; elements that are wrong are reported and
    // left out. True when the key is there and every element is right.
    template <typename T>
    bool list(std::string_view key, std::vector<T>& out, Result<T> (*parse)(std::string_view),
              Range<std::size_t> count) {
        return for_each_text(key, count, [&](const std::string& path, Position at, const std::string& raw) {
            Result<T> value = parse(raw);
            if (!value) {
                context_.diagnostics.error(at, path, value.error());
                return false;
            }
            out.push_back(std::move(*value));
            return true;
        });
    }

    // A table of this table; nothing when absent or not a table (reported).
    std::optional<TableReader> table(std::string_view key);
    // An array of `count` tables; a single table is reported but still read, so that its mistakes show too.
    std::vector<TableReader> tables(std::string_view key, Range<std::size_t> count);

    // A table with free keys: calls f(reader, key) for each; f reads the key from the reader it is
    // given.
    void for_each_key(std::string_view key, std::size_t max,
                      const std::function<void(TableReader&, const std::string&)>& f);
    // A string, or an array of strings, as f(value) in order; for keys that take both.
    bool texts(std::string_view key, std::size_t max, std::vector<std::string>& out);

    void error(std::string_view key, std::string_view reason);
    void error_here(std::string_view reason);
    // Says that the value of `low` exceeds that of `high`, at the one that the file has (at `low` when both).
    void error_above(std::string_view low, std::string_view low_text, std::string_view high,
                     std::string_view high_text);
    void warning(std::string_view key, std::string_view reason);

    // Reports every key that was not asked for.
    void finish();

    const std::string& path() const { return path_; }
    std::string path_of(std::string_view key) const;

  private:
    const Member* find(std::string_view key);
    bool expect(const Member& member, Value::Kind kind, std::string_view wanted);
    bool expand(const Value& value, const std::string& path, std::string& out);
    std::optional<std::int64_t> integer_within(std::string_view key, std::int64_t min, std::int64_t max);
    std::optional<std::size_t> word_index(std::string_view key, const std::vector<std::string>& words);
    bool for_each_text(std::string_view key, Range<std::size_t> count,
                       const std::function<bool(const std::string&, Position, const std::string&)>& f);

    ReadContext& context_;
    const Value* table_;
    std::string path_;
    std::vector<std::string> known_;
};

}  // namespace outrider::config
