#include "base/units.h"

#include <array>
#include <cctype>
#include <cmath>

#include "base/bytes.h"

namespace outrider {
namespace {

struct Unit {
    std::string_view suffix;
    std::uint64_t factor;
};

constexpr std::array<Unit, 7> kDurationUnits{{{"ns", 1},
                                              {"us", 1'000},
                                              {"ms", 1'000'000},
                                              {"s", 1'000'000'000},
                                              {"m", 60'000'000'000},
                                              {"h", 3'600'000'000'000},
                                              {"d", 86'400'000'000'000}}};
constexpr std::uint64_t kDurationMax = 3653ull * 86'400'000'000'000ull;  // 10 years in ns

constexpr std::array<Unit, 9> kByteUnits{{{"B", 1},
                                          {"KiB", 1ull << 10},
                                          {"MiB", 1ull << 20},
                                          {"GiB", 1ull << 30},
                                          {"TiB", 1ull << 40},
                                          {"KB", 1'000},
                                          {"MB", 1'000'000},
                                          {"GB", 1'000'000'000},
                                          {"TB", 1'000'000'000'000}}};
constexpr std::uint64_t kBytesMax = 1ull << 62;

// Reads "<decimal>[.<decimal>]<unit>" as a whole number of the smallest unit.
template <std::size_t N>
std::optional<std::uint64_t> parse_with_unit(std::string_view text, const std::array<Unit, N>& units,
                                             std::uint64_t max) {
    std::size_t digits = 0;
    while (digits < text.size() && ascii_digit(text[digits]))
        ++digits;
    const auto whole = parse_decimal(text.substr(0, digits));
    if (!whole) return std::nullopt;
    std::string_view rest = text.substr(digits);
    std::string_view fraction;
    if (!rest.empty() && rest.front() == '.') {
        rest.remove_prefix(1);
        std::size_t n = 0;
        while (n < rest.size() && ascii_digit(rest[n]))
            ++n;
        fraction = rest.substr(0, n);
        if (fraction.empty() || fraction.size() > 5) return std::nullopt;
        rest.remove_prefix(n);
    }
    if (rest.empty() && fraction.empty() && *whole == 0) return 0;
    for (const Unit& unit : units) {
        if (unit.suffix != rest) continue;
        if (*whole > max / unit.factor) return std::nullopt;
        std::uint64_t value = *whole * unit.factor;
        std::uint64_t numerator = 0;
        std::uint64_t denominator = 1;
        for (const char c : fraction) {
            numerator = numerator * 10 + static_cast<std::uint64_t>(c - '0');
            denominator *= 10;
        }
        // Five digits at most, so that this product stays below 2^64 for every unit.
        if (numerator * unit.factor % denominator != 0) return std::nullopt;
        value += numerator * unit.factor / denominator;
        if (value > max) return std::nullopt;
        return value;
    }
    return std::nullopt;
}

template <std::size_t N>
std::string shortest(std::uint64_t value, const std::array<Unit, N>& units, std::string_view zero) {
    if (value == 0) return std::string(zero);
    const Unit* best = &units[0];
    for (const Unit& unit : units) {
        if (value % unit.factor == 0 && unit.factor > best->factor) best = &unit;
    }
    return std::to_string(value / best->factor) + std::string(best->suffix);
}

}  // namespace

Result<Duration> parse_duration(std::string_view text) {
    const auto value = parse_with_unit(text, kDurationUnits, kDurationMax);
    if (!value) {
        return Error{"'" + std::string(text) +
                     "' is not a duration (write a number and a unit: \"250ms\", \"1.5s\", \"2m\", "
                     "\"24h\"; at most 10 years)"};
    }
    return Duration(static_cast<std::int64_t>(*value));
}

Result<Bytes> parse_bytes(std::string_view text) {
    const auto value = parse_with_unit(text, kByteUnits, kBytesMax);
    if (!value) {
        return Error{"'" + std::string(text) +
                     "' is not a size (write a number and a unit: \"512B\", \"64KiB\", \"1MiB\")"};
    }
    return Bytes{*value};
}

std::string to_string(Duration d) {
    return shortest(static_cast<std::uint64_t>(d.count()), kDurationUnits, "0s");
}

std::string to_string(Bytes b) {
    return shortest(b.value, kByteUnits, "0B");
}

}  // namespace outrider
