#include "base/http/kept_head.h"

#include "base/http/head_writer.h"
#include "base/http/syntax.h"

namespace outrider::http {

namespace {

constexpr std::string_view kLineEnd = "\r\n";

// Framing is the sender's own; a record that has any is not ours.
bool frames(FieldId id) {
    return id == FieldId::kTransferEncoding || id == FieldId::kConnection || id == FieldId::kTrailer ||
           id == FieldId::kUpgrade || id == FieldId::kKeepAlive;
}

}  // namespace

std::string kept_head(const ResponseHead& head) {
    std::string out;
    out.resize(head.reason().size() + 2 + HeadWriter::bound(head));
    HeadWriter writer(out.data());
    writer.text(head.reason());
    writer.text(kLineEnd);
    writer.fields(head);
    out.resize(writer.size());
    return out;
}

bool KeptHead::parse(std::string_view text, int status) {
    head_ = ResponseHead();
    fields_.clear();
    if (status < 200 || status > 999 || text.size() > UINT32_MAX) return false;
    head_.bytes = text.data();
    head_.bytes_size = static_cast<std::uint32_t>(text.size());
    head_.status = status;
    std::size_t at = text.find(kLineEnd);
    if (at == std::string_view::npos || !is_field_text(text.substr(0, at))) return false;
    head_.reason_size = static_cast<std::uint32_t>(at);
    at += kLineEnd.size();
    while (at < text.size()) {
        const std::size_t end = text.find(kLineEnd, at);
        if (end == std::string_view::npos || fields_.size() == kKeptFieldsMax) return false;
        const std::string_view line = text.substr(at, end - at);
        const std::size_t colon = line.find(": ");
        if (colon == std::string_view::npos || colon == 0 || colon > UINT16_MAX) return false;
        const std::string_view name = line.substr(0, colon);
        const std::string_view value = line.substr(colon + 2);
        if (!is_token(name) || !is_field_text(value)) return false;
        FieldRef field;
        field.name_begin = static_cast<std::uint32_t>(at);
        field.name_size = static_cast<std::uint16_t>(colon);
        field.value_begin = static_cast<std::uint32_t>(at + colon + 2);
        field.value_size = static_cast<std::uint32_t>(value.size());
        field.id = field_id(name);
        if (frames(field.id)) return false;
        fields_.push_back(field);
        at = end + kLineEnd.size();
    }
    head_.fields = fields_.data();
    head_.field_count = static_cast<std::uint32_t>(fields_.size());
    return true;
}

}  // namespace outrider::http
