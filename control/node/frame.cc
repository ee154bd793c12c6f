#include "control/node/frame.h"

#include <algorithm>

#include <xxhash.h>

#include "base/check.h"

namespace outrider::node {
namespace {

std::uint32_t read_little(const char* bytes) {
    std::uint32_t value = 0;
    for (unsigned i = 0; i < 4; ++i)
        value |= std::uint32_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    return value;
}

void write_little(char* out, std::uint32_t value) {
    for (unsigned i = 0; i < 4; ++i)
        out[i] = static_cast<char>(value >> (8 * i));
}

std::uint32_t check_of(std::string_view payload) {
    return static_cast<std::uint32_t>(XXH3_64bits(payload.data(), payload.size()));
}

}  // namespace

void seal_frame(std::string& out, std::size_t at) {
    const std::string_view payload = std::string_view(out).substr(at + kPeerFrameHeaderBytes);
    require(!payload.empty() && payload.size() <= kPeerFrameBytesMax, "a frame to send is within its bounds");
    const std::uint32_t check = check_of(payload);
    write_little(out.data() + at, static_cast<std::uint32_t>(payload.size()));
    write_little(out.data() + at + 4, check);
}

void append_frame(std::string_view payload, std::string& out) {
    const std::size_t at = out.size();
    out.resize(at + kPeerFrameHeaderBytes);
    out.append(payload);
    seal_frame(out, at);
}

void FrameReader::add(std::string_view bytes) {
    if (!error_.empty()) return;
    require(input_.empty(), "input that has come before has been read");
    if (used_ != 0) {
        pending_.erase(0, used_);
        used_ = 0;
    }
    input_ = bytes;
}

Result<std::optional<std::string_view>> FrameReader::next() {
    using Next = std::optional<std::string_view>;
    if (!error_.empty()) return Error{error_};
    if (used_ != 0) {
        pending_.erase(0, used_);
        used_ = 0;
    }
    const auto fill = [&](std::size_t want) {
        const std::size_t take = std::min(want - std::min(want, pending_.size()), input_.size());
        pending_.append(input_.substr(0, take));
        input_.remove_prefix(take);
        return pending_.size() >= want;
    };
    std::string_view header = input_;
    if (!pending_.empty() || input_.size() < kPeerFrameHeaderBytes) {
        if (!fill(kPeerFrameHeaderBytes)) return Next();
        header = pending_;
    }
    const std::uint32_t size = read_little(header.data());
    if (size == 0 || size > payload_max_) {
        error_ = "a frame of " + std::to_string(size) + " bytes: the other end is no outrider node";
        return Error{error_};
    }
    std::string_view payload;
    if (pending_.empty()) {
        if (input_.size() < kPeerFrameHeaderBytes + size) {
            fill(kPeerFrameHeaderBytes + size);
            return Next();
        }
        payload = input_.substr(kPeerFrameHeaderBytes, size);
        input_.remove_prefix(kPeerFrameHeaderBytes + size);
    } else {
        if (!fill(kPeerFrameHeaderBytes + size)) return Next();
        payload = std::string_view(pending_).substr(kPeerFrameHeaderBytes, size);
        used_ = kPeerFrameHeaderBytes + size;
        header = pending_;
    }
    if (read_little(header.data() + 4) != check_of(payload)) {
        error_ = "a frame's check is wrong: its bytes were damaged on the way";
        return Error{error_};
    }
    return Next(payload);
}

}  // namespace outrider::node
