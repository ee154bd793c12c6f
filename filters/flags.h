// Why an exchange went as it did: the access log's response flags, as in Envoy where they exist
// there. An exchange may carry several. docs/access-log.md explains each to users.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace outrider::filters {

enum class Flag : std::uint8_t {
    kUH,   // no healthy upstream endpoint
    kUF,   // connecting to the upstream failed
    kUO,   // shed: the upstream's connection or request limit is reached
    kUT,   // the upstream did not answer in time
    kUC,   // the upstream closed the connection before its answer was complete
    kUR,   // the upstream reset the connection
    kURX,  // the retry limit is reached
    kRL,   // rate limited
    kNR,   // no route matched
    kDC,   // the downstream client went away
    kDPE,  // the client broke the protocol
    kUPE,  // the upstream broke the protocol
    kOM,   // overload: outrider protected its own memory
    kFI,   // fault injected: an abort
    kDI,   // fault injected: a delay
    kIR,   // idempotency: the recorded answer was replayed
    kIC,   // idempotency: the key is in flight or its outcome unknown
    kIM,   // idempotency: the key was used with another request
    kNL,   // no leader known
    kCL,   // collapsed into another request's upstream call
    kBT,   // sent upstream as a part of a batch
    kIS,   // idempotency: the store did not answer, or is full
};

inline constexpr std::array<std::string_view, 22> kFlagNames{
    "UH",  "UF", "UO", "UT", "UC", "UR", "URX", "RL", "NR", "DC", "DPE",
    "UPE", "OM", "FI", "DI", "IR", "IC", "IM",  "NL", "CL", "BT", "IS"};
static_assert(static_cast<std::size_t>(Flag::kIS) + 1 == kFlagNames.size());

inline constexpr std::string_view flag_name(Flag flag) {
    return kFlagNames[static_cast<std::size_t>(flag)];
}

// A set of flags; its order is the enumeration's.
class Flags {
  public:
    constexpr Flags() = default;
    constexpr Flags(Flag flag) : bits_(bit(flag)) {}  // NOLINT: a flag is a set of one

    constexpr void set(Flag flag) { bits_ |= bit(flag); }
    constexpr bool has(Flag flag) const { return (bits_ & bit(flag)) != 0; }
    constexpr bool empty() const { return bits_ == 0; }
    friend constexpr Flags operator|(Flags a, Flags b) {
        a.bits_ |= b.bits_;
        return a;
    }
    constexpr Flags& operator|=(Flags other) { return *this = *this | other; }
    friend constexpr bool operator==(Flags, Flags) = default;

    template <typename F>
    constexpr void for_each(F&& f) const {
        for (std::uint32_t rest = bits_; rest != 0; rest &= rest - 1) {
            f(static_cast<Flag>(std::countr_zero(rest)));
        }
    }

  private:
    static constexpr std::uint32_t bit(Flag flag) { return std::uint32_t{1} << static_cast<unsigned>(flag); }
    std::uint32_t bits_ = 0;
};

constexpr Flags operator|(Flag a, Flag b) {
    return Flags(a) | Flags(b);
}

}  // namespace outrider::filters
