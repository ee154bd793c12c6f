#include "control/node/storage.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/log.h"
#include "control/node/durable_file.h"

namespace outrider::node {
namespace {

constexpr std::uint64_t kQueueBytesMax = std::uint64_t{1} << 30;

}  // namespace

Storage::~Storage() = default;

void Storage::start(StorageHandler& handler, Post post) {
    handler_ = &handler;
    post_ = std::move(post);
    wal::WalThread::Options options;
    options.queue_bytes_max = kQueueBytesMax;
    log_at_work_ = log_.get();
    log_thread_ = std::make_unique<wal::WalThread>(std::move(log_), options);
    file_thread_ = std::make_unique<TaskThread>();
}

// ---- writing --------------------------------------------------------------------------------------------------------

wal::Batch Storage::encode_batch(const raft::Effects& effects) {
    wal::Batch batch;
    const auto add = [&](RecordType type, const std::string& payload) {
        batch.add(static_cast<std::uint8_t>(type), payload);
    };
    if (effects.hard_state) add(RecordType::kHardState, encode(*effects.hard_state));
    if (effects.install) add(RecordType::kSnapshot, encode(*effects.install, true));
    if (effects.truncate_after) add(RecordType::kTruncation, encode_truncation(*effects.truncate_after));
    for (const raft::Entry& entry : effects.append) {
        encode(entry, scratch_, encoded_);
        add(RecordType::kEntry, encoded_);
    }
    return batch;
}

void Storage::write(raft::Effects& effects) {
    if (!effects.write) return;
    if (effects.hard_state) hard_state_ = *effects.hard_state;
    if (effects.chunk || effects.install) {
        write_by_task(effects);
        return;
    }
    wal::Batch batch = encode_batch(effects);
    std::optional<raft::LogIndex> first_entry;
    if (!effects.append.empty()) first_entry = effects.append.front().index;
    const std::size_t before_entries = batch.size() - effects.append.size();
    const bool taken =
        log_thread_->append(std::move(batch), [this, id = *effects.write, cut = effects.truncate_after,
                                               before_entries, first_entry](const Result<wal::Index>& first) {
            if (!first) {
                report_failure(first.error());
                return;
            }
            note_written(*first, cut, before_entries, first_entry);
            report_durable(id);
        });
    if (!taken) report_failure("the disk is too slow: more than 1 GiB is waiting to be written");
}

void Storage::note_written(wal::Index first, const std::optional<raft::LogIndex>& cut,
                           std::size_t before_entries, std::optional<raft::LogIndex> first_entry) {
    if (cut) {
        while (!marks_.empty() && marks_.back().entry > *cut)
            marks_.pop_back();
    }
    if (first_entry) marks_.push_back({*first_entry, first + before_entries});
    disk_bytes_ = log_at_work_->disk_bytes();
}

// A part of a snapshot, or its end: files beside the log, in the log's order.
void Storage::write_by_task(raft::Effects& effects) {
    auto moved = std::make_shared<raft::Effects>();
    moved->write = effects.write;
    moved->hard_state = effects.hard_state;
    moved->chunk = std::move(effects.chunk);
    moved->install = effects.install;
    moved->truncate_after = effects.truncate_after;
    moved->append = effects.append;
    auto batch = std::make_shared<wal::Batch>(encode_batch(*moved));
    const bool taken = log_thread_->submit([this, moved, batch](wal::Wal& log) {
        if (failed_) return;
        if (moved->chunk) {
            if (auto stored = store_chunk(*moved->chunk); !stored) return report_failure(stored.error());
        }
        std::unique_ptr<store::Store> installed;
        if (moved->install) {
            auto store = install(*moved->install);
            if (!store) return report_failure(store.error());
            installed = std::move(*store);
        }
        if (!batch->empty()) {
            std::vector<wal::Record> records;
            batch->records(records);
            const auto appended = log.append(records);
            if (!appended) return report_failure(appended.error());
            if (auto synced = log.sync(); !synced) return report_failure(synced.error());
            disk_bytes_ = log.disk_bytes();
            if (moved->install) {
                const std::string mark =
                    path(snapshot_name(moved->install->index)) + std::string(kInstalling);
                if (const wal::IoError error = files_.remove(mark))
                    return report_failure(failed("delete", mark, error).message);
                marks_.clear();
                marks_.push_back({moved->install->index + 1, *appended});
            }
        }
        if (installed != nullptr) {
            const std::lock_guard lock(installed_mutex_);
            installed_.emplace_back(*moved->install, std::move(installed));
        }
        report_durable(*moved->write);
    });
    if (!taken) report_failure("the disk is too slow: more than 1 GiB is waiting to be written");
}

Result<void> Storage::store_chunk(const raft::StoreChunk& chunk) {
    if (chunk.offset == 0) {
        auto opened = files_.open(incoming_path(), wal::FileSystem::OpenMode::kCreate);
        if (opened.error) return failed("create", incoming_path(), opened.error);
        incoming_ = std::move(opened.file);
        incoming_bytes_ = 0;
    }
    require(incoming_ != nullptr && incoming_bytes_ == chunk.offset, "chunks come in order");
    incoming_bytes_ += chunk.data->size();
    return write_all(*incoming_, incoming_path(), chunk.offset, *chunk.data);
}

Result<std::unique_ptr<store::Store>> Storage::install(const raft::SnapshotMeta& meta) {
    require(incoming_ != nullptr, "a snapshot is installed when its chunks are here");
    auto snapshot = read_snapshot_file(files_, incoming_path(), memory_);
    if (!snapshot) return Error{"the leader's snapshot: " + snapshot.error()};
    if (snapshot->head.meta.index != meta.index || snapshot->head.cluster_id != identity_.cluster_id)
        return Error{"the leader's snapshot is not the one that was announced"};
    const std::string name = path(snapshot_name(meta.index));
    const std::string mark = name + std::string(kInstalling);
    if (const auto marked = files_.open(mark, wal::FileSystem::OpenMode::kCreate); marked.error)
        return failed("create", mark, marked.error);
    if (const wal::IoError error = files_.sync_directory(directory_))
        return failed("sync", directory_, error);
    if (auto placed = put_in_place(files_, *incoming_, directory_, incoming_path(), name); !placed)
        return Error{placed.error()};
    incoming_.reset();
    return std::move(snapshot->store);
}

void Storage::report_durable(raft::WriteId id) {
    if (failed_) return;
    durable_.store(id.value);
    if (durable_posted_.exchange(true)) return;
    post_([this] {
        durable_posted_ = false;
        const raft::WriteId last{durable_.load()};
        std::vector<std::pair<raft::SnapshotMeta, std::unique_ptr<store::Store>>> installed;
        {
            const std::lock_guard lock(installed_mutex_);
            installed.swap(installed_);
        }
        for (auto& [meta, store] : installed)
            handler_->on_installed(meta, std::move(store));
        handler_->on_durable(last);
    });
}

void Storage::report_failure(const std::string& reason) {
    if (failed_.exchange(true)) return;
    post_([this, reason] { handler_->on_storage_failed(reason); });
}

void Storage::keep_known_logs(const KnownLogs& logs, std::function<void()> done) {
    file_thread_->submit([this, bytes = encode(logs), done = std::move(done)]() mutable {
        if (failed_) return;
        if (auto written = write_file(files_, directory_, kPeers, bytes); !written)
            return report_failure(written.error());
        post_(std::move(done));
    });
}

// ---- snapshots ------------------------------------------------------------------------------------------------------

// Frames are made on the loop, at most a few ahead of the thread that writes them.
struct Storage::Saver {
    static constexpr unsigned kAheadMax = 4;
    raft::SnapshotMeta meta;
    std::unique_ptr<store::SnapshotWriter> writer;
    unsigned ahead = 0;
    bool all_made = false;
    OnBackup backup;  // set: it is not the node's own
    std::atomic<bool> cancelled{false};
    // Of the thread that writes.
    std::unique_ptr<wal::File> file;
    std::string name;
    std::uint64_t at = 0;
};

void Storage::save(store::Store& store, raft::SnapshotMeta meta) {
    begin_save(store, std::move(meta), nullptr);
}

void Storage::save_backup(store::Store& store, raft::SnapshotMeta meta, OnBackup done) {
    begin_save(store, std::move(meta), std::move(done));
}

void Storage::begin_save(store::Store& store, raft::SnapshotMeta meta, OnBackup backup) {
    require(saver_ == nullptr, "one snapshot is saved at a time");
    saver_ = std::make_shared<Saver>();
    saver_->meta = std::move(meta);
    saver_->writer = std::make_unique<store::SnapshotWriter>(store);
    saver_->name = path(backup ? "backup" : snapshot_name(saver_->meta.index));
    saver_->backup = std::move(backup);
    file_thread_->submit([this, saver = saver_] {
        const std::string name = saver->name + ".tmp";
        auto opened = files_.open(name, wal::FileSystem::OpenMode::kCreate);
        if (opened.error) return give_up(saver, failed("create", name, opened.error).message);
        saver->file = std::move(opened.file);
        const std::string head = encode(SnapshotHead{identity_.cluster_id, saver->meta});
        if (auto written = write_all(*saver->file, name, 0, head); !written)
            return give_up(saver, written.error());
        saver->at = head.size();
    });
    save_more();
}

void Storage::save_more() {
    while (saver_ != nullptr && !saver_->all_made && saver_->ahead < Saver::kAheadMax) {
        auto frame = std::make_shared<std::string>();
        saver_->all_made = !saver_->writer->next(*frame);
        if (saver_->all_made) saver_->writer.reset();
        ++saver_->ahead;
        file_thread_->submit([this, saver = saver_, frame, last = saver_->all_made] {
            if (failed_ || saver->file == nullptr) return;
            if (!last && !saver->cancelled) {
                if (auto written = write_all(*saver->file, saver->name + ".tmp", saver->at, *frame); !written)
                    return give_up(saver, written.error());
                saver->at += frame->size();
            }
            const auto placed = last ? put_saved(*saver) : Result<bool>(false);
            if (!placed) return report_failure(placed.error());
            post_([this, saver, done = *placed] {
                --saver->ahead;
                if (saver != saver_) return;
                if (done) {
                    end_save(true);
                } else {
                    save_more();
                }
            });
        });
    }
}

// On the files' thread, after the first write that failed.
void Storage::give_up(const std::shared_ptr<Saver>& saver, const std::string& problem) {
    if (saver->file != nullptr) {
        saver->file.reset();
        (void)files_.remove(saver->name + ".tmp");  // for its room; it goes at the next start else
    }
    post_([this, saver, problem] {
        if (saver != saver_) return;
        saver->writer.reset();
        end_save(false, problem);
    });
}

// On the files' thread. True when the snapshot is whole, and in its place.
Result<bool> Storage::put_saved(Saver& saver) {
    if (saver.cancelled) return false;
    const std::string name = saver.name + ".tmp";
    if (saver.backup) {
        if (const wal::IoError error = files_.remove(name)) return failed("delete", name, error);
        return true;
    }
    if (auto done = put_in_place(files_, *saver.file, directory_, name, saver.name); !done)
        return Error{done.error()};
    return true;
}

void Storage::cancel_save() {
    if (saver_ == nullptr) return;
    saver_->cancelled = true;
    saver_->writer.reset();
    end_save(false);
}

void Storage::end_save(bool done, const std::string& problem) {
    const auto saver = std::exchange(saver_, nullptr);
    if (saver->backup) {
        saver->backup(done ? std::shared_ptr<wal::File>(std::move(saver->file)) : nullptr, saver->at,
                      problem);
        return;
    }
    if (!problem.empty()) log_warning("{}: no snapshot is made for now, and the log grows", problem);
    handler_->on_saved(done ? std::optional(saver->meta) : std::nullopt);
}

void Storage::compact(const raft::SnapshotMeta& saved, raft::LogIndex first_kept) {
    const bool taken =
        log_thread_->submit([this, saved, first_kept, hard_state = encode(hard_state_)](wal::Wal& log) {
            if (failed_) return;
            if (auto released = release(log, saved, first_kept, hard_state); !released)
                report_failure(released.error());
        });
    if (!taken) report_failure("the disk is too slow: more than 1 GiB is waiting to be written");
}

Result<void> Storage::release(wal::Wal& log, const raft::SnapshotMeta& saved, raft::LogIndex first_kept,
                              const std::string& hard_state) {
    const std::string identity = encode(identity_);
    const std::string snapshot = encode(saved, false);
    const std::array<wal::Record, 3> records{
        wal::Record{static_cast<std::uint8_t>(RecordType::kIdentity), identity},
        wal::Record{static_cast<std::uint8_t>(RecordType::kHardState), hard_state},
        wal::Record{static_cast<std::uint8_t>(RecordType::kSnapshot), snapshot}};
    const auto appended = log.append(records);
    if (!appended) return Error{appended.error()};
    if (auto synced = log.sync(); !synced) return synced;
    while (marks_.size() > 1 && marks_[1].entry <= first_kept)
        marks_.pop_front();
    const wal::Index before = marks_.empty() ? *appended : std::min(marks_.front().at, *appended);
    if (auto released = log.release(before); !released) return released;
    disk_bytes_ = log.disk_bytes();
    // Not what is unfinished or newer: it is being written.
    return remove_files([&](std::string_view name) {
        const auto index = parse_snapshot_name(name);
        return index && *index < saved.index;
    });
}

bool Storage::read_chunk(raft::SnapshotChunk& chunk) {
    if (!served_ || served_->index != chunk.meta.index) {
        auto opened =
            files_.open(path(snapshot_name(chunk.meta.index)), wal::FileSystem::OpenMode::kExisting);
        if (opened.error) return false;
        const wal::File::Count size = opened.file->size();
        if (size.error) return false;
        served_ = Served{chunk.meta.index, std::move(opened.file), size.bytes};
    }
    if (chunk.offset > served_->bytes) return false;
    auto data = std::make_shared<std::string>(
        std::min<std::uint64_t>(kSnapshotChunkBytes, served_->bytes - chunk.offset), '\0');
    const wal::File::Count count = served_->file->read_at(chunk.offset, *data);
    if (count.error || count.bytes != data->size()) return false;
    chunk.last = chunk.offset + data->size() == served_->bytes;
    chunk.data = std::move(data);
    return true;
}

}  // namespace outrider::node
