#include "control/agent/wire.h"

#include <google/protobuf/util/json_util.h>

#include "base/check.h"

namespace outrider::agent {

std::string to_json(const google::protobuf::Message& message) {
    google::protobuf::util::JsonPrintOptions options;
    options.preserve_proto_field_names = true;
    std::string text;
    const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
    require(status.ok(), "a request can be written as JSON: its texts are UTF-8");
    return text;
}

bool from_json(std::string_view text, google::protobuf::Message& message) {
    google::protobuf::util::JsonParseOptions options;
    options.ignore_unknown_fields = true;
    return google::protobuf::util::JsonStringToMessage({text.data(), text.size()}, &message, options).ok();
}

v3::Refusal refusal_from(int http_status, std::string_view body) {
    v3::Refusal refusal;
    if (from_json(body, refusal) && refusal.code() != 0) {
        if (refusal.message().empty()) refusal.set_message(refusal.error());
        if (refusal.error().empty())
            refusal.set_error(refusal.message());  // of a gateway that sends one text
        return refusal;
    }
    refusal.Clear();
    refusal.set_message("the endpoint answered with HTTP status " + std::to_string(http_status));
    return refusal;
}

v3::Refusal refusal_from(const v3::StreamError& error) {
    v3::Refusal refusal;
    refusal.set_code(error.grpc_code());
    refusal.set_error(error.message());
    refusal.set_message(error.message());
    return refusal;
}

AttemptEnd end_of_refused(int http_status, const v3::Refusal& refusal) {
    return {.http_status = http_status, .code = refusal.code(), .text = refusal.error()};
}

std::string prefix_end(std::string_view prefix) {
    std::string end(prefix);
    while (!end.empty()) {
        if (static_cast<unsigned char>(end.back()) != 0xff) {
            ++end.back();
            return end;
        }
        end.pop_back();
    }
    return std::string(1, '\0');
}

}  // namespace outrider::agent
