#include "bench/framing.h"

#include <algorithm>
#include <charconv>

#include "base/bytes.h"

namespace outrider::bench {

std::size_t head_length(std::string_view bytes) {
    const std::size_t at = bytes.find("\r\n\r\n");
    return at == std::string_view::npos ? 0 : at + 4;
}

Fields read_fields(std::string_view head) {
    Fields fields;
    std::size_t line = head.find('\n') + 1;  // behind the start line
    while (line < head.size()) {
        const std::size_t end = std::min(head.find('\n', line), head.size());
        const std::string_view field = head.substr(line, end - line);
        line = end + 1;
        const char first = field.empty() ? '\0' : ascii_lower(field.front());
        if (first != 'c' && first != 't' && first != 'i')
            continue;  // nobody else's field matters: stay quick
        const std::size_t colon = field.find(':');
        if (colon == std::string_view::npos) continue;
        const std::string_view name = field.substr(0, colon);
        std::string_view value = field.substr(colon + 1);
        if (value.ends_with('\r')) value.remove_suffix(1);
        value = trim_ows(value);
        if (iequals(name, "content-length")) {
            const auto parsed = std::from_chars(value.data(), value.data() + value.size(), fields.length);
            fields.has_length = parsed.ec == std::errc();
        } else if (iequals(name, "transfer-encoding")) {
            fields.chunked = iequals(value, "chunked");
        } else if (iequals(name, "connection")) {
            fields.close = iequals(value, "close");
        } else if (iequals(name, "idempotent-replayed")) {
            fields.replayed = iequals(value, "true");
        }
    }
    return fields;
}

void Body::start_length(std::uint64_t bytes) {
    left_ = bytes;
    state_ = bytes == 0 ? State::kDone : State::kLength;
}

void Body::start_chunked() {
    left_ = 0;
    state_ = State::kChunkSize;
}

void Body::start_until_close() {
    state_ = State::kUntilClose;
}

std::size_t Body::take(std::string_view bytes) {
    if (state_ == State::kUntilClose) return bytes.size();
    std::size_t at = 0;
    while (at < bytes.size() && !done() && !failed()) {
        if (state_ == State::kLength || state_ == State::kChunkData) {
            const auto data = std::min<std::uint64_t>(left_, bytes.size() - at);
            at += data;
            left_ -= data;
            if (left_ > 0) break;
            state_ = state_ == State::kLength ? State::kDone : State::kChunkEnd;
        } else {
            take_framing(bytes[at++]);
        }
    }
    return at;
}

// One byte of a chunk-size line, of the CRLF behind chunk data, or of the trailers (RFC 9112
// section 7.1).
void Body::take_framing(char c) {
    switch (state_) {
        case State::kChunkSize:
            if (ascii_digit(c)) {
                left_ = left_ * 16 + static_cast<std::uint64_t>(c - '0');
            } else if (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'f') {
                left_ = left_ * 16 + static_cast<std::uint64_t>(ascii_lower(c) - 'a' + 10);
            } else if (c == ';' || c == '\r') {
                state_ = State::kChunkExtension;
            } else {
                state_ = State::kFailed;
            }
            break;
        case State::kChunkExtension:
            if (c == '\n') state_ = left_ == 0 ? State::kTrailerStart : State::kChunkData;
            break;
        case State::kChunkEnd:
            if (c == '\n') state_ = State::kChunkSize;
            break;
        case State::kTrailerStart:
            if (c == '\n') {
                state_ = State::kDone;
            } else if (c != '\r') {
                state_ = State::kTrailerLine;
            }
            break;
        case State::kTrailerLine:
            if (c == '\n') state_ = State::kTrailerStart;
            break;
        default:
            state_ = State::kFailed;
    }
}

}  // namespace outrider::bench
