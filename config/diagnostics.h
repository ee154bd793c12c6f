// Collects what is wrong with a file, in whatever order the checks find it, and hands it out in
// file order.
//
// Invariants:
//   * reasons and keys are one printable line: control bytes are written as \xNN
//   * at most kDiagnosticsMax are kept; one more then says that there are others
//   * a position is known for every key that was read, so that checks across tables, which see only
//     Settings, can still point at the line
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/load.h"

namespace outrider::config {

inline constexpr std::size_t kDiagnosticsMax = 1000;

// A place in the file; both count from 1. {0, 0} is nowhere and never reported.
struct Position {
    unsigned line = 0;
    unsigned column = 0;
    friend auto operator<=>(const Position&, const Position&) = default;
};

class Diagnostics {
  public:
    explicit Diagnostics(std::string file) : file_(std::move(file)) {}

    void error(Position at, std::string_view key, std::string_view reason);
    void warning(Position at, std::string_view key, std::string_view reason);
    bool has_errors() const { return errors_ > 0; }
    bool full() const { return list_.size() >= kDiagnosticsMax; }  // what is added now is not kept

    // Remembers where a dotted key stands ("route[2].match.host").
    void locate(std::string key, Position at) { positions_.insert_or_assign(std::move(key), at); }
    // The position of the key, or of the nearest table around it that the file has; 1:1 when none.
    Position position_of(std::string_view key) const;
    bool located(std::string_view key) const { return positions_.find(key) != positions_.end(); }

    std::vector<Diagnostic> take();  // in file order; the collector is empty afterwards

  private:
    void add(Diagnostic::Severity severity, Position at, std::string_view key, std::string_view reason);

    std::string file_;
    std::vector<Diagnostic> list_;
    std::map<std::string, Position, std::less<>> positions_;
    std::size_t errors_ = 0;
    bool overflowed_ = false;
};

// How a key is written in a dotted path: bare where TOML allows it, else in quotes.
std::string key_text(std::string_view key);
// "route[2]" of the entry with index 1.
std::string indexed(std::string_view path, std::size_t index);

// The text on one printable line, cut to a readable length, for use inside a reason.
std::string printable(std::string_view text);
// The same in single quotes.
std::string in_quotes(std::string_view text);

}  // namespace outrider::config
