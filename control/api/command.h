// Commands as bytes: what stands in the replicated log and goes from a follower to the leader (control/proto/command.proto).
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "control/store/types.h"

namespace outrider::api {

std::string encode_command(const store::Command& command);
Result<store::Command> decode_command(std::string_view bytes);

}  // namespace outrider::api
