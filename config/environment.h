// ${NAME} and ${NAME:-default} inside string values.
//
//   ${NAME}           the variable's value; an error when it is unset
//   ${NAME:-default}  as in a shell: the default when the variable is unset or empty; the default
//   runs to
//                     the next '}' and may be empty
//   $${               a literal "${"
// A '$' before anything else is itself. Values are not substituted again. NAME is
// [A-Za-z_][A-Za-z0-9_]*.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/load.h"

namespace outrider::config {

struct Expansion {
    std::string text;
    std::vector<std::string> errors;  // one sentence for each mistake; `text` is unusable when there is any
};

Expansion expand_environment(std::string_view text, const EnvLookup& env);

// The text with every "${" written so that expand_environment() gives it back unchanged.
std::string escape_environment(std::string_view text);

bool is_utf8(std::string_view text);

}  // namespace outrider::config
