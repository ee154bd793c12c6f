#include "control/node/durable_file.h"

#include <array>

#include <fmt/format.h>

namespace outrider::node {

Error failed(std::string_view what, const std::string& file, const wal::IoError& cause) {
    return Error{fmt::format("cannot {} {}: {}", what, file, cause.text())};
}

Result<void> write_all(wal::File& file, const std::string& name, std::uint64_t offset,
                       std::string_view bytes) {
    while (!bytes.empty()) {
        const std::array<std::string_view, 1> pieces{bytes};
        const wal::File::Count count = file.write_at(offset, pieces);
        if (count.error || count.bytes == 0) return failed("write", name, count.error);
        offset += count.bytes;
        bytes.remove_prefix(count.bytes);
    }
    return {};
}

Result<void> put_in_place(wal::FileSystem& files, wal::File& file, const std::string& directory,
                          const std::string& from, const std::string& to) {
    if (const wal::IoError error = file.sync_data()) return failed("sync", from, error);
    if (const wal::IoError error = files.rename(from, to)) return failed("rename", from, error);
    if (const wal::IoError error = files.sync_directory(directory)) return failed("sync", directory, error);
    return {};
}

Result<void> write_file(wal::FileSystem& files, const std::string& directory, const std::string& name,
                        std::string_view bytes) {
    const std::string path = directory + "/" + name;
    const std::string temporary = path + ".tmp";
    auto opened = files.open(temporary, wal::FileSystem::OpenMode::kCreate);
    if (opened.error) return failed("create", temporary, opened.error);
    if (auto written = write_all(*opened.file, temporary, 0, bytes); !written) return written;
    return put_in_place(files, *opened.file, directory, temporary, path);
}

Result<std::string> read_file(wal::FileSystem& files, const std::string& name, std::size_t bytes_max) {
    auto opened = files.open(name, wal::FileSystem::OpenMode::kExisting);
    if (opened.error) return failed("open", name, opened.error);
    std::string bytes(bytes_max + 1, '\0');
    const wal::File::Count count = opened.file->read_at(0, bytes);
    if (count.error) return failed("read", name, count.error);
    if (count.bytes > bytes_max) return Error{fmt::format("{} has more than {} bytes", name, bytes_max)};
    bytes.resize(count.bytes);
    return bytes;
}

}  // namespace outrider::node
