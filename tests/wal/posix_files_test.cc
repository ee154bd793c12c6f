#include "base/wal/posix_files.h"

#include <array>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "base/wal/wal.h"

namespace outrider::wal {
namespace {

class WalOnDisk : public testing::Test {
  protected:
    WalOnDisk() {
        std::string name = testing::TempDir() + "/wal.XXXXXX";
        parent = ::mkdtemp(name.data());
        directory = parent + "/log";
    }
    ~WalOnDisk() override { std::filesystem::remove_all(parent); }

    Result<std::unique_ptr<Wal>> open(const OnEntry& on_entry = [](const Entry&) {}) const {
        return Wal::open(posix_files(), directory,
                         {.segment_bytes = 64 * 1024, .preallocate_bytes = 16 * 1024}, on_entry);
    }

    std::string parent;
    std::string directory;
};

// Runs `body` in a process of its own; what it writes to the descriptor arrives at the one that is returned.
struct Child {
    explicit Child(const std::function<void(int)>& body) {
        std::array<int, 2> ends{};
        EXPECT_EQ(::pipe(ends.data()), 0);
        id = ::fork();
        if (id == 0) {
            ::close(ends[0]);
            body(ends[1]);
            ::_exit(0);
        }
        ::close(ends[1]);
        output = ends[0];
    }
    ~Child() {
        if (id > 0) kill();
        ::close(output);
    }
    // Its lock is free only when it is gone for good.
    void kill() {
        ::kill(id, SIGKILL);
        ::waitpid(id, nullptr, 0);
        id = -1;
    }
    std::string rest() const {
        std::string out;
        std::array<char, 4096> piece;
        for (ssize_t n = 0; (n = ::read(output, piece.data(), piece.size())) > 0;)
            out.append(piece.data(), static_cast<std::size_t>(n));
        return out;
    }

    pid_t id = -1;
    int output = -1;
};

std::string payload_of(std::uint64_t index) {
    Random random(index);
    std::string out = fmt::format("record {} ", index);
    out.resize(out.size() + random.below(400), static_cast<char>('a' + index % 26));
    return out;
}

unsigned mode_of(const std::string& path) {
    struct stat info = {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    return info.st_mode & 0777;
}

TEST_F(WalOnDisk, ItsFilesAreReadableByTheirOwnerOnly) {
    const mode_t before = ::umask(0);
    ASSERT_TRUE(open());
    ::umask(before);
    EXPECT_EQ(mode_of(directory), 0700u);
    EXPECT_EQ(mode_of(directory + "/lock"), 0600u);
    EXPECT_EQ(mode_of(directory + "/00000000000000000001.wal"), 0600u);
}

TEST_F(WalOnDisk, ASecondProcessIsToldWhoHasIt) {
    auto log = open();
    ASSERT_TRUE(log) << log.error();
    const std::string expected = fmt::format(
        "write-ahead log: {} is in use by process {}; two must not share a log", directory, ::getpid());
    const Child child([this](int out) {
        const auto second = open();
        const std::string said = second ? "opened" : second.error();
        static_cast<void>(::write(out, said.data(), said.size()));
    });
    EXPECT_EQ(child.rest(), expected);
    EXPECT_EQ(open().error(), expected) << "nor twice in one process";
    log->reset();
    EXPECT_TRUE(open());
}

TEST_F(WalOnDisk, ADirectoryThatCannotBeUsedIsNamed) {
    directory = parent + "/missing/log";
    EXPECT_EQ(open().error(),
              fmt::format("write-ahead log: cannot use {}: No such file or directory", directory));
    directory = parent + "/file";
    ::close(::creat(directory.c_str(), 0600));
    EXPECT_EQ(open().error(), fmt::format("write-ahead log: cannot use {}: Not a directory", directory));
    directory = "/proc/self";
    EXPECT_NE(open().error().find("cannot lock /proc/self/lock: "), std::string::npos);
}

TEST_F(WalOnDisk, KilledWritersLoseNothingThatTheyConfirmed) {
    Random random(7);
    std::uint64_t confirmed = 1;  // records below
    for (int round = 0; round < 20; ++round) {
        Child child([this](int out) {
            auto log = open();
            if (!log) ::_exit(1);
            for (Random sizes((*log)->next_index().value);;) {
                std::vector<std::string> payloads;
                std::vector<Record> batch;
                for (std::uint64_t n = 1 + sizes.below(5); n > 0; --n)
                    payloads.push_back(payload_of((*log)->next_index().value + payloads.size()));
                for (const std::string& payload : payloads)
                    batch.push_back({9, payload});
                if (!(*log)->append(batch) || !(*log)->sync()) ::_exit(1);
                const std::uint64_t next = (*log)->next_index().value;
                if (::write(out, &next, sizeof next) != sizeof next) ::_exit(1);
            }
        });
        std::uint64_t next = 0;
        for (std::uint64_t n = random.below(60); n > 0; --n)
            ASSERT_EQ(::read(child.output, &next, sizeof next), static_cast<ssize_t>(sizeof next));
        child.kill();
        const std::string late = child.rest();
        if (late.size() >= sizeof next)
            std::memcpy(&next, late.data() + late.size() / 8 * 8 - 8, sizeof next);
        confirmed = std::max(confirmed, next);

        std::uint64_t delivered = 1;
        auto log = open([&](const Entry& entry) {
            ASSERT_EQ(entry.index.value, delivered++);
            ASSERT_EQ(entry.payload, payload_of(entry.index.value));
            ASSERT_EQ(entry.type, 9);
        });
        ASSERT_TRUE(log) << log.error();
        ASSERT_GE(delivered, confirmed) << "round " << round;
        confirmed = delivered;
    }
    EXPECT_GT(confirmed, 100u);
}

}  // namespace
}  // namespace outrider::wal
