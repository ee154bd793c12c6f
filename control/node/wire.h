// Consensus' plain values and their messages (control/proto/node.proto), both ways. Pure.
//
// What comes from outside is checked here as far as the core does not do it: types that are known, configurations that are
// sorted and within their bound.
#pragma once

#include "base/result.h"
#include "control/proto/node.pb.h"
#include "control/raft/message.h"
#include "control/raft/types.h"

namespace outrider::node {

namespace proto = outrider::control::node;

void to_proto(const raft::Configuration& in, proto::Configuration& out);
void to_proto(const raft::Entry& in, proto::Entry& out);
void to_proto(const raft::SnapshotMeta& in, proto::SnapshotMeta& out);
void to_proto(const raft::Message& in, proto::RaftMessage& out);

// They take the bytes of commands and chunks out of `in`.
Result<raft::ConfigurationRef> from_proto(const proto::Configuration& in);
Result<raft::Entry> from_proto(proto::Entry& in);
Result<raft::SnapshotMeta> from_proto(const proto::SnapshotMeta& in);
Result<raft::Message> from_proto(proto::RaftMessage& in, raft::NodeId from, raft::NodeId to);

}  // namespace outrider::node
