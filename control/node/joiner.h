// Asks the members of a cluster who this node is: how a node with an empty disk finds the place that a member/add has made for it.
#pragma once

#include "base/result.h"
#include "config/control_settings.h"
#include "control/node/log_records.h"

namespace outrider::node {

// Asks one peer after the other, again and again, until one knows this node's address: an operator may add it later. Blocks; the
// process is ended by its signals as ever. An error is one that waiting does not mend.
Result<Identity> ask_to_join(const config::ControlSettings& settings);

}  // namespace outrider::node
