// A segmented write-ahead log: records go in at the end, whole segments leave at the front, and what sync() has
// confirmed is there after a crash. It knows nothing of what its records mean.
//
// One owner: calls block on the disk, so a log lives on a thread of its own (wal_thread.h), or in a simulator.
// The bytes are specified in format.h, how a torn end is told from damage in segment_reader.h.
//
// Invariants
//   * Indexes run without a gap from first_index() to next_index() - 1, through at least one segment.
//   * A record that sync() has confirmed is delivered by every later open(), in order and unchanged, until release()
//     or truncate_after() takes it away.
//   * A record that append() has accepted and no sync() confirmed may be missing after a crash, with all behind it.
//   * A record whose append() failed while failed() stayed false is never delivered.
//   * What open() has delivered is durable: the caller may act on it.
//   * A segment exceeds options.segment_bytes only by being one batch, or by records written under a larger setting.
//   * Every change of a name in the directory is followed by an fsync of the directory before anything relies on it.
//
// Errors
//   * append() fails and failed() is false: nothing was appended, the log is whole and may be used. So it is when the
//     disk is full: what was written of the batch is cut off again and that cut is synced, so the log ends with
//     its last whole record, and appending works again when there is space.
//   * failed() is true: an fsync failed, or the cut just mentioned did. Nothing that is not yet confirmed will be, and
//     every operation but reading is refused until the log is opened anew. An fsync must not be tried again:
//     the kernel marks the pages that it could not write as clean, so the second call succeeds without
//     having written them (PostgreSQL's "fsyncgate" of 2018; wiki.postgresql.org/wiki/Fsync_Errors). For the same
//     reason open() writes the records again that no later record proves to have been synced before it syncs
//     them: the page cache may show bytes that the disk has never got (Rebello et al., "Can Applications Recover from
//     fsync Failures?", ATC '20). A device that reports ENOSPC only at fsync (thin volumes, NFS) ends here as well.
//   * open() fails: the directory is locked, cannot be used, or holds what open() must not guess about. The sentence
//     names the file and the offset. No record that was durable is touched.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/wal/files.h"
#include "base/wal/format.h"
#include "base/wal/segment_reader.h"

namespace outrider::wal {

// In one append(). With it every offset in a segment fits into the format's 32 bits.
inline constexpr std::uint64_t kBatchBytesMax = std::uint64_t{256} << 20;

struct WalOptions {
    // A new segment begins before this is exceeded. Small ones give space back sooner; each costs four fsyncs and a
    // file. open() holds one segment in memory. At most 1 GiB.
    std::uint64_t segment_bytes = std::uint64_t{64} << 20;
    // Zeros are written this far ahead, so that most syncs find the file's size unchanged and need not commit the
    // file system's journal; 0: never. At most 16 MiB. Costs every byte twice, and up to this much space. Measured on
    // ext4, append and sync of 4 KB, mean: 165 us without, 86 us with 256 KiB, 97 us with 1 MiB (wal_figures).
    // fallocate(2) would not do: its blocks are marked as unwritten, and writing them goes through the journal again.
    std::uint64_t preallocate_bytes = std::uint64_t{256} << 10;
    // Of a log that is new.
    Index first_index{1};
};

// To be appended. `type` is the user's own.
struct Record {
    std::uint8_t type = 0;
    std::string_view payload;
};

struct Position {
    Index segment;             // its first index, which is its name
    std::uint64_t offset = 0;  // of the record's header
};

// As it was found; payload is valid during the call only.
struct Entry {
    Index index;
    std::uint8_t type = 0;
    std::string_view payload;
    Position position;
};
using OnEntry = std::function<void(const Entry&)>;

// What open() found; for the application's log.
struct Recovery {
    struct Torn {
        std::string file;
        std::uint64_t offset = 0;
        std::uint64_t bytes = 0;  // cut off
        std::string reason;
    };
    std::uint64_t records = 0;
    std::uint64_t segments = 0;
    std::optional<Torn> torn;
    bool created = false;  // there was no log
};

class Wal {
  public:
    // Makes the directory if it is missing (not its parents), locks it, and delivers every record to `on_entry` in
    // order. When it fails, what was delivered must be forgotten. `files` outlives the log.
    static Result<std::unique_ptr<Wal>> open(FileSystem& files, const std::string& directory,
                                             const WalOptions& options, const OnEntry& on_entry);

    Wal(const Wal&) = delete;
    Wal& operator=(const Wal&) = delete;

    // Writes the records, all of them in one segment with one write, and answers the first one's index. Not durable
    // before sync(). After a crash without sync() the first few of them may be there without the rest.
    Result<Index> append(std::span<const Record> records);
    // All that was appended is durable on success. Costs nothing when it is already.
    Result<void> sync();

    // Ends the segment, synced, and begins another, so that release() can free all that was written so far.
    Result<void> rotate();
    // Deletes the segments that hold nothing but records below `before`, the oldest first; never the last segment.
    // Not failed() after an error: some of them are still there, to be tried again.
    Result<void> release(Index before);
    // Deletes every record behind `index`, durably, the last segments first; a crash in between leaves a longer log. Not
    // below first_index() - 1. What else the caller keeps in records (a vote, a watermark) goes too: whoever mixes
    // such state into the log appends it again, and must bear that a crash may come between.
    Result<void> truncate_after(Index index);

    // Reads every record from `from` on (or from first_index()), synced or not.
    Result<void> scan(Index from, const OnEntry& on_entry) const;

    Index first_index() const { return segments_.front().first_index; }
    Index next_index() const { return next_index_; }
    // Records below are durable.
    Index durable_index() const { return durable_index_; }
    // Of the segments' files, with space written ahead.
    std::uint64_t disk_bytes() const;
    std::uint64_t segment_count() const { return segments_.size(); }
    std::uint64_t log_id() const { return log_id_; }
    bool failed() const { return failed_.has_value(); }
    const Recovery& recovery() const { return recovery_; }

  private:
    struct Segment {
        Index first_index;
        std::uint64_t bytes = 0;  // of its file
    };
    // A segment's bytes; used again for the next, since fresh memory costs more than reading.
    struct Buffer {
        std::unique_ptr<char[]> bytes;
        std::uint64_t room = 0;
        std::string_view text;
    };

    Wal(FileSystem& files, std::string directory, const WalOptions& options)
        : files_(files), directory_(std::move(directory)), options_(options) {}

    Result<void> recover(const OnEntry& on_entry);
    Result<void> list_segments(std::vector<std::string>& leftovers);
    Result<SegmentHeader> load(const Segment& segment, Buffer& buffer, std::unique_ptr<File>& file) const;
    Result<void> check_place(std::size_t position, const SegmentHeader& header) const;
    Result<void> recover_end(const SegmentReader& reader, const SegmentReader::Step& end,
                             const Buffer& buffer);
    Error damage(const Segment& segment, const SegmentReader::Step& step, Index index) const;

    Result<void> create_segment(Index first_index);
    Result<void> write_header(File& file, SegmentHeader& header, std::uint64_t& size) const;
    Result<void> seal();
    Result<void> remove_segment(const Segment& segment);
    Result<void> cut_active(Index index);
    // Writes `bytes`, and zeros behind them up to `goal`. How much was written; less than bytes.size() is a failure.
    File::Count write_ahead(File& file, std::uint64_t offset, std::string_view bytes,
                            std::uint64_t goal) const;
    std::uint64_t preallocation_goal(std::uint64_t end) const;
    Error undo_append(const IoError& cause, std::uint64_t written);

    std::string path(Index first_index) const { return directory_ + "/" + segment_name(first_index); }
    Error error(const std::string& what, const std::string& file, const IoError& cause) const;
    Error fail(const std::string& what, const std::string& file, const IoError& cause);
    Result<void> refuse_if_failed() const;

    FileSystem& files_;
    const std::string directory_;
    const WalOptions options_;
    std::unique_ptr<FileLock> lock_;
    std::deque<Segment> segments_;  // by index, never empty once open; the last is the active one
    std::optional<std::string> failed_;
    Recovery recovery_;
    std::uint64_t log_id_ = 0;

    // The active segment.
    std::unique_ptr<File> file_;
    SegmentHeader header_;
    std::uint64_t end_ = 0;      // where the next record goes
    std::uint64_t durable_ = 0;  // synced below this offset
    Index next_index_;
    Index durable_index_;
    std::string encoded_;
};

}  // namespace outrider::wal
