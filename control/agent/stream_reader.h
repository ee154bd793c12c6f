// Cuts a stream of the API (one JSON object a line) into its lines, from pieces of any size. Pure.
//
// Invariants
//   * what is kept never exceeds line_bytes_max; a longer line is an error, and so is everything after it
//   * a line is handed out once, whole, without its line feed (and carriage return); empty lines are passed over
//   * what follows the last line feed is no line: a stream that is cut delivers no half of a message
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace outrider::agent {

class StreamReader {
  public:
    explicit StreamReader(std::size_t line_bytes_max) : line_bytes_max_(line_bytes_max) {}

    void add(std::string_view bytes);
    // The next line, nothing yet, or an error. Valid until the next call of either.
    Result<std::optional<std::string_view>> next();

    std::size_t kept() const { return pending_.size() - taken_; }

  private:
    const std::size_t line_bytes_max_;
    std::string pending_;
    std::size_t taken_ = 0;      // of pending_: handed out
    std::size_t looked_at_ = 0;  // of pending_: without a line feed
    bool too_long_ = false;
};

}  // namespace outrider::agent
