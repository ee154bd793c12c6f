#include "base/http/http1_parser.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/check.h"
#include "base/http/syntax.h"

namespace outrider::http {

namespace {

constexpr std::uint8_t kLeadingCrlfMax =
    8;  // bytes: four empty lines before a request (RFC 9112 section 2.2)
constexpr std::size_t kFieldNameMax = 8 * 1024;

// Bytes of chunk framing that are let through for nothing, and per byte of payload behind that. One-byte chunks
// cost 5 bytes of framing each. Upstreams that stream tiny chunks are real; clients that do are an attack.
constexpr std::uint64_t kRequestFramingGrace = 64 * 1024;
constexpr std::uint64_t kRequestFramingRatio = 4;
constexpr std::uint64_t kResponseFramingGrace = 1024 * 1024;
constexpr std::uint64_t kResponseFramingRatio = 8;

constexpr const char* kFlooded = "chunk framing out of proportion to the body";

constexpr bool is_hex_digit(char c) {
    return ascii_digit(c) || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'f');
}

// reg-name (RFC 3986 section 3.2.2) without ','.
constexpr auto kRegName = [] {
    std::array<bool, 256> good{};
    for (const char c :
         std::string_view("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_~%!$&'()*+;="))
        good[static_cast<unsigned char>(c)] = true;
    return good;
}();

bool is_port_or_empty(std::string_view s) {
    if (s.size() > 5) return false;
    unsigned number = 0;
    for (const char c : s) {
        if (!ascii_digit(c)) return false;
        number = number * 10 + static_cast<unsigned>(c - '0');
    }
    return number <= 65535;
}

// uri-host [ ":" port ] (RFC 9110 section 7.2) without userinfo and without the sub-delims that only confuse.
bool is_host_and_port(std::string_view s) {
    if (s.empty()) return false;
    std::size_t end = 0;
    if (s.front() == '[') {
        end = s.find(']');
        if (end == std::string_view::npos || end < 3) return false;
        for (const char c : s.substr(1, end - 1)) {
            const char lower = ascii_lower(c);
            if (!ascii_digit(c) && !(lower >= 'a' && lower <= 'f') && c != ':' && c != '.') return false;
        }
        ++end;
    } else {
        while (end < s.size() && kRegName[static_cast<unsigned char>(s[end])])
            ++end;
        for (std::size_t at = s.find('%'); at < end; at = s.find('%', at + 1)) {
            if (!(at + 2 < s.size() && is_hex_digit(s[at + 1]) && is_hex_digit(s[at + 2]))) return false;
        }
        if (end == 0) return false;
    }
    if (end == s.size()) return true;
    return s[end] == ':' && is_port_or_empty(s.substr(end + 1));
}

Method method_of(std::uint8_t llhttp_method) {
    switch (llhttp_method) {
        case HTTP_GET:
            return Method::kGet;
        case HTTP_HEAD:
            return Method::kHead;
        case HTTP_POST:
            return Method::kPost;
        case HTTP_PUT:
            return Method::kPut;
        case HTTP_DELETE:
            return Method::kDelete;
        case HTTP_OPTIONS:
            return Method::kOptions;
        case HTTP_TRACE:
            return Method::kTrace;
        case HTTP_PATCH:
            return Method::kPatch;
        case HTTP_CONNECT:
            return Method::kConnect;
        default:
            return Method::kOther;
    }
}

bool bodiless_status(int status) {
    return status < 200 || status == 204 || status == 304;
}

}  // namespace

int status_for(ParseError error) {
    switch (error) {
        case ParseError::kTargetTooLong:
            return 414;
        case ParseError::kHeadTooLarge:
        case ParseError::kTooManyFields:
            return 431;
        case ParseError::kUnknownMethod:
        case ParseError::kUnknownCoding:
            return 501;
        case ParseError::kVersion:
            return 505;
        case ParseError::kBodyTooLarge:
            return 413;
        default:
            return 400;
    }
}

// An unfinished head, or the trailers of a message: bytes and what was found in them so far.
struct Http1Parser::Partial {
    std::string bytes;
    std::vector<FieldRef> fields;
    bool trailers = false;
};

// llhttp's callbacks. They only note positions; every decision is taken after llhttp_execute() has returned.
struct Http1Callbacks {
    static Http1Parser& self(llhttp_t* p) { return *static_cast<Http1Parser*>(p->data); }

    static int on_text(llhttp_t* p, const char* at, std::size_t size) {
        Http1Parser& parser = self(p);
        const auto begin = static_cast<std::uint32_t>(at - parser.base_);
        if (parser.text_size_ == 0) parser.text_begin_ = begin;
        parser.text_size_ = begin + static_cast<std::uint32_t>(size) - parser.text_begin_;
        return 0;
    }

    static int on_field(llhttp_t* p, const char* at, std::size_t size) {
        Http1Parser& parser = self(p);
        if (parser.state_ == Http1Parser::State::kBody) return on_trailer_field(parser, at, size);
        auto& fields = parser.scratch_.fields;
        const auto begin = static_cast<std::uint32_t>(at - parser.base_);
        if (!parser.in_value_ && !fields.empty() &&
            fields.back().name_begin + fields.back().name_size == begin) [[unlikely]] {
            if (fields.back().name_size + size > kFieldNameMax) return too_large(parser);
            fields.back().name_size = static_cast<std::uint16_t>(fields.back().name_size + size);
            return 0;
        }
        if (fields.size() >= parser.limits_.fields_max) return too_many(parser);
        if (size > kFieldNameMax) return too_large(parser);
        parser.in_value_ = false;
        fields.push_back(
            {.name_begin = begin, .value_begin = begin, .name_size = static_cast<std::uint16_t>(size)});
        return 0;
    }

    static int on_value(llhttp_t* p, const char* at, std::size_t size) {
        Http1Parser& parser = self(p);
        if (parser.state_ == Http1Parser::State::kBody) return on_trailer_value(parser, at, size);
        FieldRef& f = parser.scratch_.fields.back();
        const auto begin = static_cast<std::uint32_t>(at - parser.base_);
        if (!parser.in_value_) f.value_begin = begin;
        parser.in_value_ = true;
        f.value_size = begin + static_cast<std::uint32_t>(size) - f.value_begin;
        return 0;
    }

    // Trailers may come in any number of reads: copied.
    static int on_trailer_field(Http1Parser& parser, const char* at, std::size_t size) {
        if (!parser.partial_) parser.partial_ = std::make_unique<Http1Parser::Partial>();
        auto& partial = *parser.partial_;
        partial.trailers = true;
        if (partial.bytes.size() + size > parser.limits_.head_bytes_max) return too_large(parser);
        if (partial.fields.empty() || parser.in_value_) {
            if (partial.fields.size() >= parser.limits_.fields_max) return too_many(parser);
            FieldRef& f = partial.fields.emplace_back();
            f.name_begin = static_cast<std::uint32_t>(partial.bytes.size());
            parser.in_value_ = false;
        }
        if (partial.fields.back().name_size + size > kFieldNameMax) return too_large(parser);
        partial.bytes.append(at, size);
        partial.fields.back().name_size = static_cast<std::uint16_t>(partial.fields.back().name_size + size);
        return 0;
    }

    static int on_trailer_value(Http1Parser& parser, const char* at, std::size_t size) {
        auto& partial = *parser.partial_;
        if (partial.bytes.size() + size > parser.limits_.head_bytes_max) return too_large(parser);
        FieldRef& f = partial.fields.back();
        if (!parser.in_value_) f.value_begin = static_cast<std::uint32_t>(partial.bytes.size());
        parser.in_value_ = true;
        partial.bytes.append(at, size);
        f.value_size += static_cast<std::uint32_t>(size);
        return 0;
    }

    static int on_headers_complete(llhttp_t* p) {
        Http1Parser& parser = self(p);
        parser.head_complete_ = true;
        p->upgrade = 0;  // whether it becomes a tunnel is decided above this layer
        const bool coded = (p->flags & (F_CHUNKED | F_TRANSFER_ENCODING)) != 0;
        if (parser.side_ == Http1Parser::Side::kRequest) {
            return coded || p->content_length != 0 ? HPE_PAUSED : 0;
        }
        if (parser.response_to_head_ || bodiless_status(p->status_code)) return 1;
        return HPE_PAUSED;
    }

    // A chunk that no counter of ours could hold would only be waited for.
    static int on_chunk_header(llhttp_t* p) {
        if (p->content_length <= 0x7FFF'FFFF'FFFF'FFFFu) return 0;
        self(p).error_ = ParseError::kMalformed;
        self(p).reason_ = "chunk size too large";
        return -1;
    }

    // Judged where payload begins: more of it behind must not make good what came before, or the verdict would depend on
    // how the bytes were cut.
    static int on_body(llhttp_t* p, const char* at, std::size_t size) {
        Http1Parser& parser = self(p);
        const auto framing = static_cast<std::size_t>(at - parser.base_) - parser.payload_;
        if (parser.floods(parser.framing_bytes_ + framing, parser.body_bytes_ + parser.payload_))
            return flooded(parser);
        parser.payload_ += size;
        parser.scratch_.body.emplace_back(at, size);
        return 0;
    }

    static int on_message_complete(llhttp_t* p) {
        self(p).message_complete_ = true;
        return HPE_PAUSED;
    }

    static int too_large(Http1Parser& parser) {
        parser.error_ = ParseError::kHeadTooLarge;
        parser.reason_ = "header fields larger than the limit";
        return -1;
    }
    static int flooded(Http1Parser& parser) {
        parser.error_ = ParseError::kFramingFlood;
        parser.reason_ = kFlooded;
        return -1;
    }
    static int too_many(Http1Parser& parser) {
        parser.error_ = ParseError::kTooManyFields;
        parser.reason_ = "more header fields than the limit";
        return -1;
    }

    static const llhttp_settings_t* settings() {
        static const llhttp_settings_t s = [] {
            llhttp_settings_t out;
            llhttp_settings_init(&out);
            out.on_url = on_text;
            out.on_status = on_text;
            out.on_header_field = on_field;
            out.on_header_value = on_value;
            out.on_headers_complete = on_headers_complete;
            out.on_chunk_header = on_chunk_header;
            out.on_body = on_body;
            out.on_message_complete = on_message_complete;
            return out;
        }();
        return &s;
    }
};

Http1Parser::Http1Parser(Side side, const ParserLimits& limits, ParserScratch& scratch)
    : scratch_(scratch), limits_(limits), side_(side) {
    reset();
}

Http1Parser::~Http1Parser() = default;

void Http1Parser::reset(bool response_to_head) {
    partial_.reset();
    state_ = State::kStart;
    error_ = ParseError::kNone;
    leading_crlf_ = 0;
    response_to_head_ = response_to_head;
    head_size_ = 0;
}

Step Http1Parser::fail(ParseError error, const char* reason, std::size_t consumed) {
    error_ = error;
    reason_ = reason;
    state_ = State::kFailed;
    partial_.reset();
    return {Step::Kind::kError, consumed};
}

bool Http1Parser::reject(ParseError error, const char* reason) {
    error_ = error;
    reason_ = reason;
    return false;
}

Step Http1Parser::skip_leading_crlf(std::string_view& input) {
    std::size_t skipped = 0;
    while (skipped < input.size() && (input[skipped] == '\r' || input[skipped] == '\n')) {
        const char expected = leading_crlf_ % 2 == 0 ? '\r' : '\n';
        if (side_ == Side::kResponse || input[skipped] != expected || ++leading_crlf_ > kLeadingCrlfMax) {
            return fail(ParseError::kMalformed, "line ends where a message should begin", skipped);
        }
        ++skipped;
    }
    input.remove_prefix(skipped);
    if (!input.empty() && leading_crlf_ % 2 != 0) {
        return fail(ParseError::kMalformed, "bare CR before the request line", skipped);
    }
    return {Step::Kind::kNeedMore, skipped};
}

Step Http1Parser::step(std::string_view input) {
    switch (state_) {
        case State::kStart: {
            if (input.empty()) return {};
            const Step skipped = skip_leading_crlf(input);
            if (skipped.kind == Step::Kind::kError || input.empty()) return skipped;
            llhttp_init(&parser_, side_ == Side::kRequest ? HTTP_REQUEST : HTTP_RESPONSE,
                        Http1Callbacks::settings());
            parser_.data = this;
            scratch_.fields.clear();
            text_begin_ = text_size_ = 0;
            in_value_ = head_complete_ = message_complete_ = false;
            body_bytes_ = framing_bytes_ = 0;
            leading_crlf_ = 0;
            state_ = State::kHead;
            Step step = parse_head(input);
            step.consumed += skipped.consumed;
            return step;
        }
        case State::kHead:
            return input.empty() ? Step{} : parse_head(input);
        case State::kHeadDone:
            partial_.reset();
            if (message_complete_) {
                state_ = State::kDone;
                return {Step::Kind::kEnd, 0};
            }
            state_ = State::kBody;
            in_value_ = false;
            llhttp_resume(&parser_);
            return parse_body(input);
        case State::kBody:
            if (message_complete_) {
                state_ = State::kDone;
                return {Step::Kind::kEnd, 0};
            }
            return parse_body(input);
        case State::kDone:
        case State::kFailed:
            break;
    }
    require(state_ == State::kFailed, "a finished message is reset() before the next step()");
    return {Step::Kind::kError, 0};
}

Step Http1Parser::parse_head(std::string_view input) {
    // One byte more than allowed is enough to know that it is too much.
    const std::string_view piece = input.substr(0, limits_.head_bytes_max + 1 - head_size_);
    const char* begin = piece.data();
    base_ = begin;
    if (partial_) {
        partial_->bytes.append(piece);
        base_ = partial_->bytes.data();
        begin = base_ + head_size_;
        scratch_.fields.swap(partial_->fields);
    }
    const llhttp_errno_t code = llhttp_execute(&parser_, begin, piece.size());
    if (code == HPE_OK && !head_complete_) {
        head_size_ += static_cast<std::uint32_t>(piece.size());
        return head_unfinished(piece, piece.size());
    }
    const char* stopped = code == HPE_OK ? begin + piece.size() : llhttp_get_error_pos(&parser_);
    const auto consumed = static_cast<std::size_t>(stopped - begin);
    if (code != HPE_OK && code != HPE_PAUSED) {
        const bool at_token = consumed < piece.size() && is_token_char(*stopped);
        return fail_from_llhttp(code, {base_, head_size_ + consumed}, at_token, consumed);
    }
    head_size_ += static_cast<std::uint32_t>(consumed);
    if (head_size_ > limits_.head_bytes_max) {
        return fail(ParseError::kHeadTooLarge, "request head larger than the limit", consumed);
    }
    const bool good = side_ == Side::kRequest ? finish_request_head() : finish_response_head();
    if (!good) return fail(error_, reason_, consumed);
    state_ = State::kHeadDone;
    return {Step::Kind::kHead, consumed};
}

Step Http1Parser::head_unfinished(std::string_view seen, std::size_t consumed) {
    if (side_ == Side::kRequest && text_size_ > limits_.target_bytes_max) {
        return fail(ParseError::kTargetTooLong, "request target longer than the limit", consumed);
    }
    if (head_size_ > limits_.head_bytes_max) {
        return fail(ParseError::kHeadTooLarge, "message head larger than the limit", consumed);
    }
    if (!partial_) {
        partial_ = std::make_unique<Partial>();
        partial_->bytes.assign(seen);
    }
    // An exact copy, so that a slowly dripped head costs what it holds and no more.
    partial_->fields.assign(scratch_.fields.begin(), scratch_.fields.end());
    return {Step::Kind::kNeedMore, consumed};
}

// `before`: the head up to the byte that failed; more must not be looked at, or the answer would depend on how the
// bytes were cut. `at_token`: that byte could stand in a method.
Step Http1Parser::fail_from_llhttp(int code, std::string_view before, bool at_token, std::size_t consumed) {
    if (error_ != ParseError::kNone) return fail(error_, reason_, consumed);  // a callback's own limit
    const char* reason = llhttp_get_error_reason(&parser_);
    if (reason == nullptr || *reason == '\0') reason = llhttp_errno_name(static_cast<llhttp_errno_t>(code));
    if (side_ == Side::kRequest && state_ == State::kHead && scratch_.fields.empty()) {
        if (code == HPE_PAUSED_H2_UPGRADE) {
            return fail(ParseError::kVersion, "HTTP/2 preface on an HTTP/1 port", consumed);
        }
        if (code == HPE_INVALID_METHOD && at_token && (before.empty() || is_token(before))) {
            return fail(ParseError::kUnknownMethod, "unknown method", consumed);
        }
        if (code == HPE_INVALID_VERSION && before.size() > 9) {
            const std::string_view version = before.substr(before.size() - 9);
            if (version.substr(0, 6) == " HTTP/" && ascii_digit(version[6]) && version[7] == '.' &&
                ascii_digit(version[8]) && version != " HTTP/1.0" && version != " HTTP/1.1") {
                return fail(ParseError::kVersion, "unsupported HTTP version", consumed);
            }
        }
    }
    return fail(ParseError::kMalformed, reason, consumed);
}

// After so many bytes of chunk framing and of payload.
bool Http1Parser::floods(std::uint64_t framing, std::uint64_t payload) const {
    const bool request = side_ == Side::kRequest;
    const std::uint64_t grace = limits_.framing_grace != 0 ? limits_.framing_grace
                                : request                  ? kRequestFramingGrace
                                                           : kResponseFramingGrace;
    return framing > grace + payload * (request ? kRequestFramingRatio : kResponseFramingRatio);
}

Step Http1Parser::parse_body(std::string_view input) {
    scratch_.body.clear();
    base_ = input.data();
    payload_ = 0;
    const llhttp_errno_t code = llhttp_execute(&parser_, input.data(), input.size());
    std::size_t consumed = input.size();
    if (code != HPE_OK) {
        consumed = static_cast<std::size_t>(llhttp_get_error_pos(&parser_) - input.data());
        if (code != HPE_PAUSED) return fail_from_llhttp(code, {}, false, consumed);
    }
    body_bytes_ += payload_;
    framing_bytes_ += consumed - payload_;
    if (limits_.body_bytes_max != 0 && body_bytes_ > limits_.body_bytes_max) {
        return fail(ParseError::kBodyTooLarge, "body larger than the limit", consumed);
    }
    if (floods(framing_bytes_, body_bytes_)) return fail(ParseError::kFramingFlood, kFlooded, consumed);
    if (payload_ != 0) return {Step::Kind::kBody, consumed};
    if (message_complete_) {
        state_ = State::kDone;
        return {Step::Kind::kEnd, consumed};
    }
    return {Step::Kind::kNeedMore, consumed};
}

bool Http1Parser::finish() {
    if (state_ == State::kStart) return leading_crlf_ % 2 == 0;
    if (state_ == State::kDone) return true;
    if (state_ == State::kHeadDone && message_complete_) return true;
    if (state_ == State::kHeadDone || state_ == State::kBody) {
        return side_ == Side::kResponse && (parser_.flags & (F_CHUNKED | F_CONTENT_LENGTH)) == 0;
    }
    return false;
}

std::vector<Field> Http1Parser::trailers() const {
    std::vector<Field> out;
    if (!partial_ || !partial_->trailers) return out;
    const std::string_view bytes = partial_->bytes;
    for (const FieldRef& f : partial_->fields) {
        const std::string_view name = bytes.substr(f.name_begin, f.name_size);
        // Framing, routing, connection and request-modifying fields must not come as trailers (RFC 9110 section 6.5.1).
        switch (field_id(name)) {
            case FieldId::kOther:
                break;
            default:
                continue;
        }
        const auto begins = [name](std::string_view with) {
            return iequals(name.substr(0, with.size()), with);
        };
        if (begins("if-") || begins("proxy-") || begins("x-forwarded-") || begins("accept") ||
            iequals(name, "forwarded") || iequals(name, "x-real-ip") || iequals(name, "range") ||
            iequals(name, "http2-settings")) {
            continue;
        }
        if (iequals(name, "authorization") || iequals(name, "set-cookie") ||
            iequals(name, "content-encoding") || iequals(name, "content-range") ||
            iequals(name, "cache-control") || iequals(name, "max-forwards")) {
            continue;
        }
        out.push_back({name, trim_ows(bytes.substr(f.value_begin, f.value_size))});
    }
    return out;
}

// ---- the finished head -------------------------------------------------------------------------------------------

// What one pass over the fields learns.
struct Http1Parser::FieldFacts {
    const FieldRef* host = nullptr;
    const FieldRef* content_length = nullptr;
    const FieldRef* transfer_encoding = nullptr;
    FieldRef* upgrade = nullptr;
    const FieldRef* expect = nullptr;
    unsigned hosts = 0;
    unsigned content_lengths = 0;
    unsigned transfer_encodings = 0;
    bool connection = false;
};

void Http1Parser::point_head_at_scratch(Head& head) {
    head.bytes = base_;
    head.bytes_size = head_size_;
    head.fields = scratch_.fields.data();
    head.field_count = static_cast<std::uint32_t>(scratch_.fields.size());
    head.version_minor = parser_.http_minor;
}

bool Http1Parser::read_fields(Head& head, FieldFacts& facts) {
    for (FieldRef& f : head.all()) {
        if (f.name_size == 0) return reject(ParseError::kMalformed, "empty field name");
        std::string_view value = head.value(f);
        if (!value.empty() && (value.back() == ' ' || value.back() == '\t')) {
            value = trim_ows(value);
            f.value_size = static_cast<std::uint32_t>(value.size());
        }
        f.id = field_id(head.name(f));
        switch (f.id) {
            case FieldId::kOther:
                break;
            case FieldId::kHost:
                facts.host = &f;
                ++facts.hosts;
                break;
            case FieldId::kContentLength:
                facts.content_length = &f;
                ++facts.content_lengths;
                f.dropped = true;
                break;
            case FieldId::kTransferEncoding:
                facts.transfer_encoding = &f;
                ++facts.transfer_encodings;
                f.dropped = true;
                break;
            case FieldId::kConnection:
                facts.connection = true;
                f.dropped = true;
                break;
            case FieldId::kUpgrade:
                facts.upgrade = &f;
                f.dropped = true;
                break;
            case FieldId::kKeepAlive:
            case FieldId::kProxyConnection:
            case FieldId::kTe:
                f.dropped = true;
                break;
            case FieldId::kExpect:
                facts.expect = &f;
                break;
            case FieldId::kTrailer:
                head.has_trailer_field = true;
                break;
            default:
                break;
        }
    }
    return true;
}

bool Http1Parser::read_transfer_coding(Head& head, const FieldFacts& facts) {
    if (facts.transfer_encodings == 0) return true;
    if (head.version_minor == 0) return reject(ParseError::kMalformed, "Transfer-Encoding in HTTP/1.0");
    if (facts.content_lengths != 0) {
        return reject(ParseError::kMalformed, "both Transfer-Encoding and Content-Length");
    }
    if (facts.transfer_encodings > 1) return reject(ParseError::kMalformed, "repeated Transfer-Encoding");
    const std::string_view value = head.value(*facts.transfer_encoding);
    if (iequals(value, "chunked")) {
        head.framing = Framing::kChunked;
        return true;
    }
    // A coding we do not know, alone or well-formed in front of chunked, is not implemented; the rest is malformed.
    const std::string_view first = value.substr(0, value.find(','));
    const bool unknown = is_token(first) && !iequals(first, "chunked") && !iequals(first, "identity");
    return reject(unknown ? ParseError::kUnknownCoding : ParseError::kMalformed,
                  "Transfer-Encoding other than exactly 'chunked'");
}

bool Http1Parser::read_content_length(Head& head, const FieldFacts& facts) {
    if (facts.content_lengths == 0) return true;
    if (facts.content_lengths > 1) return reject(ParseError::kMalformed, "repeated Content-Length");
    const auto length = parse_decimal(head.value(*facts.content_length));
    if (!length) return reject(ParseError::kMalformed, "Content-Length is not a number");
    head.content_length = *length;
    head.framing = *length == 0 ? Framing::kNone : Framing::kLength;
    return true;
}

void Http1Parser::read_connection(Head& head, const FieldFacts& facts) {
    if (head.has_trailer_field && head.framing != Framing::kChunked) {  // there will be none
        for (FieldRef& f : head.all())
            f.dropped |= f.id == FieldId::kTrailer;
    }
    bool close = false;
    bool keep_alive = false;
    bool upgrade = false;
    if (facts.connection) {
        for (const FieldRef& f : head.all()) {
            if (f.id != FieldId::kConnection) continue;
            for_each_list_element(head.value(f), [&](std::string_view token) {
                if (iequals(token, "close")) {
                    close = true;
                } else if (iequals(token, "keep-alive")) {
                    keep_alive = true;
                } else if (iequals(token, "upgrade")) {
                    upgrade = true;
                } else {
                    // Whatever it names goes, but nobody can name away what frames or routes the message.
                    for (FieldRef& named : head.all()) {
                        if (named.id != FieldId::kHost && iequals(head.name(named), token))
                            named.dropped = true;
                    }
                }
            });
        }
    }
    head.keep_alive = !close && (head.version_minor == 1 || keep_alive);
    head.upgrade = upgrade && facts.upgrade != nullptr && head.version_minor == 1;
    if (!head.upgrade) return;
    // RFC 9113 section 3.1 made the upgrade to h2c obsolete; it would lead past every route, as no reader of the tunnel knows.
    for (const FieldRef& f : head.all()) {
        if (f.id != FieldId::kUpgrade) continue;
        for_each_list_element(head.value(f), [&](std::string_view token) {
            if (iequals(token.substr(0, 2), "h2")) head.upgrade = false;
        });
    }
}

bool Http1Parser::finish_request_head() {
    RequestHead& head = scratch_.request;
    head = RequestHead();
    point_head_at_scratch(head);
    if (!check_request_line(head) || !read_target(head)) return false;
    FieldFacts facts;
    if (!read_fields(head, facts)) return false;
    if (!read_transfer_coding(head, facts) || !read_content_length(head, facts)) return false;
    if (limits_.body_bytes_max != 0 && head.content_length > limits_.body_bytes_max) {
        return reject(ParseError::kBodyTooLarge, "body larger than the limit");
    }
    if (facts.hosts > 1) return reject(ParseError::kMalformed, "repeated Host");
    if (facts.hosts == 0 && head.version_minor == 1) return reject(ParseError::kMalformed, "missing Host");
    if (facts.host != nullptr) {
        if (!is_host_and_port(head.value(*facts.host))) return reject(ParseError::kMalformed, "invalid Host");
        if (!head.absolute_form) {
            head.authority_begin = facts.host->value_begin;
            head.authority_size = facts.host->value_size;
        }
    }
    read_connection(head, facts);
    if (head.framing != Framing::kNone) head.upgrade = false;
    head.expects_continue = facts.expect != nullptr && head.version_minor == 1 &&
                            iequals(head.value(*facts.expect), "100-continue");
    return true;
}

bool Http1Parser::check_request_line(RequestHead& head) {
    // llhttp lets several spaces and other versions pass; the raw line is the judge (RFC 9112 section 3).
    const std::string_view bytes(head.bytes, head.bytes_size);
    const std::size_t space = bytes.find(' ');
    const std::size_t target_end = std::size_t{text_begin_} + text_size_;
    if (space == std::string_view::npos || text_begin_ != space + 1 || target_end + 11 > bytes.size()) {
        return reject(ParseError::kMalformed, "malformed request line");
    }
    const std::string_view version = bytes.substr(target_end, 11);
    if (version.substr(0, 6) != " HTTP/" || version[7] != '.' || version.substr(9) != "\r\n") {
        return reject(ParseError::kMalformed, "malformed request line");
    }
    if (parser_.http_major != 1 || parser_.http_minor > 1) {
        return reject(ParseError::kVersion, "unsupported HTTP version");
    }
    head.method_size = static_cast<std::uint16_t>(space);
    head.method = method_of(parser_.method);
    head.target_begin = text_begin_;
    head.target_size = text_size_;
    if (text_size_ > limits_.target_bytes_max) {
        return reject(ParseError::kTargetTooLong, "request target longer than the limit");
    }
    return true;
}

bool Http1Parser::read_target(RequestHead& head) {
    const std::string_view target = head.target();
    for (const char c : target) {
        if (c <= 0x20 || c == 0x7F || c == '#')
            return reject(ParseError::kMalformed, "invalid byte in the request target");
    }
    if (target.front() == '/') {  // origin-form
        head.path_begin = head.target_begin;
        head.path_total = head.target_size;
    } else if (target == "*") {  // asterisk-form: OPTIONS only (RFC 9112 section 3.2.4)
        if (head.method != Method::kOptions) return reject(ParseError::kMalformed, "'*' is for OPTIONS only");
        head.path_begin = head.target_begin;
        head.path_total = 1;
    } else if (head.method != Method::kConnect && !read_authority(head)) {
        return false;
    }
    const std::string_view all = head.path_and_query();
    head.path_size = static_cast<std::uint32_t>(std::min(all.find('?'), all.size()));
    return true;
}

// absolute-form: http://authority[/path][?query] (RFC 9112 section 3.2.2).
bool Http1Parser::read_authority(RequestHead& head) {
    const std::string_view target = head.target();
    const std::size_t scheme = target.find("://");
    if (scheme == std::string_view::npos ||
        !(iequals(target.substr(0, scheme), "http") || iequals(target.substr(0, scheme), "https"))) {
        return reject(ParseError::kMalformed, "request target is neither a path nor an http URI");
    }
    const std::size_t begin = scheme + 3;
    const std::size_t end = std::min(target.find_first_of("/?", begin), target.size());
    if (!is_host_and_port(target.substr(begin, end - begin))) {
        return reject(ParseError::kMalformed, "invalid authority in the request target");
    }
    if (end < target.size() && target[end] == '?') {
        return reject(ParseError::kMalformed, "absolute request target without a path");
    }
    head.absolute_form = true;
    head.authority_begin = head.target_begin + static_cast<std::uint32_t>(begin);
    head.authority_size = static_cast<std::uint32_t>(end - begin);
    head.path_begin = head.target_begin + static_cast<std::uint32_t>(end);
    head.path_total = head.target_size - static_cast<std::uint32_t>(end);
    return true;
}

bool Http1Parser::finish_response_head() {
    ResponseHead& head = scratch_.response;
    head = ResponseHead();
    point_head_at_scratch(head);
    const std::string_view bytes(head.bytes, head.bytes_size);
    // "HTTP/1.1 200" and then a space or the line's end (RFC 9112 section 4).
    if (bytes.size() < 14 || bytes.substr(0, 7) != "HTTP/1." || bytes[8] != ' ' ||
        (bytes[12] != ' ' && bytes[12] != '\r')) {
        return reject(ParseError::kMalformed, "malformed status line");
    }
    if (parser_.http_major != 1 || parser_.http_minor > 1) {
        return reject(ParseError::kVersion, "unsupported HTTP version");
    }
    head.status = parser_.status_code;
    if (head.status < 100 || head.status > 599) return reject(ParseError::kMalformed, "status out of range");
    head.reason_begin = text_begin_;
    head.reason_size = text_size_;
    if (!is_field_text(head.reason()))
        return reject(ParseError::kMalformed, "control byte in the reason phrase");
    FieldFacts facts;
    if (!read_fields(head, facts)) return false;
    if (!read_transfer_coding(head, facts) || !read_content_length(head, facts)) return false;
    read_connection(head, facts);
    if (response_to_head_ || bodiless_status(head.status)) {
        // A length here describes what a GET would bring (RFC 9110 section 8.6); 1xx and 204 must not have one.
        if (facts.content_length != nullptr && head.status >= 200 && head.status != 204) {
            head.fields[facts.content_length - head.fields].dropped = false;
        }
        head.framing = Framing::kNone;
    } else if (facts.content_lengths == 0 && facts.transfer_encodings == 0) {
        head.framing = Framing::kUntilClose;
        head.keep_alive = false;
    }
    return true;
}

}  // namespace outrider::http
