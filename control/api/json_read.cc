#include <charconv>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <google/protobuf/descriptor.h>
#include <openssl/evp.h>
#include <simdjson.h>

#include "control/api/json.h"

namespace outrider::api {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using simdjson::dom::element;

constexpr std::size_t kTextMax = std::size_t{64} << 10;  // the parser keeps some ten times as much
constexpr int kDepthMax = 8;                             // of messages; deeper ones are protobuf's
constexpr int kFieldsMax = 64;     // of a message, so that a word can tell which were there
constexpr std::size_t kBlock = 4;  // characters of base64 that stand for
constexpr std::size_t kBlockBytes = 3;

// Canonical only: padded, nothing else between or behind.
bool decode_base64(std::string_view text, std::string& bytes) {
    bytes.clear();
    if (text.empty()) return true;
    if (text.size() % kBlock != 0 || text.size() > INT32_MAX) return false;
    const std::size_t mark = text.find('=');
    const std::size_t padding = mark == std::string_view::npos ? 0 : text.size() - mark;
    if (padding > 2 || (padding == 2 && text.back() != '=')) return false;
    const std::size_t whole = text.size() / kBlock * kBlockBytes;
    bytes.resize(whole);
    // Blanks at the ends are passed over by this function: the count shows it.
    const int count =
        EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                        reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
    if (count < 0 || static_cast<std::size_t>(count) != whole) return false;
    for (std::size_t i = whole - padding; i < whole; ++i) {
        if (bytes[i] != '\0') return false;  // bits that stand for nothing
    }
    bytes.resize(whole - padding);
    return true;
}

// A number, or its digits as a string.
template <std::integral Number>
std::optional<Number> number_of(const element& value) {
    if (value.is_string()) {
        const std::string_view text = value.get_string().value_unsafe();
        Number number{};
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
        const bool odd = text.size() > 1 && (text[0] == '0' || (text[0] == '-' && text[1] == '0'));
        if (error != std::errc() || end != text.data() + text.size() || odd) return std::nullopt;
        return number;
    }
    if (value.is_int64()) {
        const std::int64_t number = value.get_int64().value_unsafe();
        if (std::in_range<Number>(number)) return static_cast<Number>(number);
    }
    return std::nullopt;
}

class Reader {
  public:
    bool read(const simdjson::dom::object& object, Message& message, int depth) {
        if (depth > kDepthMax) return false;
        std::uint64_t seen = 0;
        for (const auto& [name, value] : object) {
            const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(std::string(name));
            if (field == nullptr || field->index() >= kFieldsMax || field->is_map()) return false;
            const std::uint64_t bit = std::uint64_t{1} << field->index();
            if ((seen & bit) != 0) return false;
            seen |= bit;
            const auto* choice = field->containing_oneof();
            if (choice != nullptr && message.GetReflection()->HasOneof(message, choice)) return false;
            if (!(field->is_repeated() ? read_array(value, message, *field, depth)
                                       : read_value(value, message, *field, depth)))
                return false;
        }
        return true;
    }

  private:
    bool read_array(const element& value, Message& message, const FieldDescriptor& field, int depth) {
        if (!value.is_array()) return false;
        const simdjson::dom::array all = value.get_array().value_unsafe();
        for (const element& each : all) {
            if (!read_value(each, message, field, depth)) return false;
        }
        return true;
    }

    // Sets the field, or adds to it.
    bool read_value(const element& value, Message& message, const FieldDescriptor& field, int depth) {
        const auto& of = *message.GetReflection();
        const bool single = !field.is_repeated();
        const auto put = [&](auto set, auto add, auto what) {
            if (!what) return false;
            if (single) {
                (of.*set)(&message, &field, *what);
            } else {
                (of.*add)(&message, &field, *what);
            }
            return true;
        };
        using R = google::protobuf::Reflection;
        switch (field.cpp_type()) {
            case FieldDescriptor::CPPTYPE_INT64:
                return put(&R::SetInt64, &R::AddInt64, number_of<std::int64_t>(value));
            case FieldDescriptor::CPPTYPE_UINT64:
                return put(&R::SetUInt64, &R::AddUInt64, number_of<std::uint64_t>(value));
            case FieldDescriptor::CPPTYPE_INT32:
                return put(&R::SetInt32, &R::AddInt32, number_of<std::int32_t>(value));
            case FieldDescriptor::CPPTYPE_UINT32:
                return put(&R::SetUInt32, &R::AddUInt32, number_of<std::uint32_t>(value));
            case FieldDescriptor::CPPTYPE_BOOL:
                return put(&R::SetBool, &R::AddBool,
                           value.is_bool() ? std::optional(value.get_bool().value_unsafe()) : std::nullopt);
            case FieldDescriptor::CPPTYPE_ENUM:
                return put(&R::SetEnumValue, &R::AddEnumValue, enum_of(value, field));
            case FieldDescriptor::CPPTYPE_MESSAGE:
                return value.is_object() &&
                       read(value.get_object().value_unsafe(),
                            single ? *of.MutableMessage(&message, &field) : *of.AddMessage(&message, &field),
                            depth + 1);
            case FieldDescriptor::CPPTYPE_STRING:
                if (!value.is_string()) return false;
                if (!text_of(value.get_string().value_unsafe(), field)) return false;
                if (single) {
                    of.SetString(&message, &field, std::move(text_));
                } else {
                    of.AddString(&message, &field, std::move(text_));
                }
                return true;
            default:
                return false;
        }
    }

    bool text_of(std::string_view value, const FieldDescriptor& field) {
        text_.clear();
        if (field.type() == FieldDescriptor::TYPE_BYTES) return decode_base64(value, text_);
        text_.assign(value);
        return true;
    }

    static std::optional<int> enum_of(const element& value, const FieldDescriptor& field) {
        if (!value.is_string()) return std::nullopt;
        const auto* known =
            field.enum_type()->FindValueByName(std::string(value.get_string().value_unsafe()));
        return known == nullptr ? std::nullopt : std::optional(known->number());
    }

    std::string text_;
};

}  // namespace

bool read_json(std::string_view text, Message& message) {
    if (text.size() > kTextMax || !text.starts_with('{')) return false;
    thread_local simdjson::dom::parser parser;
    const auto parsed = parser.parse(text.data(), text.size());
    if (parsed.error() != simdjson::SUCCESS) return false;
    const auto object = parsed.get_object();
    return object.error() == simdjson::SUCCESS && Reader().read(object.value_unsafe(), message, 0);
}

}  // namespace outrider::api
