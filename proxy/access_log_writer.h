// Brings access log lines from the workers to one file or stdout without a worker ever waiting.
//
// Each worker formats into a buffer of its own, without a lock. A full buffer, or one whose first
// line is `linger` old, goes through a bounded queue to one writer thread, the only one that calls
// write(2); written buffers come back.
//
// Invariants:
//   * a worker never blocks: with the queue full, its buffer's lines are dropped and counted
//   * every line appended is written whole or counted in dropped_lines(); a line that an error tore
//   is ended, so that
//     it cannot run into the next
//   * at most workers + queue_buffers_max buffers exist (stop() adds one a worker); an untouched
//   one costs no resident memory
//   * on pipes, sockets and terminals no write is longer than PIPE_BUF and each ends with a line,
//   so that lines of
//     others who share them (stderr in the same pipe) do not land inside
//
// Errors of write (full disk, reader gone) drop what could not be written, count it, and are told
// in the application log at most once a minute; the next buffer tries again.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/metrics.h"
#include "base/result.h"
#include "base/time.h"
#include "config/settings.h"
#include "proxy/access_log.h"

namespace outrider::proxy {

class AccessLogWriter {
  public:
    struct Options {
        std::string target = "stdout";  // "stdout" or a path (created with mode 0640, appended to)
        config::AccessFormat format = config::AccessFormat::kText;
        unsigned workers = 1;
        std::size_t buffer_bytes = 64 * 1024;  // at least 2 * kAccessLineMax
        std::size_t queue_buffers_max = 0;     // 0: 4 for each worker, at least 16
        Duration linger = std::chrono::milliseconds(200);
        // How long stop() waits for a reader that takes nothing before it drops the rest.
        Duration stop_patience = std::chrono::seconds(2);
        int stdout_fd = 1;  // what "stdout" means; not closed
    };

    class Worker;

    // Opens the target and starts the thread. Errors: the file cannot be opened.
    static Result<std::unique_ptr<AccessLogWriter>> open(Options options);

    ~AccessLogWriter();  // stops
    AccessLogWriter(const AccessLogWriter&) = delete;
    AccessLogWriter& operator=(const AccessLogWriter&) = delete;

    Worker& worker(unsigned index) { return *workers_[index]; }

    // SIGUSR1: opens the path anew (a rotated file was renamed); later lines go there. Nothing
    // happens for stdout. On error the old file stays in use. From one thread only.
    Result<void> reopen();

    // Writes all that the workers hold and ends the thread. The workers must have stopped appending
    // (joined, or quiet after a flush() of their own). Returns at the latest stop_patience after
    // the target last took a byte.
    void stop();

    // Blocks until what was handed over so far is written or dropped. For tests and tools.
    void sync();

    // From any thread. What workers hold counts in neither yet.
    std::uint64_t written_lines() const { return written_.load(std::memory_order_relaxed); }
    std::uint64_t dropped_lines() const;

  private:
    struct Buffer {
        std::unique_ptr<char[]> bytes;
        std::size_t used = 0;
        std::uint64_t lines = 0;
        Instant at;  // when it was handed over
    };

    AccessLogWriter(Options options, int fd);
    void start();
    Buffer new_buffer() const;
    bool exchange(Buffer& full, bool even_when_full);
    void run();
    void adopt(int fd);
    void write_out(Buffer& buffer);
    bool write_all(std::string_view bytes, std::size_t& done);
    bool wait_writable();
    void report(int error, std::uint64_t lines, Instant now);

    const Options options_;
    std::vector<std::unique_ptr<Worker>> workers_;

    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::condition_variable idle_;
    std::vector<Buffer> queue_;     // handed over, oldest first
    std::vector<Buffer> recycled_;  // empty
    int reopened_fd_ = -1;
    std::uint64_t handed_over_ = 0;
    std::uint64_t finished_ = 0;
    bool stopping_ = false;

    std::atomic<bool> hurry_{false};  // stopping, as the writer sees it while it waits for a reader
    std::atomic<std::uint64_t> written_{0};
    std::atomic<std::uint64_t> lost_{0};  // to errors of write

    // The writer thread's own.
    int fd_ = -1;
    bool line_wise_ = false;  // a pipe, socket or terminal
    bool torn_ = false;       // the last byte written is inside a line
    bool given_up_ = false;   // stop() waited for the reader long enough
    bool reported_ = false;
    Instant last_report_;
    std::uint64_t unreported_ = 0;
    std::thread thread_;
};

// One worker's end. Every call is from that worker's thread.
class alignas(64) AccessLogWriter::Worker {
  public:
    Worker(AccessLogWriter& writer, Buffer buffer) : writer_(writer), buffer_(std::move(buffer)) {}

    void append(const AccessEntry& entry, Instant now);

    // Call once per loop turn or tick: cheap when nothing is due.
    void flush_if_due(Instant now) {
        if (buffer_.lines != 0 && now - since_ >= writer_.options_.linger) flush(now);
    }
    // Hands over what is there, or drops it when the queue is full.
    void flush(Instant now);

  private:
    friend class AccessLogWriter;
    AccessLogWriter& writer_;
    Buffer buffer_;
    Instant since_;    // when the first line of buffer_ was appended
    Counter dropped_;  // the queue was full
};

}  // namespace outrider::proxy
