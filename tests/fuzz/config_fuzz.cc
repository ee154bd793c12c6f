// Any bytes as a configuration file: never a crash, and either settings or a reason. What parses is
// written as TOML and must read back as the same settings. The file is shown without secrets, whatever it is.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "config/load.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace outrider;
    const config::EnvLookup env = [](const std::string& name) -> std::optional<std::string> {
        if (name == "A") return "a";
        return std::nullopt;
    };
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const config::LoadResult result = config::parse(text, "fuzz.toml", env, "host");
    for (const config::Diagnostic& d : result.diagnostics) {
        require(!d.reason.empty(), "a diagnostic has a reason");
        require(config::to_string(d).find('\n') == std::string::npos, "a diagnostic is one line");
    }
    require(text.empty() || !config::hide_secrets(text).empty(),
            "a file is shown, or a sentence in its place");
    if (!result.settings) {
        require(!result.diagnostics.empty(), "a refused file has a reason");
        return 0;
    }
    const std::string written = config::to_toml(*result.settings, config::Secrets::kShow);
    const config::LoadResult again = config::parse(written, "written.toml", env, "host");
    require(again.settings.has_value(), "written settings parse");
    require(*again.settings == *result.settings, "written settings read back the same");
    require(config::parse(config::to_toml(*result.settings), "shown.toml", env, "host").settings.has_value(),
            "so do those with their secrets hidden");
    return 0;
}
