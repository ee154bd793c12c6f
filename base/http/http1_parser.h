// Reads HTTP/1.x messages from bytes: llhttp, and on top the rules of RFC 9112 that llhttp 9.2 does not hold.
//
// A pull parser without side effects: step() takes bytes and says what it found; it never calls back into the owner.
// Nothing is repaired: what is ambiguous is an error (docs/http.md has the table).
//
// Memory: a head that arrives in one piece is parsed where it lies; only an unfinished head is copied into the
// parser (and that copy is freed with the head's end). An idle parser holds no buffer.
//
// Use, once per piece of input, until `consumed` covers it:
//     Step s = parser.step(input);
//     kHead: request()/response() is valid until the next step() and while `input` lives; keep what you need
//     kBody: s.body slices of this input; kEnd: message complete, trailers() valid until the next step()
//     kNeedMore: everything was consumed; kError: error() says what; nothing more may be fed
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <llhttp.h>

#include "base/http/message.h"

namespace outrider::http {

enum class ParseError : std::uint8_t {
    kNone,
    kMalformed,      // 400
    kTargetTooLong,  // 414
    kHeadTooLarge,   // 431
    kTooManyFields,  // 431
    kUnknownMethod,  // 501
    kUnknownCoding,  // 501: a transfer coding other than chunked
    kVersion,        // 505
    kBodyTooLarge,   // 413
    kFramingFlood,   // 400: chunk overhead out of proportion
};
int status_for(ParseError error);

struct ParserLimits {
    std::size_t head_bytes_max = 32 * 1024;  // start line and fields; trailers count anew
    std::uint32_t fields_max = 100;
    std::size_t target_bytes_max = 8 * 1024;
    std::uint64_t body_bytes_max = 0;  // 0 = none
    // Of chunk framing that is let through beside what is in proportion to the payload. 0 = what the side has.
    std::uint64_t framing_grace = 0;
};

struct Step {
    enum class Kind : std::uint8_t { kNeedMore, kHead, kBody, kEnd, kError };
    Kind kind = Kind::kNeedMore;
    std::size_t consumed = 0;
};

// Parsing state shared by all parsers of one thread: what is needed only while step() runs.
struct ParserScratch {
    RequestHead request;
    ResponseHead response;
    std::vector<FieldRef> fields;
    std::vector<std::string_view> body;
};

class Http1Parser {
  public:
    enum class Side : std::uint8_t { kRequest, kResponse };
    Http1Parser(Side side, const ParserLimits& limits, ParserScratch& scratch);
    ~Http1Parser();

    // Ready for the next message. For responses: the method of the request it answers (HEAD has no body).
    void reset(bool response_to_head = false);

    Step step(std::string_view input);

    // The peer will send no more. True when that is a proper end (between messages, or of an until-close body).
    bool finish();

    RequestHead& request() { return scratch_.request; }
    ResponseHead& response() { return scratch_.response; }
    std::span<const std::string_view> body() const { return scratch_.body; }  // after kBody
    // Trailer fields that may be forwarded (framing, routing and connection fields are left out).
    std::vector<Field> trailers() const;

    ParseError error() const { return error_; }
    const char* error_reason() const { return reason_; }

    bool idle() const { return state_ == State::kStart && leading_crlf_ == 0; }
    // Nothing but empty lines, which may stand before a request (RFC 9112 section 2.2).
    bool blank() const { return state_ == State::kStart; }
    bool in_head() const { return state_ == State::kStart || state_ == State::kHead; }

  private:
    friend struct Http1Callbacks;
    enum class State : std::uint8_t { kStart, kHead, kHeadDone, kBody, kDone, kFailed };

    struct Partial;  // what must outlive a step() when a head or trailers come in pieces

    Step skip_leading_crlf(std::string_view& input);
    Step parse_head(std::string_view input);
    Step parse_body(std::string_view input);
    Step fail(ParseError error, const char* reason, std::size_t consumed);
    Step fail_from_llhttp(int code, std::string_view before, bool at_token, std::size_t consumed);
    Step head_unfinished(std::string_view seen, std::size_t consumed);

    bool finish_request_head();
    bool finish_response_head();
    void point_head_at_scratch(Head& head);
    bool check_request_line(RequestHead& head);
    bool read_target(RequestHead& head);
    bool read_authority(RequestHead& head);
    struct FieldFacts;
    bool read_fields(Head& head, FieldFacts& facts);
    bool read_content_length(Head& head, const FieldFacts& facts);
    bool read_transfer_coding(Head& head, const FieldFacts& facts);
    void read_connection(Head& head, const FieldFacts& facts);
    bool reject(ParseError error, const char* reason);
    bool floods(std::uint64_t framing, std::uint64_t payload) const;

    llhttp_t parser_;
    ParserScratch& scratch_;
    const ParserLimits& limits_;
    std::unique_ptr<Partial> partial_;
    const char* base_ = nullptr;  // where the current head, or piece of a body, begins, during step()
    const char* reason_ = "";
    std::uint64_t body_bytes_ = 0;
    std::uint64_t framing_bytes_ = 0;  // chunk lines, extensions, trailers
    std::size_t payload_ = 0;          // of the body, in this step()
    std::uint32_t head_size_ = 0;      // bytes of the head seen so far
    std::uint32_t text_begin_ = 0;     // of the target or the reason phrase
    std::uint32_t text_size_ = 0;
    Side side_;
    State state_ = State::kStart;
    ParseError error_ = ParseError::kNone;
    std::uint8_t leading_crlf_ = 0;
    bool response_to_head_ = false;
    bool in_value_ = false;
    bool head_complete_ = false;
    bool message_complete_ = false;
};

}  // namespace outrider::http
