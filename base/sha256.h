// SHA-256 (FIPS 180-4) over bytes that come in pieces; the pieces' borders do not matter. OpenSSL computes it.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string_view>

namespace outrider {

class Sha256 {
  public:
    static constexpr std::size_t kBytes = 32;
    using Digest = std::array<unsigned char, kBytes>;

    Sha256();
    Sha256(Sha256&&) noexcept = default;
    Sha256& operator=(Sha256&&) noexcept = default;

    void add(std::string_view bytes);
    Digest finish();  // once; nothing may follow

  private:
    struct Free {
        void operator()(void* context) const;
    };
    std::unique_ptr<void, Free> context_;  // null: finished
};

}  // namespace outrider
