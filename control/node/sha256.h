// SHA-256 over bytes that come in pieces.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include <openssl/evp.h>

#include "base/check.h"

namespace outrider::node {

inline constexpr std::size_t kSha256Bytes = 32;

class Sha256 {
  public:
    Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
        require(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
                "OpenSSL has SHA-256");
    }
    void add(std::string_view bytes) {
        require(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1, "SHA-256 takes all bytes");
    }
    std::string finish() {
        std::string digest(kSha256Bytes, '\0');
        unsigned size = 0;
        // NOLINTNEXTLINE: OpenSSL's bytes are unsigned
        const int done =
            EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), &size);
        require(done == 1 && size == kSha256Bytes, "SHA-256 has an end");
        return digest;
    }

  private:
    std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace outrider::node
