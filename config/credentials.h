// Which header fields carry credentials, and a file without them.
#pragma once

#include <string>
#include <string_view>

namespace outrider::config {

// Authorization, Cookie, names with "token", "secret", "password", "signature", "session" and the like in them, and those of
// which a part (between '-' and '_') is or ends in "auth" or "key": X-Auth, Private-Key, X-AccessKey, but not X-Keyboard.
bool carries_credentials(std::string_view name);

}  // namespace outrider::config
