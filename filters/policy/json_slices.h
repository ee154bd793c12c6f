// Where the children of a JSON array or object lie in its text. For text that a parser has found valid: simdjson's DOM
// says what the children are, in the same order, and this says where, so that they can be passed on as they were written.
// (Its on-demand parser gives raw text too, but does not validate what it skips, and without -march it has no SIMD.)
#pragma once

#include <cstddef>
#include <string_view>

namespace outrider::policy {

std::string_view trim_json(std::string_view text);

class JsonSlices {
  public:
    // `container`: trimmed, begins with [ or {.
    explicit JsonSlices(std::string_view container)
        : rest_(container.substr(1)), keyed_(container[0] == '{') {}

    // The next element, or the value of the next member. To be called as often as there are children.
    std::string_view next();

  private:
    std::string_view take();  // one value from the front of rest_
    void skip_to_value();     // whitespace, commas and colons

    std::string_view rest_;
    bool keyed_;
};

}  // namespace outrider::policy
