// A node's data directory: the write-ahead log (wal/), beside it the newest snapshot, and the file `peers`. What consensus wants written goes to
// the log's thread, snapshots of the state to a thread of their own; what has become durable comes back on the loop.
//
// Invariants
//   * Writes become durable in the order in which write() was given them, one fdatasync for all that wait (base/wal).
//   * on_durable() comes after the sync that covers the write, on_installed() before the on_durable() of its write.
//   * The snapshot that the log names exists, whole and synced: it is renamed into its place before the log names it, and an
//     older one is deleted after the log's new name for it is durable.
//   * After the first failure nothing more is reported as durable; on_storage_failed() says what happened, and the node ends.
//     Nothing is tried again (base/wal/wal.h says why).
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/wal/files.h"
#include "base/wal/wal.h"
#include "base/wal/wal_thread.h"
#include "control/node/known_logs.h"
#include "control/node/log_records.h"
#include "control/node/snapshot_file.h"
#include "control/node/task_thread.h"
#include "control/raft/effects.h"
#include "control/store/snapshot.h"

namespace outrider::node {

inline constexpr std::size_t kSnapshotChunkBytes = std::size_t{512} << 10;

// On the loop's thread.
class StorageHandler {
  public:
    virtual void on_durable(raft::WriteId last) = 0;
    // The leader's snapshot has taken the place of all there was.
    virtual void on_installed(const raft::SnapshotMeta& meta, std::unique_ptr<store::Store> store) = 0;
    // save() is done; nothing: it was given up, because another has overtaken it or it could not be written (there is no room,
    // say), which takes nothing away that the log holds.
    virtual void on_saved(const std::optional<raft::SnapshotMeta>& meta) = 0;
    virtual void on_storage_failed(const std::string& reason) = 0;

  protected:
    ~StorageHandler() = default;
};

class Storage {
  public:
    // Runs a task on the loop's thread.
    using Post = std::function<void(std::function<void()>)>;

    // What was found. `store` is the snapshot's, or empty.
    struct Found {
        LogReplay::State state;
        std::unique_ptr<store::Store> store;
        wal::Recovery recovery;
        KnownLogs known_logs;
    };

    // Makes the directory if it is missing (not its parents), locks it and reads it. `files` outlives the storage. `memory`: for
    // what is kept long.
    static Result<std::unique_ptr<Storage>> open(wal::FileSystem& files, const std::string& directory,
                                                 std::uint64_t segment_bytes,
                                                 std::shared_ptr<ColdMemory> memory = heap_memory());
    ~Storage();
    Storage(const Storage&) = delete;
    Storage& operator=(const Storage&) = delete;

    Found& found() { return found_; }
    // For what is kept long: of the stores that it makes, too.
    const std::shared_ptr<ColdMemory>& memory() const { return memory_; }
    // Of a directory that was empty: durable on return. With a snapshot: the state that the cluster begins with, whose
    // file is in its place.
    Result<void> begin(const Identity& identity, const raft::SnapshotMeta* snapshot = nullptr);
    // From now on the log belongs to its thread. The identity is known.
    void start(StorageHandler& handler, Post post);

    // The five members of Effects that `write` names. Takes what it needs out of them.
    void write(raft::Effects& effects);

    // Writes a snapshot of the store as it is now, which stays whole and in its place until on_saved() or cancel(). One at a time.
    // The store is collected.
    void save(store::Store& store, raft::SnapshotMeta meta);
    bool saving() const { return saver_ != nullptr; }
    // The same into a file without a name, for a backup, which is gone when it is closed. nullptr: it was given up, for this
    // `problem`, or because another state has taken the place of the store ("").
    using OnBackup =
        std::function<void(std::shared_ptr<wal::File> file, std::uint64_t bytes, const std::string& problem)>;
    void save_backup(store::Store& store, raft::SnapshotMeta meta, OnBackup done);
    void cancel_save();
    // The snapshot `saved` is durable: the log may go, but for entries from `first_kept` on.
    void compact(const raft::SnapshotMeta& saved, raft::LogIndex first_kept);

    // The file `peers`, whole; `done` comes on the loop's thread when it is durable. In order.
    void keep_known_logs(const KnownLogs& logs, std::function<void()> done);

    // Fills data and last from the snapshot of chunk.meta.index. False: it is gone.
    bool read_chunk(raft::SnapshotChunk& chunk);

    // Of the log's files, with space written ahead.
    std::uint64_t disk_bytes() const { return disk_bytes_.load(std::memory_order_relaxed); }
    // Drawn when the log was made, and another when it was made anew (control/node/known_logs.h).
    std::uint64_t log_id() const { return log_id_; }

  private:
    // Behind the name of a leader's snapshot, an empty file, from before that is in place until the log names it.
    static constexpr std::string_view kInstalling = ".installing";
    static constexpr const char* kPeers = "peers";  // known_logs.h

    struct Saver;
    // Of the raft entry `entry` or the first behind it: where in the log it stands. Used on the log's thread only.
    struct Mark {
        raft::LogIndex entry;
        wal::Index at;
    };
    struct Served {
        raft::LogIndex index;
        std::unique_ptr<wal::File> file;
        std::uint64_t bytes = 0;
    };

    Storage(wal::FileSystem& files, std::string directory, std::shared_ptr<ColdMemory> memory)
        : files_(files), directory_(std::move(directory)), memory_(std::move(memory)) {}

    // storage_open.cc
    Result<void> recover(std::uint64_t segment_bytes);
    Result<void> check_whole() const;
    Result<void> read_peers();
    Result<void> load_snapshot();
    Result<void> remove_unwanted();
    Result<void> remove_files(const std::function<bool(std::string_view)>& unwanted);
    std::string path(std::string_view name) const { return directory_ + "/" + std::string(name); }
    std::string incoming_path() const { return path("incoming.tmp"); }

    wal::Batch encode_batch(const raft::Effects& effects);
    void write_by_task(raft::Effects& effects);
    // On the log's thread.
    Result<void> store_chunk(const raft::StoreChunk& chunk);
    Result<std::unique_ptr<store::Store>> install(const raft::SnapshotMeta& meta);
    void note_written(wal::Index first, const std::optional<raft::LogIndex>& cut, std::size_t before_entries,
                      std::optional<raft::LogIndex> first_entry);
    Result<void> release(wal::Wal& log, const raft::SnapshotMeta& saved, raft::LogIndex first_kept,
                         const std::string& hard_state);
    void report_durable(raft::WriteId id);
    void report_failure(const std::string& reason);
    void begin_save(store::Store& store, raft::SnapshotMeta meta, OnBackup backup);
    void save_more();
    Result<bool> put_saved(Saver& saver);
    void end_save(bool done, const std::string& problem = {});
    void give_up(const std::shared_ptr<Saver>& saver, const std::string& problem);

    wal::FileSystem& files_;
    const std::string directory_;
    const std::shared_ptr<ColdMemory> memory_;
    Found found_;
    Identity identity_;
    raft::HardState hard_state_;
    std::uint64_t log_id_ = 0;
    StorageHandler* handler_ = nullptr;
    Post post_;
    proto::Entry scratch_;
    std::string encoded_;

    // Of the log's thread.
    wal::Wal* log_at_work_ = nullptr;
    std::deque<Mark> marks_;
    std::unique_ptr<wal::File> incoming_;
    std::uint64_t incoming_bytes_ = 0;

    std::optional<Served> served_;
    std::shared_ptr<Saver> saver_;

    std::mutex installed_mutex_;
    std::vector<std::pair<raft::SnapshotMeta, std::unique_ptr<store::Store>>> installed_;
    std::atomic<std::uint64_t> durable_{0};
    std::atomic<bool> durable_posted_{false};
    std::atomic<bool> failed_{false};
    std::atomic<std::uint64_t> disk_bytes_{0};

    std::unique_ptr<wal::Wal> log_;  // until start()
    std::unique_ptr<wal::WalThread> log_thread_;
    std::unique_ptr<TaskThread> file_thread_;
};

Result<SnapshotParser::Snapshot> read_snapshot_file(wal::FileSystem& files, const std::string& name,
                                                    const std::shared_ptr<ColdMemory>& memory);

// Writes a snapshot file, whole and synced, and gives it its name.
Result<void> write_snapshot_file(wal::FileSystem& files, const std::string& directory,
                                 const SnapshotHead& head, store::Store& store);

}  // namespace outrider::node
