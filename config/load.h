// TOML -> Settings, with every mistake of the file found in one pass.
//
// Invariants:
//   * a diagnostic names file:line:col, the full dotted key ("route[2].match.host") and the reason
//   * unknown keys are errors, with a did-you-mean when a known key of that table is near (edit
//   distance)
//   * settings exist exactly when there is no error; warnings do not prevent them
//   * the file is read once; nothing else is touched: no socket, no DNS
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/settings.h"

namespace outrider::config {

struct Diagnostic {
    enum class Severity : std::uint8_t { kError, kWarning };
    Severity severity = Severity::kError;
    std::string file;
    unsigned line = 0;    // from 1; 0 when the file as a whole is meant (it cannot be read)
    unsigned column = 0;  // from 1, in characters; 0 with line 0
    std::string key;      // empty for syntax errors
    std::string reason;
};
// "file:line:col: key: reason" (warnings: "file:line:col: warning: key: reason"). One printable
// line.
std::string to_string(const Diagnostic& d);

struct LoadResult {
    std::optional<Settings> settings;
    std::vector<Diagnostic> diagnostics;  // in file order
    std::string source;  // the file's text as read, before substitution (for /config?source=1)
};

// Looks up an environment variable; nothing when unset. Injected so that tests need no real
// environment.
using EnvLookup = std::function<std::optional<std::string>(const std::string&)>;

// `host_name` is the default of node.name.
LoadResult parse(std::string_view text, const std::string& file_name, const EnvLookup& env,
                 const std::string& host_name);

// Reads the file (at most 4 MiB) and parses it with the process's environment.
LoadResult load_file(const std::string& path);

// kHide writes "***" for the values of header rules and header matches that carry credentials
// (credentials.h), and for the password in a Redis URL.
enum class Secrets : std::uint8_t { kHide, kShow };

// The settings as TOML again, every default spelled out; what /config shows. With kShow parse()
// gives the same settings back.
std::string to_toml(const Settings& settings, Secrets secrets = Secrets::kHide);

// A file that was loaded, with the same values hidden however they are written, and what looks like
// one in its comments. When a value is not surely hidden, a sentence instead of the file.
std::string hide_secrets(std::string_view source);

}  // namespace outrider::config
