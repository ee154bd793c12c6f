// A file system that measures how long each fdatasync of a log's segment takes: the metric wal_sync_seconds.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "base/time.h"
#include "base/wal/files.h"

namespace outrider::node {

class TimedFiles final : public wal::FileSystem {
  public:
    using Clock = std::function<Instant()>;
    using OnSync = std::function<void(Duration)>;  // on the thread that syncs

    TimedFiles(wal::FileSystem& files, Clock clock, OnSync on_sync)
        : files_(files), clock_(std::move(clock)), on_sync_(std::move(on_sync)) {}

    wal::IoError make_directory(const std::string& path) override { return files_.make_directory(path); }
    wal::IoError list(const std::string& directory, std::vector<std::string>& names) override {
        return files_.list(directory, names);
    }
    Opened open(const std::string& path, OpenMode mode) override {
        Opened opened = files_.open(path, mode);
        // Only the log: its thread is the one that writes the metric.
        const bool log = path.ends_with(".wal") || path.ends_with(".wal.tmp");
        if (opened.file && log) opened.file = std::make_unique<TimedFile>(*this, std::move(opened.file));
        return opened;
    }
    wal::IoError rename(const std::string& from, const std::string& to) override {
        return files_.rename(from, to);
    }
    wal::IoError remove(const std::string& path) override { return files_.remove(path); }
    wal::IoError sync_directory(const std::string& path) override { return files_.sync_directory(path); }
    Locked lock(const std::string& path) override { return files_.lock(path); }
    std::uint64_t random() override { return files_.random(); }

  private:
    class TimedFile final : public wal::File {
      public:
        TimedFile(TimedFiles& owner, std::unique_ptr<wal::File> file)
            : owner_(owner), file_(std::move(file)) {}
        Count write_at(std::uint64_t offset, std::span<const std::string_view> pieces) override {
            return file_->write_at(offset, pieces);
        }
        Count read_at(std::uint64_t offset, std::span<char> room) override {
            return file_->read_at(offset, room);
        }
        Count size() override { return file_->size(); }
        wal::IoError truncate(std::uint64_t size) override { return file_->truncate(size); }
        wal::IoError sync_data() override {
            const Instant begun = owner_.clock_();
            const wal::IoError result = file_->sync_data();
            owner_.on_sync_(owner_.clock_() - begun);
            return result;
        }

      private:
        TimedFiles& owner_;
        std::unique_ptr<wal::File> file_;
    };

    wal::FileSystem& files_;
    const Clock clock_;
    const OnSync on_sync_;
};

}  // namespace outrider::node
