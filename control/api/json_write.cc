#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <openssl/evp.h>

#include "control/api/json.h"

namespace outrider::api {
namespace {

using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// What stands in a JSON text as it is. Protobuf also escapes what would matter to HTML.
bool plain(char c) {
    return c >= ' ' && c <= '~' && c != '"' && c != '\\' && c != '<' && c != '>';
}

class Writer {
  public:
    explicit Writer(std::string& out) : out_(out) {}

    bool write(const Message& message) {
        const Reflection& reflection = *message.GetReflection();
        std::vector<const FieldDescriptor*> fields;
        reflection.ListFields(message, &fields);  // in the order of their numbers
        char separator = '{';
        for (const FieldDescriptor* field : fields) {
            out_ += separator;
            separator = ',';
            out_ += '"';
            out_ += field->name();
            out_ += "\":";
            if (!(field->is_repeated() ? write_array(message, *field) : write_value(message, *field, -1)))
                return false;
        }
        if (separator == '{') out_ += separator;
        out_ += '}';
        return reflection.GetUnknownFields(message).empty();
    }

  private:
    bool write_array(const Message& message, const FieldDescriptor& field) {
        if (field.is_map()) return false;
        const int size = message.GetReflection()->FieldSize(message, &field);
        for (int i = 0; i < size; ++i) {
            out_ += i == 0 ? '[' : ',';
            if (!write_value(message, field, i)) return false;
        }
        out_ += ']';
        return true;
    }

    // Of a repeated field the element `at`.
    bool write_value(const Message& message, const FieldDescriptor& field, int at) {
        const Reflection& of = *message.GetReflection();
        const bool single = at < 0;
        switch (field.cpp_type()) {
            case FieldDescriptor::CPPTYPE_INT64:
                write_quoted(single ? of.GetInt64(message, &field)
                                    : of.GetRepeatedInt64(message, &field, at));
                return true;
            case FieldDescriptor::CPPTYPE_UINT64:
                write_quoted(single ? of.GetUInt64(message, &field)
                                    : of.GetRepeatedUInt64(message, &field, at));
                return true;
            case FieldDescriptor::CPPTYPE_INT32:
                write_number(single ? of.GetInt32(message, &field)
                                    : of.GetRepeatedInt32(message, &field, at));
                return true;
            case FieldDescriptor::CPPTYPE_UINT32:
                write_number(single ? of.GetUInt32(message, &field)
                                    : of.GetRepeatedUInt32(message, &field, at));
                return true;
            case FieldDescriptor::CPPTYPE_BOOL:
                out_ += (single ? of.GetBool(message, &field) : of.GetRepeatedBool(message, &field, at))
                            ? "true"
                            : "false";
                return true;
            case FieldDescriptor::CPPTYPE_ENUM:
                return write_enum(
                    single ? of.GetEnumValue(message, &field) : of.GetRepeatedEnumValue(message, &field, at),
                    field);
            case FieldDescriptor::CPPTYPE_MESSAGE:
                return write(single ? of.GetMessage(message, &field)
                                    : of.GetRepeatedMessage(message, &field, at));
            case FieldDescriptor::CPPTYPE_STRING: {
                std::string scratch;
                const std::string& text = single
                                              ? of.GetStringReference(message, &field, &scratch)
                                              : of.GetRepeatedStringReference(message, &field, at, &scratch);
                return field.type() == FieldDescriptor::TYPE_BYTES ? write_base64(text) : write_text(text);
            }
            default:
                return false;
        }
    }

    template <typename Number>
    void write_number(Number number) {
        std::array<char, 24> digits;
        const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
        out_.append(digits.data(), end);
    }

    template <typename Number>
    void write_quoted(Number number) {
        out_ += '"';
        write_number(number);
        out_ += '"';
    }

    bool write_enum(int number, const FieldDescriptor& field) {
        const EnumValueDescriptor* value = field.enum_type()->FindValueByNumber(number);
        if (value == nullptr) return false;
        out_ += '"';
        out_ += value->name();
        out_ += '"';
        return true;
    }

    bool write_text(const std::string& text) {
        if (!std::all_of(text.begin(), text.end(), plain)) return false;
        out_ += '"';
        out_ += text;
        out_ += '"';
        return true;
    }

    bool write_base64(const std::string& bytes) {
        if (bytes.size() > INT32_MAX / 2) return false;
        out_ += '"';
        const std::size_t at = out_.size();
        const std::size_t length = (bytes.size() + 2) / 3 * 4;
        out_.resize(at + length + 1);  // the function ends its text with a zero
        EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out_.data() + at),
                        reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
        out_[at + length] = '"';
        return true;
    }

    std::string& out_;
};

}  // namespace

bool write_json(const Message& message, std::string& out) {
    const std::size_t before = out.size();
    if (Writer(out).write(message)) return true;
    out.resize(before);
    return false;
}

}  // namespace outrider::api
