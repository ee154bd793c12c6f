// Durations and sizes come from people's configuration files: any bytes are answered, and what is
// accepted reads back as the same value from its printed form.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/units.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    // NOLINTNEXTLINE: libFuzzer hands bytes, the parsers read characters.
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (const auto duration = outrider::parse_duration(text)) {
        const auto again = outrider::parse_duration(outrider::to_string(*duration));
        outrider::require(again.ok() && *again == *duration, "a printed duration reads back");
    }
    if (const auto bytes = outrider::parse_bytes(text)) {
        const auto again = outrider::parse_bytes(outrider::to_string(*bytes));
        outrider::require(again.ok() && *again == *bytes, "a printed size reads back");
    }
    return 0;
}
