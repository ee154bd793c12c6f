#include "control/node/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/node/backoff.h"

namespace outrider::node {
namespace {

std::vector<std::string> read_all(FrameReader& reader, std::string_view bytes, std::size_t piece) {
    std::vector<std::string> out;
    while (!bytes.empty()) {
        const std::string_view now = bytes.substr(0, piece);
        bytes.remove_prefix(now.size());
        reader.add(now);
        for (;;) {
            const auto payload = reader.next();
            if (!payload) return {"error: " + payload.error()};
            if (!*payload) break;
            out.emplace_back(**payload);
        }
    }
    return out;
}

TEST(Frame, ComesOutAsItWentInFromPiecesOfAnySize) {
    std::string bytes;
    const std::vector<std::string> payloads{"a", std::string(1000, 'b'), "ccc", std::string(70'000, 'd'),
                                            "e"};
    for (const std::string& payload : payloads)
        append_frame(payload, bytes);
    for (const std::size_t piece :
         {std::size_t{1}, std::size_t{7}, std::size_t{8}, std::size_t{9}, std::size_t{4096}, bytes.size()}) {
        FrameReader reader;
        EXPECT_EQ(read_all(reader, bytes, piece), payloads) << piece;
    }
}

TEST(Frame, IsRefusedWhenAnyByteIsDamaged) {
    std::string sound;
    append_frame("some payload", sound);
    for (std::size_t i = 0; i < sound.size(); ++i) {
        std::string damaged = sound;
        damaged[i] = static_cast<char>(damaged[i] ^ 0x20);
        FrameReader reader;
        const auto read = read_all(reader, damaged, damaged.size());
        EXPECT_TRUE(read.empty() || read.front().starts_with("error: ")) << "byte " << i;
    }
}

TEST(Frame, OfAnotherProtocolIsRefusedByItsLength) {
    FrameReader reader;
    const auto read = read_all(reader, "GET / HTTP/1.1\r\n\r\n", 100);
    ASSERT_EQ(read.size(), 1U);
    EXPECT_THAT(read.front(), testing::HasSubstr("no outrider node"));
    reader.add("more");
    EXPECT_FALSE(reader.next().ok());
}

TEST(Frame, OfMoreThanIsTakenNowIsRefusedByItsLength) {
    const std::string payload(100, 'x');
    std::string bytes;
    append_frame(payload, bytes);
    FrameReader reader(99);
    reader.add(bytes);
    EXPECT_FALSE(reader.next());
    FrameReader later(99);
    later.set_payload_max(100);
    later.add(bytes);
    const auto got = later.next();
    ASSERT_TRUE(got);
    EXPECT_EQ(*got, payload);
}

TEST(Frame, OfNoBytesIsRefused) {
    const std::string header(8, '\0');
    FrameReader reader;
    reader.add(header);
    EXPECT_FALSE(reader.next().ok());
}

TEST(Backoff, DoublesUpToItsMostAndIsDrawnFromTheUpperHalf) {
    Random random(1);
    for (unsigned failures = 0; failures < 40; ++failures) {
        const Duration whole = std::min(kReconnectMax, kReconnectMin * (1 << std::min(failures, 6U)));
        for (int i = 0; i < 50; ++i) {
            const Duration wait = reconnect_after(failures, random);
            EXPECT_GE(wait, whole / 2);
            EXPECT_LE(wait, whole);
        }
    }
}

}  // namespace
}  // namespace outrider::node
