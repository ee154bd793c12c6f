// Between the store's plain values and the messages of control/proto: field by field, nothing is judged here.
#pragma once

#include "control/proto/kv.pb.h"
#include "control/store/types.h"

namespace outrider::api {

namespace v3 = outrider::control::v3;

store::RangeRequest from_proto(const v3::RangeRequest& in);
store::PutRequest from_proto(const v3::PutRequest& in);
store::DeleteRequest from_proto(const v3::DeleteRangeRequest& in);
// Messages nest at most as deep as protobuf's parsers let them (100).
store::TxnRequest from_proto(const v3::TxnRequest& in);

void to_proto(const store::RangeRequest& in, v3::RangeRequest& out);
void to_proto(const store::PutRequest& in, v3::PutRequest& out);
void to_proto(const store::DeleteRequest& in, v3::DeleteRangeRequest& out);
void to_proto(const store::TxnRequest& in, v3::TxnRequest& out);

void to_proto(const store::KeyValue& in, v3::KeyValue& out);
// Without their headers.
void to_proto(const store::RangeResponse& in, v3::RangeResponse& out);
void to_proto(const store::PutResponse& in, v3::PutResponse& out);
void to_proto(const store::DeleteResponse& in, v3::DeleteRangeResponse& out);
// With the headers of the operations inside, which etcd gives a revision and nothing else.
void to_proto(const store::TxnResponse& in, v3::TxnResponse& out);

}  // namespace outrider::api
