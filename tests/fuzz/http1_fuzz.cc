// Any bytes as HTTP/1.1 requests or responses.
//
// Held here: cutting the input into pieces never changes what was read; nothing is read outside of a piece (each lies
// in a heap block of exactly its size); what is kept of an unfinished head is bounded; and a message that was accepted,
// written again by HeadWriter with its framing as outrider writes it, reads back as the same message.
//
// The first byte chooses the side and the options; the second how many cuts there are; one byte a cut follows, then the
// message.
#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/http/head_writer.h"
#include "base/http/http1_parser.h"

namespace {
using namespace outrider;
using namespace outrider::http;

using Fields = std::vector<std::pair<std::string, std::string>>;

struct Options {
    Http1Parser::Side side = Http1Parser::Side::kRequest;
    bool to_head = false;
    bool then_end = false;  // the peer ends its direction behind the bytes
};

ParserLimits limits() {
    ParserLimits out;  // small, so that the limits themselves are reached
    out.head_bytes_max = 1024;
    out.fields_max = 16;
    out.target_bytes_max = 256;
    out.body_bytes_max = 2048;
    out.framing_grace = 64;
    return out;
}

// One message as it was read.
struct Message {
    std::string start;  // method and target, or status and reason
    std::string authority;
    std::string path_and_query;
    Fields fields;  // those that are forwarded
    Framing framing = Framing::kNone;
    std::uint64_t content_length = 0;
    int version_minor = 0;
    int status = 0;
    bool keep_alive = false;
    bool upgrade = false;
    bool expects_continue = false;
    std::string body;
    Fields trailers;
    bool complete = false;
    std::string written;  // its head as outrider would send it on; not compared
    std::string method_text;

    friend bool operator==(const Message& a, const Message& b) {
        return a.start == b.start && a.authority == b.authority && a.path_and_query == b.path_and_query &&
               a.fields == b.fields && a.framing == b.framing && a.content_length == b.content_length &&
               a.version_minor == b.version_minor && a.keep_alive == b.keep_alive && a.upgrade == b.upgrade &&
               a.expects_continue == b.expects_continue && a.body == b.body && a.trailers == b.trailers &&
               a.complete == b.complete && a.written == b.written;
    }
};

struct Reading {
    std::vector<Message> messages;
    ParseError error = ParseError::kNone;
};

bool inside(std::string_view part, const Head& head) {
    return part.data() >= head.bytes && part.data() + part.size() <= head.bytes + head.bytes_size;
}

void note_fields(Message& m, const Head& head) {
    require(head.bytes_size <= limits().head_bytes_max, "a head keeps its limit");
    require(head.field_count <= limits().fields_max, "the fields keep their limit");
    for (const FieldRef& f : head.all()) {
        require(inside(head.name(f), head) && inside(head.value(f), head), "fields lie within the head");
        require(!head.name(f).empty(), "a field has a name");
        const std::string_view value = head.value(f);
        require(value.find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos,
                "no value could be read as two lines");
        if (!f.dropped) m.fields.emplace_back(head.name(f), value);
    }
    m.framing = head.framing;
    m.content_length = head.content_length;
    m.version_minor = head.version_minor;
    m.keep_alive = head.keep_alive;
    m.upgrade = head.upgrade;
    // As an exchange writes a head: the bound is all it may rely on.
    const std::size_t bound = HeadWriter::bound(head);
    const std::unique_ptr<char[]> room(new char[bound]);
    HeadWriter writer(room.get());
    writer.fields(head);
    require(writer.size() <= bound, "fields() keeps its bound");
    m.written.assign(room.get(), writer.size());
}

Message note_request(const RequestHead& head) {
    Message m;
    require(inside(head.target(), head) && inside(head.authority(), head), "the target lies within the head");
    m.method_text = head.method_text();
    m.start = m.method_text + " " + std::string(head.target());
    m.authority = head.authority();
    m.path_and_query = head.path_and_query();
    require(m.path_and_query.starts_with(head.path()), "the path is the target's beginning");
    m.expects_continue = head.expects_continue;
    note_fields(m, head);
    return m;
}

Message note_response(const ResponseHead& head) {
    Message m;
    require(inside(head.reason(), head), "the reason lies within the head");
    require(head.status >= 100 && head.status <= 599, "a status has its range");
    m.status = head.status;
    m.start = std::to_string(head.status) + " " + std::string(head.reason());
    note_fields(m, head);
    return m;
}

// The whole input as a connection would read it: message after message until an error.
Reading read(std::string_view input, const Options& options, const std::vector<std::size_t>& cuts) {
    const ParserLimits bounds = limits();
    ParserScratch scratch;
    Http1Parser parser(options.side, bounds, scratch);
    parser.reset(options.to_head);
    Reading out;
    bool within = false;
    std::size_t begin = 0;
    for (std::size_t i = 0; i <= cuts.size(); ++i) {
        const std::size_t end = i < cuts.size() ? cuts[i] : input.size();
        const std::size_t size = end - begin;
        const std::unique_ptr<char[]> piece(new char[size]);  // exactly: the sanitizer guards its ends
        if (size != 0) std::memcpy(piece.get(), input.data() + begin, size);
        begin = end;
        std::string_view rest(piece.get(), size);
        for (;;) {
            const Step step = parser.step(rest);
            require(step.consumed <= rest.size(), "no more is consumed than there was");
            const bool moved = step.consumed != 0;
            rest.remove_prefix(step.consumed);
            if (step.kind == Step::Kind::kHead) {
                require(!within, "a head begins a message");
                within = true;
                out.messages.push_back(options.side == Http1Parser::Side::kRequest
                                           ? note_request(parser.request())
                                           : note_response(parser.response()));
            } else if (step.kind == Step::Kind::kBody) {
                require(within && moved, "a body follows a head and is made of bytes");
                for (const std::string_view s : parser.body()) {
                    require(s.data() >= piece.get() && s.data() + s.size() <= piece.get() + size,
                            "a body's slices lie in this piece");
                    out.messages.back().body += s;
                }
                require(out.messages.back().body.size() <= bounds.body_bytes_max, "a body keeps its limit");
            } else if (step.kind == Step::Kind::kEnd) {
                require(within, "only a message ends");
                within = false;
                Message& m = out.messages.back();
                m.complete = true;
                std::size_t trailer_bytes = 0;
                for (const Field& f : parser.trailers()) {
                    m.trailers.emplace_back(f.name, f.value);
                    trailer_bytes += f.name.size() + f.value.size();
                }
                require(trailer_bytes <= bounds.head_bytes_max, "trailers keep their limit");
                parser.reset(options.to_head);
            } else if (step.kind == Step::Kind::kError) {
                out.error = parser.error();
                require(out.error != ParseError::kNone, "a failure has its kind");
                require(*parser.error_reason() != '\0', "a failure has a reason");
                require(status_for(out.error) >= 400, "a failure has a status");
                // What of an unfinished body came before the failure depends on the cuts.
                if (within) out.messages.back().body.clear();
                return out;
            } else {
                require(rest.empty(), "more is needed only when all is used");
                break;
            }
        }
    }
    if (options.then_end && within) out.messages.back().complete = parser.finish();
    return out;
}

// The message as outrider sends it on.
std::string write(const Message& m, const Options& options) {
    const bool request = options.side == Http1Parser::Side::kRequest;
    std::string out = request ? m.start + " HTTP/1.1\r\n" : "HTTP/1.1 " + m.start + "\r\n";
    out += m.written;
    if (m.framing == Framing::kLength) out += "Content-Length: " + std::to_string(m.content_length) + "\r\n";
    if (m.framing == Framing::kNone && !request && !options.to_head && m.status >= 200 && m.status != 204 &&
        m.status != 304) {
        out += "Content-Length: 0\r\n";  // or it would last until the connection's end
    }
    if (m.framing == Framing::kChunked) out += "Transfer-Encoding: chunked\r\n";
    out += "\r\n";
    if (m.framing != Framing::kChunked) return out + m.body;
    if (!m.body.empty()) {
        char size[20];
        out.append(size, std::to_chars(size, size + 20, m.body.size(), 16).ptr);
        out += "\r\n" + m.body + "\r\n";
    }
    out += "0\r\n";
    for (const auto& [name, value] : m.trailers)
        out += name + ": " + value + "\r\n";
    return out + "\r\n";
}

void check_written(const Message& m, const Options& options) {
    // A request of HTTP/1.0 without Host gets one before it is sent on.
    const bool request = options.side == Http1Parser::Side::kRequest;
    const bool has_host = std::any_of(m.fields.begin(), m.fields.end(),
                                      [](const auto& f) { return field_id(f.first) == FieldId::kHost; });
    if (request && !has_host) return;
    Options again = options;
    again.then_end = m.framing == Framing::kUntilClose;
    const std::string written = write(m, options);
    if (written.size() > limits().head_bytes_max) return;  // rebuilt lines may be a little longer
    const Reading back = read(written, again, {});
    require(back.error == ParseError::kNone, "what outrider writes is accepted");
    require(back.messages.size() == 1, "one message is written as one message");
    const Message& b = back.messages.front();
    require(b.complete, "what outrider writes is whole");
    require(b.start == m.start && b.authority == m.authority, "the start line reads back");
    require(b.fields == m.fields, "the fields read back");
    require(b.framing == m.framing, "the framing reads back");
    require(m.framing != Framing::kLength || b.content_length == m.content_length, "the length reads back");
    require(b.body == m.body && b.trailers == m.trailers, "the body reads back");
    require(b.written == m.written, "writing is stable");
}

bool is_limit(ParseError error) {
    return error == ParseError::kTargetTooLong || error == ParseError::kHeadTooLarge ||
           error == ParseError::kTooManyFields || error == ParseError::kBodyTooLarge ||
           error == ParseError::kFramingFlood;
}

// What is malformed beyond a limit may be refused for either; what is refused whole is refused in pieces.
bool same_verdict(ParseError a, ParseError b) {
    if (a == b) return true;
    return a != ParseError::kNone && b != ParseError::kNone && (is_limit(a) || is_limit(b));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    Options options;
    options.side = (data[0] & 1) != 0 ? Http1Parser::Side::kResponse : Http1Parser::Side::kRequest;
    options.to_head = (data[0] & 2) != 0 && options.side == Http1Parser::Side::kResponse;
    options.then_end = (data[0] & 4) != 0;
    const std::size_t cut_count = std::min<std::size_t>(data[1] & 15, size - 2);
    const std::string_view input(reinterpret_cast<const char*>(data) + 2 + cut_count, size - 2 - cut_count);

    const Reading whole = read(input, options, {});
    std::vector<std::size_t> cuts;
    std::size_t at = 0;
    for (std::size_t i = 0; i < cut_count; ++i) {
        at = std::min(at + data[2 + i], input.size());
        cuts.push_back(at);
    }
    std::vector<std::size_t> bytes(input.size());
    for (std::size_t i = 0; i < bytes.size(); ++i)
        bytes[i] = i;
    for (const auto& pieces : {cuts, bytes}) {
        const Reading split = read(input, options, pieces);
        require(same_verdict(split.error, whole.error), "cuts do not change the verdict");
        require(split.messages == whole.messages, "cuts do not change what was read");
    }
    for (const Message& m : whole.messages) {
        if (m.complete) check_written(m, options);
    }
    return 0;
}
