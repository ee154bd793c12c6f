// Against protobuf's own util, whose word is the contract.
#include "control/api/json.h"

#include <memory>
#include <random>
#include <string>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include "control/proto/rpc.pb.h"

namespace outrider::api {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
namespace v3 = outrider::control::v3;

std::string of_protobuf(const Message& message) {
    google::protobuf::util::JsonPrintOptions options;
    options.preserve_proto_field_names = true;
    std::string text;
    EXPECT_TRUE(google::protobuf::util::MessageToJsonString(message, &text, options).ok());
    return text;
}

class Random {
  public:
    explicit Random(unsigned seed) : engine_(seed) {}
    std::uint64_t below(std::uint64_t bound) { return engine_() % bound; }

    std::string bytes() {
        std::string out(below(40), '\0');
        for (char& c : out)
            c = static_cast<char>(below(256));
        return out;
    }
    std::string text() {
        std::string out(below(20), ' ');
        for (char& c : out)
            c = static_cast<char>(' ' + below(95));
        return out;
    }
    std::int64_t number() {
        const std::int64_t some[] = {0, 1, -1, 7, 1'000'000, INT32_MAX, INT64_MAX, INT64_MIN};
        return some[below(std::size(some))];
    }

    void fill(Message& message, int depth) {
        const auto* descriptor = message.GetDescriptor();
        for (int i = 0; i < descriptor->field_count(); ++i) {
            const FieldDescriptor& field = *descriptor->field(i);
            if (field.is_map()) continue;
            for (std::uint64_t n = field.is_repeated() ? below(4) : below(2); n > 0; --n)
                add(message, field, depth);
        }
    }

  private:
    void add(Message& message, const FieldDescriptor& field, int depth) {
        const auto& of = *message.GetReflection();
        const bool many = field.is_repeated();
        switch (field.cpp_type()) {
            case FieldDescriptor::CPPTYPE_INT64:
                many ? of.AddInt64(&message, &field, number()) : of.SetInt64(&message, &field, number());
                break;
            case FieldDescriptor::CPPTYPE_UINT64: {
                const auto value = static_cast<std::uint64_t>(number());
                many ? of.AddUInt64(&message, &field, value) : of.SetUInt64(&message, &field, value);
                break;
            }
            case FieldDescriptor::CPPTYPE_INT32: {
                const auto value = static_cast<std::int32_t>(number());
                many ? of.AddInt32(&message, &field, value) : of.SetInt32(&message, &field, value);
                break;
            }
            case FieldDescriptor::CPPTYPE_UINT32: {
                const auto value = static_cast<std::uint32_t>(number());
                many ? of.AddUInt32(&message, &field, value) : of.SetUInt32(&message, &field, value);
                break;
            }
            case FieldDescriptor::CPPTYPE_BOOL:
                many ? of.AddBool(&message, &field, below(2) == 1)
                     : of.SetBool(&message, &field, below(2) == 1);
                break;
            case FieldDescriptor::CPPTYPE_ENUM: {
                const auto* type = field.enum_type();
                const int value =
                    type->value(static_cast<int>(below(static_cast<std::uint64_t>(type->value_count()))))
                        ->number();
                many ? of.AddEnumValue(&message, &field, value) : of.SetEnumValue(&message, &field, value);
                break;
            }
            case FieldDescriptor::CPPTYPE_STRING: {
                std::string value = field.type() == FieldDescriptor::TYPE_BYTES ? bytes() : text();
                many ? of.AddString(&message, &field, value) : of.SetString(&message, &field, value);
                break;
            }
            case FieldDescriptor::CPPTYPE_MESSAGE:
                if (depth < 4)
                    fill(many ? *of.AddMessage(&message, &field) : *of.MutableMessage(&message, &field),
                         depth + 1);
                break;
            default:
                FAIL() << field.full_name() << " is of a kind that the API does not have";
        }
    }

    std::mt19937_64 engine_;
};

// Every message of both files.
std::vector<std::unique_ptr<Message>> all_messages() {
    std::vector<std::unique_ptr<Message>> out;
    auto* factory = google::protobuf::MessageFactory::generated_factory();
    for (const auto* file : {v3::PutRequest::descriptor()->file(), v3::PutResponse::descriptor()->file(),
                             v3::WatchResponse::descriptor()->file()}) {
        for (int i = 0; i < file->message_type_count(); ++i)
            out.emplace_back(factory->GetPrototype(file->message_type(i))->New());
    }
    return out;
}

TEST(Json, WritesWhatProtobufWrites) {
    Random random(1);
    for (const auto& message : all_messages()) {
        for (int i = 0; i < 100; ++i) {
            message->Clear();
            random.fill(*message, 0);
            std::string text = "before";
            const bool written = write_json(*message, text);
            EXPECT_EQ(text, written ? "before" + of_protobuf(*message) : "before");
        }
    }
}

TEST(Json, ReadsWhatProtobufReads) {
    Random random(2);
    for (const auto& message : all_messages()) {
        for (int i = 0; i < 100; ++i) {
            message->Clear();
            random.fill(*message, 0);
            const std::unique_ptr<Message> read(message->New());
            if (!read_json(of_protobuf(*message), *read)) continue;  // too deep, say
            EXPECT_EQ(read->SerializeAsString(), message->SerializeAsString()) << of_protobuf(*message);
        }
    }
}

TEST(Json, WhatIsCommonIsDoneHere) {
    v3::PutRequest put;
    EXPECT_TRUE(read_json(R"({"key":"YQ==","value":"YmM=","lease":"7","prev_kv":true})", put));
    EXPECT_EQ(put.key() + put.value(), "abc");
    EXPECT_EQ(put.lease(), 7);
    EXPECT_TRUE(put.prev_kv());
    v3::WatchRequest watch;
    EXPECT_TRUE(
        read_json("{ \"create_request\" : { \"key\" : \"YQ==\" , \"start_revision\" : 3 } } ", watch));
    EXPECT_EQ(watch.create_request().start_revision(), 3);
    v3::WatchResponse event;
    event.mutable_header()->set_revision(5);
    event.add_events()->mutable_kv()->set_key("a");
    std::string text;
    EXPECT_TRUE(write_json(event, text));
    EXPECT_EQ(text, R"({"header":{"revision":"5"},"events":[{"kv":{"key":"YQ=="}}]})");
}

// Either false, or what protobuf says.
TEST(Json, OddTextsAreReadAsByProtobufOrNotAtAll) {
    const char* const texts[] = {"",
                                 "{",
                                 "{}",
                                 "[]",
                                 "null",
                                 "{}x",
                                 "{} {}",
                                 "\xef\xbb\xbf{}",
                                 R"({"key":null})",
                                 R"({"key":7})",
                                 R"({"key":"YQ"})",
                                 R"({"key":"YQ="})",
                                 R"({"key":"YR=="})",
                                 R"({"key":"Y=Q="})",
                                 R"({"key":"===="})",
                                 R"({"key":"YQ==YQ=="})",
                                 R"({"key":" YQ=="})",
                                 R"({"key":"YQ== "})",
                                 R"({"key":"-_-_"})",
                                 R"({"key":"+/+/"})",
                                 R"({"key":"\u0059Q=="})",
                                 R"({"key":"YQ==","key":"YmM="})",
                                 R"({"lease":"007"})",
                                 R"({"lease":"-0"})",
                                 R"({"lease":"+1"})",
                                 R"({"lease":" 1"})",
                                 R"({"lease":"1.0"})",
                                 R"({"lease":1.0})",
                                 R"({"lease":1e2})",
                                 R"({"lease":""})",
                                 R"({"lease":-5})",
                                 R"({"lease":9223372036854775807})",
                                 R"({"lease":9223372036854775808})",
                                 R"({"lease":"9223372036854775808"})",
                                 R"({"prev_kv":"true"})",
                                 R"({"prevKv":true})",
                                 R"({"prev_kv":1})",
                                 R"({"ignore_value":false})",
                                 R"({"unknown":1})",
                                 R"({"key":"YQ==",})",
                                 R"({'key':'YQ=='})",
                                 R"({key:"YQ=="})",
                                 R"({"value":{"a":1}})",
                                 R"({"value":["YQ=="]})"};
    for (const char* const text : texts) {
        v3::PutRequest mine;
        if (!read_json(text, mine)) continue;
        v3::PutRequest theirs;
        EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(text, &theirs).ok()) << text;
        EXPECT_EQ(mine.SerializeAsString(), theirs.SerializeAsString()) << text;
    }
}

TEST(Json, ChoicesAndNestingAreProtobufsToJudge) {
    v3::RequestOp both;
    EXPECT_FALSE(read_json(R"({"request_put":{"key":"YQ=="},"request_range":{"key":"YQ=="}})", both));
    std::string deep;
    for (int i = 0; i < 30; ++i)
        deep += R"({"success":[{"request_txn":)";
    deep += "{}";
    for (int i = 0; i < 30; ++i)
        deep += "}]}";
    v3::TxnRequest txn;
    EXPECT_FALSE(read_json(deep, txn));
    v3::PutRequest large;
    EXPECT_FALSE(read_json(R"({"value":")" + std::string(std::size_t{128} << 10, 'A') + "\"}", large));
}

TEST(Json, TextsToEscapeAreLeftToProtobuf) {
    v3::WatchResponse response;
    std::string text = "kept";
    for (const char* const reason : {"a \"b\"", "a\\b", "<", ">", "\n", "\x7f", "\xc3\xa4"}) {
        response.set_cancel_reason(reason);
        EXPECT_FALSE(write_json(response, text)) << reason;
        EXPECT_EQ(text, "kept");
    }
    response.set_cancel_reason("etcdserver: mvcc: it's a /reason/ & more?");
    EXPECT_TRUE(write_json(response, text));
    EXPECT_EQ(text, "kept" + of_protobuf(response));
}

}  // namespace
}  // namespace outrider::api
