#include "proxy/access_log_writer.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"

namespace outrider::proxy {
namespace {

using std::chrono_literals::operator""min;
using std::chrono_literals::operator""ms;

constexpr Duration kReportInterval = 1min;
constexpr Duration kPollSlice = 50ms;  // how soon a writer stuck on its reader notices stop()
constexpr std::size_t kPipeWrite = PIPE_BUF;
static_assert(kAccessLineMax <= kPipeWrite);

Result<int> open_target(const AccessLogWriter::Options& options) {
    if (options.target == "stdout") return options.stdout_fd;
    // A FIFO without a reader would hold the main loop here until one comes: without O_NONBLOCK, open(2) waits.
    const int fd = ::open(options.target.c_str(),
                          O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
    if (fd < 0) {
        const std::string reason =
            errno == ENXIO ? "nothing reads from it (a FIFO's reader must come first)" : std::strerror(errno);
        return Error{"cannot open the access log " + options.target + ": " + reason};
    }
    // The writer thread waits for slow readers by itself; others may share the open file.
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0 || ::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0) {
        const std::string reason = std::strerror(errno);
        ::close(fd);
        return Error{"cannot open the access log " + options.target + ": " + reason};
    }
    return fd;
}

std::size_t queue_bound(const AccessLogWriter::Options& options) {
    if (options.queue_buffers_max != 0) return options.queue_buffers_max;
    return std::max<std::size_t>(16, 4 * std::size_t{options.workers});
}

bool shared_by_lines(int fd) {
    struct stat info {};
    if (::fstat(fd, &info) != 0) return false;
    return S_ISFIFO(info.st_mode) || S_ISSOCK(info.st_mode) || ::isatty(fd) == 1;
}

// The longest run of whole lines that fits one write to a pipe.
std::string_view whole_lines(std::string_view bytes) {
    if (bytes.size() <= kPipeWrite) return bytes;
    const std::size_t end = bytes.rfind('\n', kPipeWrite - 1);
    return bytes.substr(0, end == std::string_view::npos ? kPipeWrite : end + 1);
}

}  // namespace

void AccessLogWriter::Worker::append(const AccessEntry& entry, Instant now) {
    if (buffer_.used + kAccessLineMax > writer_.options_.buffer_bytes) [[unlikely]]
        flush(now);
    if (buffer_.lines == 0) since_ = now;
    char* const at = buffer_.bytes.get() + buffer_.used;
    const std::size_t room = writer_.options_.buffer_bytes - buffer_.used;
    buffer_.used += writer_.options_.format == config::AccessFormat::kJson ? format_json(entry, at, room)
                                                                           : format_text(entry, at, room);
    ++buffer_.lines;
}

void AccessLogWriter::Worker::flush(Instant now) {
    if (buffer_.lines == 0) return;
    buffer_.at = now;
    if (writer_.exchange(buffer_, false)) return;
    dropped_.add(buffer_.lines);
    buffer_.used = 0;
    buffer_.lines = 0;
}

Result<std::unique_ptr<AccessLogWriter>> AccessLogWriter::open(Options options) {
    require(options.workers > 0, "an access log has a worker");
    require(options.buffer_bytes >= 2 * kAccessLineMax, "a buffer takes two lines");
    options.queue_buffers_max = queue_bound(options);
    const Result<int> fd = open_target(options);
    if (!fd) return Error{fd.error()};
    std::unique_ptr<AccessLogWriter> writer(new AccessLogWriter(std::move(options), *fd));
    writer->start();
    return writer;
}

AccessLogWriter::AccessLogWriter(Options options, int fd) : options_(std::move(options)) {
    queue_.reserve(options_.queue_buffers_max + options_.workers);
    recycled_.reserve(options_.queue_buffers_max + options_.workers);
    for (unsigned i = 0; i < options_.workers; ++i) {
        workers_.push_back(std::make_unique<Worker>(*this, new_buffer()));
    }
    adopt(fd);
}

AccessLogWriter::~AccessLogWriter() {
    stop();
    if (reopened_fd_ >= 0) ::close(reopened_fd_);
    if (fd_ != options_.stdout_fd) ::close(fd_);
}

// Signals belong to the main loop, not to this thread: blocked here, EPIPE and EFBIG come as values
// too.
void AccessLogWriter::start() {
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { run(); });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

AccessLogWriter::Buffer AccessLogWriter::new_buffer() const {
    Buffer buffer;
    buffer.bytes.reset(
        new char[options_.buffer_bytes]);  // not zeroed: no page is touched before its lines come
    return buffer;
}

// Hands `full` over and leaves an empty buffer in its place; false, and nothing changed, when the
// queue is full.
bool AccessLogWriter::exchange(Buffer& full, bool even_when_full) {
    {
        const std::lock_guard lock(mutex_);
        // Those that the writer is at count too: the bound is on buffers, not on the queue's
        // length.
        if (handed_over_ - finished_ >= options_.queue_buffers_max && !even_when_full) return false;
        Buffer empty;
        if (recycled_.empty()) {
            empty = new_buffer();
        } else {
            empty = std::move(recycled_.back());
            recycled_.pop_back();
        }
        queue_.push_back(std::move(full));
        full = std::move(empty);
        ++handed_over_;
    }
    wake_.notify_one();
    return true;
}

Result<void> AccessLogWriter::reopen() {
    if (options_.target == "stdout") return {};
    const Result<int> fd = open_target(options_);
    if (!fd) return Error{fd.error()};
    {
        const std::lock_guard lock(mutex_);
        if (reopened_fd_ >= 0) ::close(reopened_fd_);
        reopened_fd_ = *fd;
    }
    wake_.notify_one();
    return {};
}

void AccessLogWriter::stop() {
    if (!thread_.joinable()) return;
    for (const auto& worker : workers_) {
        if (worker->buffer_.lines == 0) continue;
        worker->buffer_.at = worker->since_;
        exchange(worker->buffer_, true);
    }
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    hurry_.store(true, std::memory_order_relaxed);
    wake_.notify_one();
    thread_.join();
    if (unreported_ != 0) log_warning("access log: {} lines dropped", unreported_);
}

void AccessLogWriter::sync() {
    std::unique_lock lock(mutex_);
    const std::uint64_t target = handed_over_;
    idle_.wait(lock, [&] { return finished_ >= target && reopened_fd_ < 0; });
}

std::uint64_t AccessLogWriter::dropped_lines() const {
    std::uint64_t lines = lost_.load(std::memory_order_relaxed);
    for (const auto& worker : workers_)
        lines += worker->dropped_.value();
    return lines;
}

// A new file is taken into use at once, before what waits: the one that rotation renamed is soon
// compressed.
void AccessLogWriter::run() {
    std::vector<Buffer> taken;
    taken.reserve(queue_.capacity());
    std::unique_lock lock(mutex_);
    for (;;) {
        wake_.wait(lock, [&] { return !queue_.empty() || reopened_fd_ >= 0 || stopping_; });
        if (queue_.empty() && reopened_fd_ < 0) return;
        if (reopened_fd_ >= 0) {
            adopt(reopened_fd_);
            reopened_fd_ = -1;
        }
        taken.swap(queue_);
        for (Buffer& buffer : taken) {
            lock.unlock();
            write_out(buffer);
            lock.lock();
            recycled_.push_back(std::move(buffer));
            ++finished_;
            if (reopened_fd_ >= 0) {
                adopt(reopened_fd_);
                reopened_fd_ = -1;
            }
        }
        taken.clear();
        idle_.notify_all();
    }
}

void AccessLogWriter::adopt(int fd) {
    if (fd_ >= 0 && fd_ != options_.stdout_fd) ::close(fd_);
    fd_ = fd;
    line_wise_ = shared_by_lines(fd);
    torn_ = false;
}

void AccessLogWriter::write_out(Buffer& buffer) {
    const std::string_view bytes(buffer.bytes.get(), buffer.used);
    std::size_t done = 0;
    int error = 0;
    std::size_t ended = 0;
    if (torn_ && !write_all("\n", ended)) {
        error = errno;
    } else {
        torn_ = false;
        if (!write_all(bytes, done)) error = errno;
        if (done > 0) torn_ = bytes[done - 1] != '\n';
    }
    // Counted only when something went wrong: looking at every byte would cost more than writing
    // the lines did.
    const std::uint64_t lines =
        error == 0 ? buffer.lines
                   : static_cast<std::uint64_t>(
                         std::count(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(done), '\n'));
    written_.fetch_add(lines, std::memory_order_relaxed);
    if (error != 0) {
        lost_.fetch_add(buffer.lines - lines, std::memory_order_relaxed);
        report(error, buffer.lines - lines, buffer.at);
    }
    buffer.used = 0;
    buffer.lines = 0;
}

// False with errno set when `done` bytes is all that could be written.
bool AccessLogWriter::write_all(std::string_view bytes, std::size_t& done) {
    while (done < bytes.size()) {
        std::string_view next = bytes.substr(done);
        if (line_wise_) {
            // A blocking pipe is asked first: it takes PIPE_BUF without blocking when it is
            // writable (pipe(7)).
            if (!wait_writable()) return false;
            next = whole_lines(next);
        }
        const ssize_t n = ::write(fd_, next.data(), next.size());
        if (n > 0) {
            done += static_cast<std::size_t>(n);
        } else if (n == 0) {
            errno = EIO;
            return false;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (!wait_writable()) return false;
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

// Waits for a slow reader for as long as it takes, but only stop_patience once the process is to
// end. Counts slices of waiting because this thread has no clock.
bool AccessLogWriter::wait_writable() {
    Duration waited{0};
    for (;;) {
        pollfd poll{fd_, POLLOUT, 0};
        const int n = ::poll(&poll, 1, static_cast<int>(millis_of(kPollSlice)));
        if (n > 0) return true;  // errors come with the write
        if (n < 0 && errno != EINTR) return false;
        if (!hurry_.load(std::memory_order_relaxed)) continue;
        waited += kPollSlice;
        if (given_up_ || waited >= options_.stop_patience) {
            given_up_ = true;  // the buffers behind this one do not wait again
            errno = ETIMEDOUT;
            return false;
        }
    }
}

void AccessLogWriter::report(int error, std::uint64_t lines, Instant now) {
    unreported_ += lines;
    if (reported_ && now - last_report_ < kReportInterval) return;
    log_error("access log: {} lines dropped: cannot write to {}: {}", unreported_, options_.target,
              std::strerror(error));
    reported_ = true;
    last_report_ = now;
    unreported_ = 0;
}

}  // namespace outrider::proxy
