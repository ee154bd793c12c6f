// Messages of the API as JSON and back, for what nearly all requests and answers look like.
//
// Protobuf's own util writes and reads all of proto3's JSON mapping through type descriptions of its own, at a price of some ten
// microseconds a message: a third of what a put costs a node. What is common is done here by reflection; at the first thing that
// is not, both functions say false, and the caller asks protobuf. So its result is the contract: whatever these two say true to,
// protobuf says the same to (tests/control_api/json_test.cc compares them).
#pragma once

#include <string>
#include <string_view>

#include <google/protobuf/message.h>

namespace outrider::api {

// Appends the message as MessageToJsonString writes it with preserve_proto_field_names. False: nothing is appended; a text with
// characters to escape, or a kind of field that no message of the API has.
bool write_json(const google::protobuf::Message& message, std::string& out);

// Reads one object into an empty message. False: the message holds anything. More than 64 KiB, unknown or repeated
// names, null, other spellings of numbers or of base64, and what is wrong: protobuf judges those.
bool read_json(std::string_view text, google::protobuf::Message& message);

}  // namespace outrider::api
