// A disk that fails when it is told to, under a real process: LD_PRELOAD=libfaulty_disk.so. integration/faulty_disk.py drives it and
// carries out power losses.
//
// What the process does to files below FAULTY_DISK_ROOT goes to the real file system and, in order, into a journal
// (FAULTY_DISK_JOURNAL). From it is known at any time what has been synced and what has not, so that after kill -9 a power loss can be
// made up: the directory is written anew from what was durable, and from as much of the rest as chance decides.
//
// Invariants
//   * An operation is in the journal only after it was done, a sync's end only after the real sync has succeeded. A process
//     that is killed in between leaves less in the journal than it did, never more.
//   * A sync covers what is in the journal before its beginning.
//   * What the journal cannot follow ends the process: nothing is passed over in silence.
//
// FAULTY_DISK_CONTROL names a file of struct Control, mapped by both sides: errors begin and end at once, without a restart.
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <string_view>

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

struct Control {
    std::atomic<std::int32_t> sync_error;  // errno of every fsync and fdatasync; 0: none
    std::atomic<std::int32_t> lie;         // not 0: they succeed and do nothing
    std::atomic<std::int64_t> room;       // bytes that may still be written before ENOSPC; negative: no limit
    std::atomic<std::uint64_t> failures;  // given so far
    std::atomic<std::uint32_t> sync_delay_millis;  // of every fsync and fdatasync, before it is done
    std::atomic<std::uint32_t> delayed;            // syncs so far that took longer
};

struct RecordHeader {
    std::uint8_t operation = 0;
    std::array<std::uint8_t, 3> reserved{};
    std::int32_t fd = 0;
    std::uint64_t number = 0;
    std::uint32_t first_bytes = 0;
    std::uint32_t second_bytes = 0;
};
static_assert(sizeof(RecordHeader) == 24);

constexpr std::size_t kDescriptorsMax = 1 << 16;
constexpr int kPiecesMax = 512;

template <typename Function>
Function* real(const char* name) {
    return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

[[noreturn]] void give_up(const char* why) {
    std::fprintf(stderr, "faulty_disk: %s\n", why);
    std::abort();
}

class Disk {
  public:
    Disk() {
        const char* root = std::getenv("FAULTY_DISK_ROOT");
        const char* journal = std::getenv("FAULTY_DISK_JOURNAL");
        const char* control = std::getenv("FAULTY_DISK_CONTROL");
        if (root == nullptr || journal == nullptr || control == nullptr) return;
        const auto open = real<int(const char*, int, ...)>("open");
        journal_ = open(journal, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        const int fd = open(control, O_RDWR | O_CLOEXEC);
        void* const mapped = ::mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (journal_ < 0 || mapped == MAP_FAILED) give_up("cannot open the journal or the control file");
        control_ = static_cast<Control*>(mapped);
        root_ = root;
    }

    bool covers(const char* path) const {
        const std::string_view text = path;
        return !root_.empty() && text.starts_with(root_) &&
               (text.size() == root_.size() || text[root_.size()] == '/');
    }
    bool covers(int fd) const {
        return fd >= 0 && static_cast<std::size_t>(fd) < kDescriptorsMax &&
               ours_[static_cast<std::size_t>(fd)];
    }
    void follow(int fd) {
        if (static_cast<std::size_t>(fd) >= kDescriptorsMax) give_up("too many descriptors");
        ours_[static_cast<std::size_t>(fd)] = true;
    }
    void forget(int fd) {
        if (covers(fd)) ours_[static_cast<std::size_t>(fd)] = false;
    }

    void note(char operation, int fd, std::uint64_t number, std::string_view first = {},
              std::string_view second = {}) {
        RecordHeader header;
        header.operation = static_cast<std::uint8_t>(operation);
        header.fd = fd;
        header.number = number;
        header.first_bytes = static_cast<std::uint32_t>(first.size());
        header.second_bytes = static_cast<std::uint32_t>(second.size());
        std::string record(reinterpret_cast<const char*>(&header), sizeof header);
        record.append(first).append(second);
        const std::lock_guard lock(mutex_);
        const auto write = real<ssize_t(int, const void*, std::size_t)>("write");
        if (write(journal_, record.data(), record.size()) != static_cast<ssize_t>(record.size()))
            give_up("cannot write the journal");
    }

    // How much of a write of so many bytes the disk takes; 0: it is full.
    std::size_t take_room(std::size_t bytes) {
        std::int64_t room = control_->room;
        for (;;) {
            if (room < 0) return bytes;
            const std::int64_t taken = std::min(room, static_cast<std::int64_t>(bytes));
            if (control_->room.compare_exchange_weak(room, room - taken)) {
                if (taken == 0) ++control_->failures;
                return static_cast<std::size_t>(taken);
            }
        }
    }
    bool full() const { return control_->room == 0; }

    template <typename Sync>
    int sync(int fd, Sync&& call) {
        if (const int error = control_->sync_error) {
            ++control_->failures;
            errno = error;
            return -1;
        }
        if (control_->lie != 0) return 0;
        const std::uint64_t id = ++syncs_;
        note('S', fd, id);
        if (const std::uint32_t millis = control_->sync_delay_millis) {
            ++control_->delayed;
            ::poll(nullptr, 0, static_cast<int>(millis));  // the disk is busy
        }
        const int result = call();
        if (result == 0) note('E', fd, id);
        return result;
    }

  private:
    std::string root_;
    int journal_ = -1;
    Control* control_ = nullptr;
    std::mutex mutex_;
    std::atomic<std::uint64_t> syncs_{0};
    std::array<std::atomic<bool>, kDescriptorsMax> ours_{};
};

Disk& disk() {
    static Disk& only = *new Disk;  // used until the very end of the process
    return only;
}

int open_file(const char* name, const char* path, int flags, mode_t mode) {
    const auto open = real<int(const char*, int, ...)>(name);
    const bool nameless =
        (flags & O_TMPFILE) == O_TMPFILE;  // gone with the process: nothing of it counts as kept
    if (nameless || !disk().covers(path)) return open(path, flags, mode);
    const bool writes = (flags & (O_CREAT | O_TRUNC)) != 0;
    struct stat info = {};
    const bool there = ::stat(path, &info) == 0;
    if (writes && !there && disk().full()) {
        errno = ENOSPC;
        return -1;
    }
    const int fd = open(path, flags, mode);
    if (fd < 0) return fd;
    disk().follow(fd);
    disk().note('O', fd, (there ? 0U : 1U) | (there && (flags & O_TRUNC) != 0 ? 2U : 0U), path);
    return fd;
}

ssize_t write_pieces(const char* name, int fd, const iovec* pieces, int count, off_t offset) {
    const auto write = real<ssize_t(int, const iovec*, int, off_t)>(name);
    if (!disk().covers(fd)) return write(fd, pieces, count, offset);
    if (count > kPiecesMax) give_up("too many pieces");
    std::size_t all = 0;
    for (int i = 0; i < count; ++i)
        all += pieces[i].iov_len;
    const std::size_t room = disk().take_room(all);
    if (room == 0 && all != 0) {
        errno = ENOSPC;
        return -1;
    }
    std::string bytes;
    for (int i = 0; i < count; ++i)
        bytes.append(static_cast<const char*>(pieces[i].iov_base), pieces[i].iov_len);
    const iovec one{bytes.data(), room};
    const ssize_t written = write(fd, &one, 1, offset);
    if (written > 0)
        disk().note('W', fd, static_cast<std::uint64_t>(offset),
                    std::string_view(bytes).substr(0, static_cast<std::size_t>(written)));
    return written;
}

ssize_t write_bytes(int fd, const void* bytes, std::size_t size, off_t offset) {
    const iovec piece{const_cast<void*>(bytes), size};
    return write_pieces("pwritev", fd, &piece, 1, offset);
}

int truncate_file(const char* name, int fd, off_t size) {
    const int result = real<int(int, off_t)>(name)(fd, size);
    if (result == 0 && disk().covers(fd)) disk().note('T', fd, static_cast<std::uint64_t>(size));
    return result;
}

void refuse(int fd, const char* what) {
    if (disk().covers(fd)) give_up(what);
}

}  // namespace

// NOLINTBEGIN: the C library's own signatures
#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int open(const char* path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const mode_t mode = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_file("open", path, flags, mode);
}
EXPORT int open64(const char* path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const mode_t mode = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_file("open64", path, flags, mode);
}
EXPORT int close(int fd) {
    disk().forget(fd);
    return real<int(int)>("close")(fd);
}
EXPORT ssize_t pwritev(int fd, const iovec* pieces, int count, off_t offset) {
    return write_pieces("pwritev", fd, pieces, count, offset);
}
EXPORT ssize_t pwritev64(int fd, const iovec* pieces, int count, off_t offset) {
    return write_pieces("pwritev64", fd, pieces, count, offset);
}
EXPORT ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
    return write_bytes(fd, bytes, size, offset);
}
EXPORT ssize_t pwrite64(int fd, const void* bytes, size_t size, off_t offset) {
    return write_bytes(fd, bytes, size, offset);
}
EXPORT ssize_t write(int fd, const void* bytes, size_t size) {
    refuse(fd, "write(2) without an offset is not followed");
    return real<ssize_t(int, const void*, size_t)>("write")(fd, bytes, size);
}
EXPORT ssize_t writev(int fd, const iovec* pieces, int count) {
    refuse(fd, "writev(2) without an offset is not followed");
    return real<ssize_t(int, const iovec*, int)>("writev")(fd, pieces, count);
}
EXPORT int posix_fallocate(int fd, off_t offset, off_t size) {
    refuse(fd, "posix_fallocate(3) is not followed");
    return real<int(int, off_t, off_t)>("posix_fallocate")(fd, offset, size);
}
EXPORT int ftruncate(int fd, off_t size) noexcept {
    return truncate_file("ftruncate", fd, size);
}
EXPORT int ftruncate64(int fd, off_t size) noexcept {
    return truncate_file("ftruncate64", fd, size);
}
EXPORT int fsync(int fd) {
    const auto call = real<int(int)>("fsync");
    return disk().covers(fd) ? disk().sync(fd, [&] { return call(fd); }) : call(fd);
}
EXPORT int fdatasync(int fd) {
    const auto call = real<int(int)>("fdatasync");
    return disk().covers(fd) ? disk().sync(fd, [&] { return call(fd); }) : call(fd);
}
EXPORT int rename(const char* from, const char* to) noexcept {
    const int result = real<int(const char*, const char*)>("rename")(from, to);
    if (result == 0 && disk().covers(to)) disk().note('R', -1, 0, from, to);
    return result;
}
EXPORT int unlink(const char* path) noexcept {
    const int result = real<int(const char*)>("unlink")(path);
    if (result == 0 && disk().covers(path)) disk().note('U', -1, 0, path);
    return result;
}
EXPORT int mkdir(const char* path, mode_t mode) noexcept {
    const int result = real<int(const char*, mode_t)>("mkdir")(path, mode);
    if (result == 0 && disk().covers(path)) disk().note('M', -1, 0, path);
    return result;
}
// NOLINTEND
