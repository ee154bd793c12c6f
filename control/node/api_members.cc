// Changes of members as clients ask for them.
#include "control/node/api_call.h"
#include "control/node/identity.h"

namespace outrider::node {

void ApiCall::begin_member_change() {
    send(api::refuse(api::Code::kUnimplemented, "changes of members are not served yet"));
}

void ApiCall::on_members(raft::Refusal) {}

}  // namespace outrider::node
