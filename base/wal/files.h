// What the log needs of a file system, so that tests and the simulator can put a disk under it that loses, tears and
// fails. posix_files.h is the real one.
//
// All calls block. Errors are the operating system's numbers: the log must tell a full disk from a broken one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace outrider::wal {

// An errno value; 0 is success.
struct [[nodiscard]] IoError {
    int code = 0;
    explicit operator bool() const { return code != 0; }
    std::string text() const { return std::generic_category().message(code); }
};

class File {
  public:
    struct [[nodiscard]] Count {
        std::uint64_t bytes = 0;
        IoError error;
    };

    virtual ~File() = default;

    // May write less than all, with or without an error. At most 512 pieces.
    virtual Count write_at(std::uint64_t offset, std::span<const std::string_view> pieces) = 0;
    // Fills `room` unless the file ends first.
    virtual Count read_at(std::uint64_t offset, std::span<char> room) = 0;
    virtual Count size() = 0;
    virtual IoError truncate(std::uint64_t size) = 0;
    // fdatasync(2): the bytes, and the size if it changed.
    virtual IoError sync_data() = 0;
};

// Holds a lock until it is destroyed, or until the process ends however it ends.
class FileLock {
  public:
    virtual ~FileLock() = default;
};

class FileSystem {
  public:
    enum class OpenMode : std::uint8_t {
        kExisting,
        kCreate,  // empty; one that is there is emptied. Readable by its owner only
    };
    struct [[nodiscard]] Opened {
        std::unique_ptr<File> file;  // set unless there is an error
        IoError error;
    };
    struct [[nodiscard]] Locked {
        std::unique_ptr<FileLock> lock;  // set unless there is an error or another holds it
        IoError error;
        std::string holder;  // when another holds it: who, in words ("process 4711"), if known
    };

    virtual ~FileSystem() = default;

    // Durable on return. No error when it is there already.
    virtual IoError make_directory(const std::string& path) = 0;
    virtual IoError list(const std::string& directory, std::vector<std::string>& names) = 0;
    virtual Opened open(const std::string& path, OpenMode mode) = 0;
    virtual IoError rename(const std::string& from, const std::string& to) = 0;
    virtual IoError remove(const std::string& path) = 0;
    // fsync(2) of a directory: the names created, changed and removed in it.
    virtual IoError sync_directory(const std::string& path) = 0;
    // Creates the file if need be; two locks on one file exclude each other, in one process too. Does not wait.
    virtual Locked lock(const std::string& path) = 0;
    // For ids: all 64 bits, never the same in two logs.
    virtual std::uint64_t random() = 0;
};

}  // namespace outrider::wal
