#include "base/wal/posix_files.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <random>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"

namespace outrider::wal {
namespace {

constexpr std::size_t kPiecesMax = 512;  // below IOV_MAX everywhere

class Descriptor {
  public:
    explicit Descriptor(int fd = -1) : fd_(fd) {}
    Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Descriptor& operator=(Descriptor&&) = delete;
    ~Descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    explicit operator bool() const { return fd_ >= 0; }
    int get() const { return fd_; }

  private:
    int fd_;
};

template <typename Call>
auto retry(Call&& call) {
    auto result = call();
    while (result < 0 && errno == EINTR)
        result = call();
    return result;
}

IoError last_error() {
    return {errno};
}

template <typename Call>
IoError done(Call&& call) {
    return retry(call) < 0 ? last_error() : IoError{};
}

Descriptor open_path(const std::string& path, int flags) {
    return Descriptor(
        retry([&] { return ::open(path.c_str(), flags | O_CLOEXEC, S_IRUSR | S_IWUSR); }));  // NOLINT
}

class PosixFile final : public File {
  public:
    explicit PosixFile(Descriptor fd) : fd_(std::move(fd)) {}

    Count write_at(std::uint64_t offset, std::span<const std::string_view> pieces) override {
        require(pieces.size() <= kPiecesMax, "a write has at most 512 pieces");
        std::array<iovec, kPiecesMax> list;
        for (std::size_t i = 0; i < pieces.size(); ++i)
            list[i] = {const_cast<char*>(pieces[i].data()), pieces[i].size()};  // NOLINT
        const ssize_t n = retry([&] {
            return ::pwritev(fd_.get(), list.data(), static_cast<int>(pieces.size()),
                             static_cast<off_t>(offset));
        });
        if (n < 0) return {0, last_error()};
        return {static_cast<std::uint64_t>(n), {}};
    }

    Count read_at(std::uint64_t offset, std::span<char> room) override {
        std::size_t read = 0;
        while (read < room.size()) {
            const ssize_t n = retry([&] {
                return ::pread(fd_.get(), room.data() + read, room.size() - read,
                               static_cast<off_t>(offset + read));
            });
            if (n < 0) return {read, last_error()};
            if (n == 0) break;
            read += static_cast<std::size_t>(n);
        }
        return {read, {}};
    }

    Count size() override {
        struct stat info = {};
        if (::fstat(fd_.get(), &info) != 0) return {0, last_error()};
        return {static_cast<std::uint64_t>(info.st_size), {}};
    }

    IoError truncate(std::uint64_t size) override {
        return done([&] { return ::ftruncate(fd_.get(), static_cast<off_t>(size)); });
    }
    IoError sync_data() override {
        return done([&] { return ::fdatasync(fd_.get()); });
    }

  private:
    Descriptor fd_;
};

// flock(2): it belongs to the open file, so that a second open in this process is excluded too, and the kernel
// drops it when the process ends.
class PosixLock final : public FileLock {
  public:
    explicit PosixLock(Descriptor fd) : fd_(std::move(fd)) {}

  private:
    Descriptor fd_;
};

class PosixFiles final : public FileSystem {
  public:
    IoError make_directory(const std::string& path) override {
        if (::mkdir(path.c_str(), S_IRWXU) != 0) {
            if (errno != EEXIST) return last_error();
            struct stat info = {};
            if (::stat(path.c_str(), &info) != 0) return last_error();
            return S_ISDIR(info.st_mode) ? IoError{} : IoError{ENOTDIR};
        }
        std::filesystem::path parent = std::filesystem::path(path).lexically_normal();
        if (!parent.has_filename()) parent = parent.parent_path();  // of a path with a slash at its end
        parent = parent.parent_path();
        return sync_directory(parent.empty() ? "." : parent.string());
    }

    IoError list(const std::string& directory, std::vector<std::string>& names) override {
        DIR* stream = ::opendir(directory.c_str());
        if (stream == nullptr) return last_error();
        for (;;) {
            errno = 0;
            const dirent* entry = ::readdir(stream);
            if (entry == nullptr) break;
            const std::string_view name = entry->d_name;
            if (name != "." && name != "..") names.emplace_back(name);
        }
        const IoError error = last_error();
        ::closedir(stream);
        return error;
    }

    Opened open(const std::string& path, OpenMode mode) override {
        Descriptor fd = open_path(path, mode == OpenMode::kCreate ? O_RDWR | O_CREAT | O_TRUNC : O_RDWR);
        if (!fd) return {nullptr, last_error()};
        return {std::make_unique<PosixFile>(std::move(fd)), {}};
    }

    IoError rename(const std::string& from, const std::string& to) override {
        return done([&] { return ::rename(from.c_str(), to.c_str()); });
    }
    IoError remove(const std::string& path) override {
        return done([&] { return ::unlink(path.c_str()); });
    }
    IoError sync_directory(const std::string& path) override {
        const Descriptor fd = open_path(path, O_RDONLY | O_DIRECTORY);
        if (!fd) return last_error();
        return done([&] { return ::fsync(fd.get()); });
    }

    Locked lock(const std::string& path) override {
        Descriptor fd = open_path(path, O_RDWR | O_CREAT);
        if (!fd) return {nullptr, last_error(), {}};
        if (retry([&] { return ::flock(fd.get(), LOCK_EX | LOCK_NB); }) != 0) {
            if (errno != EWOULDBLOCK) return {nullptr, last_error(), {}};
            return {nullptr, {}, holder_of(fd)};
        }
        // For the message above only: a full disk must not keep the log from opening.
        const std::string id = std::to_string(::getpid());
        if (::ftruncate(fd.get(), 0) != 0 || ::pwrite(fd.get(), id.data(), id.size(), 0) < 0) errno = 0;
        return {std::make_unique<PosixLock>(std::move(fd)), {}, {}};
    }

    std::uint64_t random() override {
        std::random_device device;
        return (static_cast<std::uint64_t>(device()) << 32) | device();
    }

  private:
    static std::string holder_of(const Descriptor& fd) {
        std::array<char, 24> text;
        const ssize_t n = ::pread(fd.get(), text.data(), text.size(), 0);
        if (n <= 0) return "another process";
        const auto id = parse_decimal({text.data(), static_cast<std::size_t>(n)});
        return id ? "process " + std::to_string(*id) : "another process";
    }
};

}  // namespace

FileSystem& posix_files() {
    static PosixFiles files;
    return files;
}

}  // namespace outrider::wal
