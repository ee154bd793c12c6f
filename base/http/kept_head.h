// A response's head as text that outlives its connection, and back: what is recorded to be given again.
//
//     reason CRLF, then for each field that is passed on: name ": " value CRLF
//
// Without framing: the body that is kept beside it says its own length. What comes back may come from another machine (a shared store), so
// parse() believes nothing: a line that is not a field of RFC 9110 section 5.1 and 5.5 makes it fail.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/http/message.h"

namespace outrider::http {

// Of a head that can be kept; what is recorded has at most as many.
inline constexpr std::uint32_t kKeptFieldsMax = 1000;

// The fields of `head` that are not dropped.
std::string kept_head(const ResponseHead& head);

class KeptHead {
  public:
    // `text` outlives this. False: it is not what kept_head() makes.
    bool parse(std::string_view text, int status);
    ResponseHead& head() { return head_; }

  private:
    ResponseHead head_;
    std::vector<FieldRef> fields_;
};

}  // namespace outrider::http
