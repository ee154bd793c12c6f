#include "config/source.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <system_error>

#include <unistd.h>

#include "base/bytes.h"

namespace outrider::config {
namespace {

constexpr std::size_t kFileMax = 4 * 1024 * 1024;

struct FileCloser {
    void operator()(std::FILE* file) const { std::fclose(file); }
};

}  // namespace

// A host name that fits where node.name goes (Via, Proxy-Status), whatever the kernel says it is.
std::string usable_host_name(std::string name) {
    if (name.size() > 253) name.resize(253);
    std::replace_if(
        name.begin(), name.end(),
        [](char c) {
            return !(ascii_digit(c) || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z') || c == '.' ||
                     c == '-' || c == '_');
        },
        '-');
    return name.empty() ? "localhost" : name;
}

// Reports what is no text at all; the position is that of the byte.
bool is_text(std::string_view text, Diagnostics& diagnostics) {
    if (text.size() > kFileMax) {
        diagnostics.error({}, "", "is larger than 4 MiB");
        return false;
    }
    const std::size_t nul = text.find('\0');
    if (nul == std::string_view::npos) return true;
    const std::string_view before = text.substr(0, nul);
    const auto lines = std::count(before.begin(), before.end(), '\n');
    const std::size_t start = before.rfind('\n');
    const std::size_t column = start == std::string_view::npos ? nul + 1 : nul - start;
    diagnostics.error({static_cast<unsigned>(lines) + 1, static_cast<unsigned>(column)}, "",
                      "is not a text file (it has a NUL byte)");
    return false;
}

// Reads up to one byte more than allowed, so that parse() sees that it is too much. Works for
// pipes.
Result<std::string> read_file(const std::string& path) {
    const auto failed = [](int code) {
        return Error{"cannot be read: " + std::generic_category().message(code)};
    };
    const std::unique_ptr<std::FILE, FileCloser> file(std::fopen(path.c_str(), "rbe"));
    if (!file) return failed(errno);
    std::string text;
    std::string chunk(64 * 1024, '\0');
    while (text.size() <= kFileMax) {
        errno = 0;
        const std::size_t n = std::fread(chunk.data(), 1, chunk.size(), file.get());
        text.append(chunk, 0, n);
        if (n == chunk.size()) continue;
        if (std::ferror(file.get()) != 0) return failed(errno);
        break;
    }
    return text;
}

std::string host_name() {
    char name[256] = "";
    if (gethostname(name, sizeof name - 1) != 0) return "";
    return name;
}

EnvLookup process_environment() {
    return [](const std::string& name) -> std::optional<std::string> {
        const char* value = std::getenv(name.c_str());
        if (value == nullptr) return std::nullopt;
        return value;
    };
}

}  // namespace outrider::config
