// A data directory as it is found: what its files say, and whether that can be all.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/scratch_file.h"
#include "control/node/durable_file.h"
#include "control/node/storage.h"

namespace outrider::node {
namespace {

constexpr std::size_t kReadBytes = std::size_t{1} << 20;

}  // namespace

Result<SnapshotParser::Snapshot> read_snapshot_file(wal::FileSystem& files, const std::string& name,
                                                    const std::shared_ptr<ColdMemory>& memory) {
    auto opened = files.open(name, wal::FileSystem::OpenMode::kExisting);
    if (opened.error) return failed("open", name, opened.error);
    SnapshotParser parser(memory);
    std::string room(kReadBytes, '\0');
    for (std::uint64_t at = 0;;) {
        const wal::File::Count count = opened.file->read_at(at, room);
        if (count.error) return failed("read", name, count.error);
        if (count.bytes == 0) break;
        if (const auto added = parser.add(std::string_view(room).substr(0, count.bytes)); !added)
            return Error{fmt::format("{}: {}", name, added.error())};
        at += count.bytes;
    }
    auto snapshot = parser.finish();
    if (!snapshot) return Error{fmt::format("{}: {}", name, snapshot.error())};
    return snapshot;
}

Result<void> write_snapshot_file(wal::FileSystem& files, const std::string& directory,
                                 const SnapshotHead& head, store::Store& store) {
    const std::string name = directory + "/" + snapshot_name(head.meta.index);
    const std::string temporary = name + ".tmp";
    auto opened = files.open(temporary, wal::FileSystem::OpenMode::kCreate);
    if (opened.error) return failed("create", temporary, opened.error);
    std::string bytes = encode(head);
    std::uint64_t at = 0;
    store::SnapshotWriter writer(store);
    do {
        if (auto written = write_all(*opened.file, temporary, at, bytes); !written) return written;
        at += bytes.size();
        bytes.clear();
    } while (writer.next(bytes));
    return put_in_place(files, *opened.file, directory, temporary, name);
}

Result<std::unique_ptr<Storage>> Storage::open(wal::FileSystem& files, const std::string& directory,
                                               std::uint64_t segment_bytes,
                                               std::shared_ptr<ColdMemory> memory) {
    std::unique_ptr<Storage> storage(new Storage(files, directory, std::move(memory)));
    if (auto recovered = storage->recover(segment_bytes); !recovered) return Error{recovered.error()};
    return storage;
}

Result<void> Storage::recover(std::uint64_t segment_bytes) {
    if (const wal::IoError error = files_.make_directory(directory_)) return failed("use", directory_, error);
    LogReplay replay;
    std::string wrong;
    wal::WalOptions options;
    options.segment_bytes = segment_bytes;
    auto log = wal::Wal::open(files_, path("wal"), options, [&](const wal::Entry& entry) {
        if (!wrong.empty()) return;
        if (const auto added = replay.add(entry.type, entry.payload); !added)
            wrong =
                fmt::format("{}/{}: offset {}: {}", path("wal"), wal::segment_name(entry.position.segment),
                            entry.position.offset, added.error());
    });
    if (!log) return Error{log.error()};
    if (!wrong.empty()) return Error{wrong};
    log_ = std::move(*log);
    log_id_ = log_->log_id();
    auto state = replay.finish();
    if (!state) return Error{fmt::format("{}: {}", path("wal"), state.error())};
    found_.state = std::move(*state);
    found_.recovery = log_->recovery();
    // Where each entry stands is known again with the next snapshot: until then all of the log is kept.
    marks_.push_back({{}, log_->first_index()});
    if (auto whole = check_whole(); !whole) return whole;
    if (auto read = read_peers(); !read) return read;
    if (auto loaded = load_snapshot(); !loaded) return loaded;
    if (auto tidied = remove_unwanted(); !tidied) return tidied;
    if (found_.state.identity) identity_ = *found_.state.identity;
    hard_state_ = found_.state.hard_state;
    disk_bytes_ = log_->disk_bytes();
    return {};
}

// A node's own snapshot is of entries that its log held, durably: a log that ends before one has lost them, and with them what
// was acknowledged and voted. Only a leader's may be newer than the log, until its record is there.
Result<void> Storage::check_whole() const {
    std::vector<std::string> names;
    if (const wal::IoError error = files_.list(directory_, names)) return failed("read", directory_, error);
    const LogReplay::State& state = found_.state;
    const raft::LogIndex last = state.entries.empty() ? state.snapshot.index : state.entries.back().index;
    for (const std::string& name : names) {
        const auto index = parse_snapshot_name(name);
        if (!index || *index <= last) continue;
        if (std::find(names.begin(), names.end(), name + std::string(kInstalling)) != names.end()) continue;
        return Error{fmt::format(
            "{}: the log in {} {}, but {} is a snapshot of entry {}: what this node has acknowledged is "
            "lost. Put "
            "the log back, or remove the node from the cluster and add it again with an empty directory",
            directory_, path("wal"), state.identity ? fmt::format("ends at entry {}", last.value) : "is gone",
            name, index->value)};
    }
    return {};
}

// The file is written when the log has long said whose it is: one without the other has lost it.
Result<void> Storage::read_peers() {
    std::vector<std::string> names;
    if (const wal::IoError error = files_.list(directory_, names)) return failed("read", directory_, error);
    if (std::find(names.begin(), names.end(), kPeers) == names.end()) return {};
    if (!found_.state.identity)
        return Error{
            fmt::format("{}: the log in {} is gone, but {} is there: what this node has acknowledged is "
                        "lost. Put the log "
                        "back, or remove the node from the cluster and add it again with an empty directory",
                        directory_, path("wal"), path(kPeers))};
    auto bytes = read_file(files_, path(kPeers), kKnownLogsBytesMax);
    if (!bytes) return Error{bytes.error()};
    auto logs = parse_known_logs(*bytes);
    if (!logs)
        return Error{fmt::format(
            "{}: {}. It tells which data each other member had when this node met it; delete it only if "
            "no other member has lost its data since",
            path(kPeers), logs.error())};
    found_.known_logs = std::move(*logs);
    return {};
}

Result<void> Storage::load_snapshot() {
    const raft::SnapshotMeta& meta = found_.state.snapshot;
    if (meta.index == raft::LogIndex{}) {
        found_.store = std::make_unique<store::Store>(memory_);
        return {};
    }
    auto snapshot = read_snapshot_file(files_, path(snapshot_name(meta.index)), memory_);
    if (!snapshot) return Error{snapshot.error()};
    const SnapshotHead& head = snapshot->head;
    if (head.meta.index != meta.index || head.meta.term != meta.term ||
        head.cluster_id != found_.state.identity->cluster_id)
        return Error{
            fmt::format("{} is not the snapshot that the log names", path(snapshot_name(meta.index)))};
    found_.store = std::move(snapshot->store);
    return {};
}

// A mark outlives what it is the mark of, also on the disk: check_whole() takes a snapshot without one for this node's own.
Result<void> Storage::remove_unwanted() {
    const auto unwanted = [kept = found_.state.snapshot.index](std::string_view name) {
        const auto index = parse_snapshot_name(name);
        return name.ends_with(".tmp") || name.starts_with(ScratchFile::kNamed) || (index && *index != kept);
    };
    if (auto removed = remove_files(unwanted); !removed) return removed;
    if (const wal::IoError error = files_.sync_directory(directory_))
        return failed("sync", directory_, error);
    return remove_files([](std::string_view name) { return name.ends_with(kInstalling); });
}

Result<void> Storage::remove_files(const std::function<bool(std::string_view)>& unwanted) {
    std::vector<std::string> names;
    if (const wal::IoError error = files_.list(directory_, names)) return failed("read", directory_, error);
    for (const std::string& name : names) {
        if (!unwanted(name)) continue;
        if (const wal::IoError error = files_.remove(path(name))) return failed("delete", path(name), error);
    }
    return {};
}

Result<void> Storage::begin(const Identity& identity, const raft::SnapshotMeta* snapshot) {
    identity_ = identity;
    std::vector<wal::Record> records;
    const std::string first = encode(identity);
    records.push_back({static_cast<std::uint8_t>(RecordType::kIdentity), first});
    std::string second;
    if (snapshot != nullptr) {
        second = encode(*snapshot, true);
        records.push_back({static_cast<std::uint8_t>(RecordType::kSnapshot), second});
    }
    if (const auto appended = log_->append(records); !appended) return Error{appended.error()};
    if (auto synced = log_->sync(); !synced) return synced;
    disk_bytes_ = log_->disk_bytes();
    found_.state.identity = identity;
    found_.state.snapshot = snapshot != nullptr ? *snapshot : raft::SnapshotMeta{{}, {}, identity.founders};
    return {};
}

}  // namespace outrider::node
