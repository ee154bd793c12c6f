// Any bytes from another node.
//
// Held here: a stream of frames is read to the same payloads whatever pieces it comes in; a frame that is a message of
// consensus is refused with a reason, or comes back as it was from being written and read again. So does a file `peers`, which
// is one such frame.
//
// The first byte: 0: the bytes are a stream as it is; else they are payloads, each behind a length of two bytes, and the frames around
// them are made right, so that what lies behind the checks is reached.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "control/node/frame.h"
#include "control/node/known_logs.h"
#include "control/node/wire.h"

namespace {
using namespace outrider;
using namespace outrider::node;

std::vector<std::string> read(std::string_view bytes, std::size_t piece, std::string& error) {
    std::vector<std::string> out;
    FrameReader reader;
    while (!bytes.empty()) {
        reader.add(bytes.substr(0, piece));
        bytes.remove_prefix(std::min(piece, bytes.size()));
        for (;;) {
            const auto payload = reader.next();
            if (!payload) {
                error = payload.error();
                return out;
            }
            if (!*payload) break;
            out.emplace_back(**payload);
        }
    }
    return out;
}

void use(const std::string& payload) {
    control::node::Frame frame;
    if (!frame.ParseFromString(payload) || !frame.has_raft()) return;
    const auto message = from_proto(*frame.mutable_raft(), {1}, {2});
    if (!message) {
        require(!message.error().empty(), "a refusal has a reason");
        return;
    }
    control::node::RaftMessage out;
    to_proto(*message, out);
    const std::string once = out.SerializeAsString();
    const auto again = from_proto(out, {1}, {2});
    require(again.ok(), "what was written by this program is read");
    control::node::RaftMessage twice;
    to_proto(*again, twice);
    require(twice.SerializeAsString() == once, "a message comes back as it was");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
    std::string stream(input);
    if (data[0] != 0) {
        stream.clear();
        while (input.size() >= 2) {
            const std::size_t want =
                static_cast<unsigned char>(input[0]) | static_cast<unsigned char>(input[1]) << 8;
            input.remove_prefix(2);
            const std::string_view payload = input.substr(0, want);
            input.remove_prefix(payload.size());
            if (!payload.empty()) append_frame(payload, stream);
        }
    }
    std::string whole_error;
    const auto whole = read(stream, stream.size() + 1, whole_error);
    for (const std::size_t piece : {std::size_t{1}, std::size_t{13}}) {
        std::string error;
        require(read(stream, piece, error) == whole && error == whole_error, "pieces do not matter");
    }
    for (const std::string& payload : whole)
        use(payload);
    if (const auto logs = parse_known_logs(stream)) {
        const auto again = parse_known_logs(encode(*logs));
        require(again.ok() && *again == *logs, "what was known comes back as it was");
    }
    return 0;
}
