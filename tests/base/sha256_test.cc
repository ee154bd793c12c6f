#include "base/sha256.h"

#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace outrider {
namespace {

std::string hex(const Sha256::Digest& digest) {
    std::string out;
    for (const unsigned char byte : digest)
        out += fmt::format("{:02x}", byte);
    return out;
}

// The examples of FIPS 180-2, appendix B.
TEST(Sha256, IsTheStandardsWhereverThePiecesAreCut) {
    const std::string text = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    for (std::size_t cut = 0; cut <= text.size(); ++cut) {
        Sha256 sha;
        sha.add(std::string_view(text).substr(0, cut));
        sha.add(std::string_view(text).substr(cut));
        EXPECT_EQ(hex(sha.finish()), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    }
    Sha256 abc;
    abc.add("abc");
    EXPECT_EQ(hex(abc.finish()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(hex(Sha256().finish()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

}  // namespace
}  // namespace outrider
