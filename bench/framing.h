// Just enough HTTP/1.1 to find where messages end, for peers that are known and well behaved.
//
// Not a codec: it accepts what outrider must refuse. It exists so that the bench stands on nothing
// that it measures.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace outrider::bench {

// Bytes up to and including the empty line; 0 when it is not there yet.
std::size_t head_length(std::string_view bytes);

// What the fields of a head say about the body and the connection.
struct Fields {
    bool has_length = false;
    std::uint64_t length = 0;
    bool chunked = false;
    bool close = false;     // Connection: close
    bool replayed = false;  // Idempotent-Replayed: true
};
Fields read_fields(std::string_view head);

// Counts off one body, in pieces of any size.
class Body {
  public:
    void start_length(std::uint64_t bytes);
    void start_chunked();
    void start_until_close();

    // Takes what belongs to the body from the front of `bytes`; returns how many bytes that were.
    std::size_t take(std::string_view bytes);
    bool done() const { return state_ == State::kDone; }
    bool failed() const { return state_ == State::kFailed; }
    bool until_close() const { return state_ == State::kUntilClose; }

  private:
    enum class State : std::uint8_t {
        kDone,
        kLength,
        kUntilClose,
        kChunkSize,       // hex digits
        kChunkExtension,  // up to the line's end
        kChunkData,
        kChunkEnd,      // CRLF behind the data
        kTrailerStart,  // at the first byte of a trailer line, or of the empty line
        kTrailerLine,
        kFailed,
    };
    void take_framing(char c);

    State state_ = State::kDone;
    std::uint64_t left_ = 0;
};

}  // namespace outrider::bench
