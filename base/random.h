// A small pseudo-random generator for decisions inside pure cores: load balancing, jitter,
// sampling.
//
// xoshiro256** 1.0 by David Blackman and Sebastiano Vigna (public domain, prng.di.unimi.it): 256
// bits of state, period 2^256 - 1, about a nanosecond a number. The state is filled from the seed
// by splitmix64, as its authors advise, so every seed is good, 0 too.
//
// The same seed gives the same sequence on every machine and build: a failing simulation replays
// from its seed. It is predictable from its output, so it must never make a secret (tokens, ids
// that grant anything). There is no seeding from the operating system here on purpose: the shell
// does that and hands the seed in. Not for use from two threads at once; give each worker its own.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace outrider {

// splitmix64's step function: spreads every bit of x over the whole word. A bijection; mix64(0) ==
// 0.
inline constexpr std::uint64_t mix64(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

// The upper 64 bits of a * b. With a random over its whole range, the result is in [0, b) with a
// bias of at most b / 2^64 (Lemire, "Fast random integer generation in an interval", without the
// rejection).
inline constexpr std::uint64_t scale64(std::uint64_t a, std::uint64_t b) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>((static_cast<Wide>(a) * b) >> 64);
}

class Random {
  public:
    explicit constexpr Random(std::uint64_t seed) {
        for (std::uint64_t& word : state_) {
            seed += 0x9e3779b97f4a7c15ULL;
            word = mix64(seed);
        }
    }

    // All 64 bits are random.
    constexpr std::uint64_t next() {
        const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
        const std::uint64_t shifted = state_[1] << 17;
        state_[2] ^= state_[0];
        state_[3] ^= state_[1];
        state_[1] ^= state_[2];
        state_[0] ^= state_[3];
        state_[2] ^= shifted;
        state_[3] = std::rotl(state_[3], 45);
        return result;
    }

    // Uniform in [0, bound); 0 when bound is 0.
    constexpr std::uint64_t below(std::uint64_t bound) { return scale64(next(), bound); }

    // Uniform in [0, 1), 53 bits.
    constexpr double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

  private:
    std::array<std::uint64_t, 4> state_{};
};

}  // namespace outrider
