// Files that are written whole and then given their name: there is the old one, or the new one, and nothing between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/wal/files.h"

namespace outrider::node {

// "cannot sync FILE: No space left on device".
Error failed(std::string_view what, const std::string& file, const wal::IoError& cause);

Result<void> write_all(wal::File& file, const std::string& name, std::uint64_t offset,
                       std::string_view bytes);

// Makes the file durable under its final name.
Result<void> put_in_place(wal::FileSystem& files, wal::File& file, const std::string& directory,
                          const std::string& from, const std::string& to);

// Writes the file anew, by way of NAME.tmp. Durable on return.
Result<void> write_file(wal::FileSystem& files, const std::string& directory, const std::string& name,
                        std::string_view bytes);

// At most `bytes_max`; a longer one is an error.
Result<std::string> read_file(wal::FileSystem& files, const std::string& name, std::size_t bytes_max);

}  // namespace outrider::node
