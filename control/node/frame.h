// Messages between peers as bytes on a connection. Pure.
//
//    0   4  length of the payload, little-endian, 1 to kFrameBytesMax
//    4   4  check: the low 32 bits of XXH3_64(payload, seed 0)
//    8   …  payload: a control.node.Frame (control/proto/node.proto)
//
// TCP's checksum lets one damaged segment in some ten million pass, and what is taken in here is voted on: hence the check.
// The length is judged before anything is kept, so that a stray client costs a few bytes and no more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace outrider::node {

inline constexpr std::size_t kPeerFrameHeaderBytes = 8;
// Options::message_bytes_max of consensus, one command beyond it, and room for the rest.
inline constexpr std::size_t kPeerFrameBytesMax = std::size_t{8} << 20;

// Appends the frame's header and payload. The payload is not empty and at most kPeerFrameBytesMax.
void append_frame(std::string_view payload, std::string& out);
// The same for a payload that stands at the end of `out` behind kPeerFrameHeaderBytes of room, begun at `at`.
void seal_frame(std::string& out, std::size_t at);

// Cuts a stream of bytes into payloads.
class FrameReader {
  public:
    explicit FrameReader(std::size_t payload_max = kPeerFrameBytesMax) : payload_max_(payload_max) {}
    void set_payload_max(std::size_t bytes) { payload_max_ = bytes; }  // of frames that have not begun
    // Input in pieces of any size; call next() until it has nothing before the next add(). The bytes must stay until then.
    void add(std::string_view bytes);
    // A payload, valid until the next call of either; nothing yet; or what is wrong, and then the same again.
    Result<std::optional<std::string_view>> next();

  private:
    std::string pending_;     // the beginning of a frame of which the rest is to come
    std::string_view input_;  // what has been added and not looked at
    std::size_t used_ = 0;    // of pending_, to be dropped
    std::string error_;
    std::size_t payload_max_;
};

}  // namespace outrider::node
