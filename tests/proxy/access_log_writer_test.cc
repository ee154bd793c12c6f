#include "proxy/access_log_writer.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

namespace outrider::proxy {
namespace {
using namespace std::chrono_literals;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const Instant t0{};

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);)
        lines.push_back(line);
    return lines;
}

bool whole(const std::string& line) {
    return line.starts_with("time=") && line.ends_with(" client=-");
}

class AccessLogWriterTest : public ::testing::Test {
  protected:
    AccessLogWriterTest() {
        std::string name = ::testing::TempDir() + "access_log_XXXXXX";
        folder_ = ::mkdtemp(name.data());
        path_ = folder_ + "/access.log";
    }
    ~AccessLogWriterTest() override { std::filesystem::remove_all(folder_); }

    static std::unique_ptr<AccessLogWriter> open(AccessLogWriter::Options options) {
        auto writer = AccessLogWriter::open(std::move(options));
        EXPECT_TRUE(writer.ok());
        return std::move(writer).value();
    }
    AccessLogWriter::Options to_file() const { return {.target = path_}; }
    static AccessLogWriter::Options to_pipe(int fd) {
        return {.buffer_bytes = 8 * 1024, .queue_buffers_max = 3, .stop_patience = 100ms, .stdout_fd = fd};
    }

    static void append(AccessLogWriter& writer, unsigned worker, int number, Instant now = t0) {
        AccessEntry entry;
        const std::string path = "/" + std::to_string(number);
        entry.path = path;
        writer.worker(worker).append(entry, now);
    }
    static std::string read_file(const std::string& path) {
        std::ifstream in(path);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    static std::string read_to_end(int fd) {
        std::string all;
        char chunk[4096];
        ssize_t n = 0;
        while ((n = ::read(fd, chunk, sizeof chunk)) > 0) {
            all.append(chunk, static_cast<std::size_t>(n));
        }
        return all;
    }

    std::string folder_;
    std::string path_;
};

TEST_F(AccessLogWriterTest, StopWritesWhatEveryWorkerHolds) {
    auto options = to_file();
    options.workers = 2;
    auto writer = open(options);
    for (int i = 0; i < 3; ++i)
        append(*writer, 0, i);
    append(*writer, 1, 100);
    EXPECT_EQ(writer->written_lines(), 0u);
    writer->stop();
    EXPECT_EQ(writer->written_lines(), 4u);
    EXPECT_EQ(writer->dropped_lines(), 0u);
    const auto lines = lines_of(read_file(path_));
    ASSERT_EQ(lines.size(), 4u);
    for (const auto& line : lines)
        EXPECT_TRUE(whole(line)) << line;
}

TEST_F(AccessLogWriterTest, WritesOldLinesWhenTheyAreDue) {
    auto writer = open(to_file());
    auto& worker = writer->worker(0);
    append(*writer, 0, 1, t0 + 50ms);
    worker.flush_if_due(t0 + 249ms);
    writer->sync();
    EXPECT_EQ(writer->written_lines(), 0u);
    worker.flush_if_due(t0 + 250ms);
    writer->sync();
    EXPECT_EQ(writer->written_lines(), 1u);
    append(*writer, 0, 2, t0 + 300ms);  // counts from its own first line
    worker.flush_if_due(t0 + 499ms);
    writer->sync();
    EXPECT_EQ(writer->written_lines(), 1u);
}

TEST_F(AccessLogWriterTest, LosesNothingWhileWorkersAppendAndTheFileIsRotated) {
    constexpr int kLines = 3000;
    auto options = to_file();
    options.workers = 2;
    options.queue_buffers_max = 1000;
    auto writer = open(options);
    std::vector<std::thread> workers;
    for (unsigned w = 0; w < 2; ++w) {
        workers.emplace_back([&writer, w] {
            for (int i = 0; i < kLines; ++i)
                append(*writer, w, static_cast<int>(w) * kLines + i);
            writer->worker(w).flush(t0);
        });
    }
    for (int i = 0; i < 5; ++i) {
        std::filesystem::rename(path_, path_ + "." + std::to_string(i));
        ASSERT_TRUE(writer->reopen().ok());
    }
    for (auto& worker : workers)
        worker.join();
    writer->stop();
    EXPECT_EQ(writer->dropped_lines(), 0u);
    std::size_t count = 0;
    for (const auto& file : std::filesystem::directory_iterator(folder_)) {
        for (const auto& line : lines_of(read_file(file.path()))) {
            EXPECT_TRUE(whole(line)) << line;
            ++count;
        }
    }
    EXPECT_EQ(count, 2u * kLines);
}

TEST_F(AccessLogWriterTest, ReopensARotatedFile) {
    auto writer = open(to_file());
    append(*writer, 0, 1);
    writer->worker(0).flush(t0);
    writer->sync();
    std::filesystem::rename(path_, path_ + ".1");
    ASSERT_TRUE(writer->reopen().ok());
    append(*writer, 0, 2);
    writer->stop();
    EXPECT_THAT(read_file(path_ + ".1"), HasSubstr("path=\"/1\""));
    EXPECT_EQ(lines_of(read_file(path_ + ".1")).size(), 1u);
    EXPECT_THAT(read_file(path_), HasSubstr("path=\"/2\""));
    struct stat info {};
    ASSERT_EQ(::stat(path_.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0137u, 0u);  // nothing for others, nothing to execute
}

TEST_F(AccessLogWriterTest, KeepsTheOldFileWhenTheNewOneCannotBeOpened) {
    auto writer = open(to_file());
    std::filesystem::rename(path_, path_ + ".1");
    std::filesystem::create_directory(path_);
    const auto reopened = writer->reopen();
    ASSERT_FALSE(reopened.ok());
    EXPECT_THAT(reopened.error(), HasSubstr("cannot open the access log"));
    append(*writer, 0, 1);
    writer->stop();
    EXPECT_EQ(lines_of(read_file(path_ + ".1")).size(), 1u);
}

TEST_F(AccessLogWriterTest, SaysWhyATargetCannotBeOpened) {
    const auto writer = AccessLogWriter::open({.target = folder_ + "/missing/access.log"});
    ASSERT_FALSE(writer.ok());
    EXPECT_THAT(writer.error(), EndsWith("/missing/access.log: No such file or directory"));
}

// open(2) of a FIFO without a reader waits for one, and would hold the main loop at start and at SIGUSR1.
TEST_F(AccessLogWriterTest, AFifoWithoutAReaderIsAnErrorAtOnce) {
    ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
    const auto refused = AccessLogWriter::open(to_file());
    ASSERT_FALSE(refused.ok());
    EXPECT_THAT(refused.error(), HasSubstr("/access.log: nothing reads from it"));

    const int reader = ::open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ASSERT_GE(reader, 0);
    auto writer = open(to_file());
    append(*writer, 0, 1);
    writer->worker(0).flush(t0);
    writer->sync();
    EXPECT_EQ(writer->written_lines(), 1u);
    EXPECT_TRUE(whole(lines_of(read_to_end(reader)).at(0)));

    ::close(reader);
    EXPECT_FALSE(writer->reopen().ok());  // the old descriptor stays
    writer->stop();
}

// Appends until the pipe, the queue and the worker's buffer are full and lines are dropped; then a
// reader comes.
void drop_then_read(AccessLogWriter& writer, int read_fd, int write_fd, int count, std::string& read) {
    std::thread reader([&] {
        char chunk[4096];
        ssize_t n = 0;
        while ((n = ::read(read_fd, chunk, sizeof chunk)) > 0) {
            read.append(chunk, static_cast<std::size_t>(n));
        }
    });
    writer.stop();
    ::close(write_fd);
    reader.join();
    ::close(read_fd);
    std::size_t lines = 0;
    int last = -1;
    for (const auto& line : lines_of(read)) {
        EXPECT_TRUE(whole(line)) << line;
        const int number = std::stoi(line.substr(line.find("path=\"/") + 7));
        EXPECT_GT(number, last);
        last = number;
        ++lines;
    }
    EXPECT_EQ(lines, writer.written_lines());
    EXPECT_EQ(lines + writer.dropped_lines(), static_cast<std::size_t>(count));
}

TEST_F(AccessLogWriterTest, DropsAndCountsWhenAPipeIsFullAndNeverBlocksAWorker) {
    for (const int flags : {O_CLOEXEC, O_CLOEXEC | O_NONBLOCK}) {
        int pipe[2];
        ASSERT_EQ(::pipe2(pipe, flags), 0);
        ::fcntl(pipe[0], F_SETFL, 0);  // only the writer's end may be non-blocking
        auto options = to_pipe(pipe[1]);
        options.stop_patience = 60s;
        auto writer = open(options);
        int count = 0;
        while (writer->dropped_lines() == 0)
            append(*writer, 0, count++);
        std::string read;
        drop_then_read(*writer, pipe[0], pipe[1], count, read);
    }
}

TEST_F(AccessLogWriterTest, StopGivesUpOnAReaderThatTakesNothing) {
    int pipe[2];
    ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
    auto writer = open(to_pipe(pipe[1]));
    int count = 0;
    while (writer->dropped_lines() == 0)
        append(*writer, 0, count++);
    writer->stop();
    ::close(pipe[1]);
    const auto lines = lines_of(read_to_end(pipe[0]));
    ::close(pipe[0]);
    EXPECT_EQ(lines.size(), writer->written_lines());
    EXPECT_EQ(lines.size() + writer->dropped_lines(), static_cast<std::size_t>(count));
}

TEST_F(AccessLogWriterTest, CountsLinesWhoseReaderIsGone) {
    int pipe[2];
    ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
    ::close(pipe[0]);
    auto writer = open(to_pipe(pipe[1]));
    append(*writer, 0, 1);
    writer->stop();
    ::close(pipe[1]);
    EXPECT_EQ(writer->dropped_lines(), 1u);
}

// Takes the application log's lines for as long as it lives.
class CapturedLog {
  public:
    CapturedLog() : before_(spdlog::default_logger()) {
        auto sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(text_);
        spdlog::set_default_logger(std::make_shared<spdlog::logger>("captured", sink));
    }
    ~CapturedLog() { spdlog::set_default_logger(before_); }
    std::vector<std::string> lines() const { return lines_of(text_.str()); }

  private:
    std::ostringstream text_;
    std::shared_ptr<spdlog::logger> before_;
};

TEST_F(AccessLogWriterTest, CountsLinesThatAFullDiskRefusesAndSaysSoOnceAMinute) {
    const CapturedLog log;
    auto writer = open({.target = "/dev/full"});
    for (const Instant now : {t0, t0 + 1s, t0 + 59s, t0 + 60s}) {
        append(*writer, 0, 1, now);
        writer->worker(0).flush(now);
        writer->sync();
    }
    writer->stop();
    EXPECT_EQ(writer->dropped_lines(), 4u);
    EXPECT_EQ(writer->written_lines(), 0u);
    const auto lines = log.lines();
    ASSERT_EQ(lines.size(), 2u);
    EXPECT_THAT(lines[0], HasSubstr("access log: 1 lines dropped: cannot write to /dev/full: No space"));
    EXPECT_THAT(lines[1], HasSubstr("access log: 3 lines dropped"));
}

TEST_F(AccessLogWriterTest, EndsALineThatAFullDiskTore) {
    const CapturedLog log;
    constexpr rlim_t kLimit = 300 * 1024 + 77;  // large, since it holds for this test's own output too
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const rlimit small{kLimit, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    auto writer = open(to_file());
    int count = 0;
    while (writer->dropped_lines() == 0) {
        append(*writer, 0, count++);
        writer->worker(0).flush(t0);
        writer->sync();
    }
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_EQ(writer->dropped_lines(), 1u);
    append(*writer, 0, count++);
    writer->stop();
    const auto lines = lines_of(read_file(path_));
    ASSERT_EQ(lines.size(), static_cast<std::size_t>(count));
    EXPECT_FALSE(whole(lines[lines.size() - 2]));
    EXPECT_TRUE(whole(lines.back())) << lines.back();
}

}  // namespace
}  // namespace outrider::proxy
