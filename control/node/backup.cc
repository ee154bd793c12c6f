#include "control/node/backup.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>

#include "base/sha256.h"
#include "control/node/durable_file.h"
#include "control/node/identity.h"
#include "control/node/snapshot_file.h"
#include "control/node/storage.h"
#include "control/proto/rpc.pb.h"

namespace outrider::node {
namespace {

constexpr std::size_t kReadBytes = std::size_t{1} << 20;

struct Loaded {
    SnapshotParser::Snapshot snapshot;
    Sha256::Digest digest{};
    std::uint64_t bytes = 0;
};

Result<Loaded> load(wal::FileSystem& files, const std::string& name) {
    auto opened = files.open(name, wal::FileSystem::OpenMode::kExisting);
    if (opened.error) return failed("open", name, opened.error);
    const wal::File::Count size = opened.file->size();
    if (size.error) return failed("read", name, size.error);
    if (size.bytes < Sha256::kBytes) return Error{name + ": it is too short for a backup"};
    const std::uint64_t end = size.bytes - Sha256::kBytes;
    SnapshotParser parser;
    Sha256 digest;
    std::string room;
    for (std::uint64_t at = 0; at < end; at += room.size()) {
        room.resize(std::min<std::uint64_t>(kReadBytes, end - at));
        const wal::File::Count count = opened.file->read_at(at, room);
        if (count.error || count.bytes != room.size()) return failed("read", name, count.error);
        digest.add(room);
        if (const auto added = parser.add(room); !added)
            return Error{fmt::format("{}: it is damaged, or no backup: {}", name, added.error())};
    }
    room.resize(Sha256::kBytes);
    if (const wal::File::Count count = opened.file->read_at(end, room);
        count.error || count.bytes != room.size())
        return failed("read", name, count.error);
    const Sha256::Digest made = digest.finish();
    if (!std::equal(made.begin(), made.end(), room.begin(),
                    [](unsigned char a, char b) { return a == static_cast<unsigned char>(b); }))
        return Error{name + ": it is damaged or cut short: its SHA-256 is wrong"};
    auto snapshot = parser.finish();
    if (!snapshot) return Error{fmt::format("{}: {}", name, snapshot.error())};
    return Loaded{std::move(*snapshot), made, size.bytes};
}

BackupStatus status_of(const Loaded& loaded) {
    const store::Store& store = *loaded.snapshot.store;
    BackupStatus out;
    out.cluster_id = loaded.snapshot.head.cluster_id;
    out.revision = store.revision().value;
    out.compacted = store.compacted().value;
    out.applied_index = store.applied_index();
    out.keys = store.key_count();
    out.leases = store.leases().all().size();
    out.bytes = loaded.bytes;
    for (const unsigned char byte : loaded.digest)
        out.sha256 += fmt::format("{:02x}", byte);
    return out;
}

std::uint64_t origin_of(const Sha256::Digest& digest) {
    std::uint64_t origin = 0;
    for (std::size_t i = 0; i < 8; ++i)
        origin = origin << 8 | digest[i];
    return origin | 1;
}

Result<void> must_be_absent(wal::FileSystem& files, const std::string& directory, const char* advice) {
    std::vector<std::string> names;
    if (files.list(directory, names)) return {};  // it is not there
    return Error{fmt::format("{} is there already: {}", directory, advice)};
}

std::string parent_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

Result<BackupPiece> parse_backup_line(std::string_view line) {
    constexpr std::string_view kBegin = "{\"result\":";
    const Error wrong{"the node's answer is no piece of a backup: " + std::string(line.substr(0, 200))};
    if (!line.starts_with(kBegin) || !line.ends_with('}')) return wrong;
    line.remove_prefix(kBegin.size());
    line.remove_suffix(1);
    control::v3::SnapshotResponse message;
    google::protobuf::util::JsonParseOptions options;
    options.ignore_unknown_fields = true;
    const auto status =
        google::protobuf::util::JsonStringToMessage({line.data(), line.size()}, &message, options);
    if (!status.ok()) return wrong;
    return BackupPiece{std::move(*message.mutable_blob()), message.remaining_bytes()};
}

Result<BackupStatus> read_backup(wal::FileSystem& files, const std::string& file) {
    const auto loaded = load(files, file);
    if (!loaded) return Error{loaded.error()};
    return status_of(*loaded);
}

Result<BackupStatus> restore_backup(wal::FileSystem& files, const std::string& file,
                                    const config::ControlSettings& settings) {
    const std::string building = settings.data + ".restoring";
    if (auto absent =
            must_be_absent(files, settings.data, "a restore makes a new data directory; move this one away");
        !absent)
        return Error{absent.error()};
    if (auto absent = must_be_absent(files, building, "an earlier restore was cut short; delete it"); !absent)
        return Error{absent.error()};
    auto loaded = load(files, file);
    if (!loaded) return Error{loaded.error()};
    const BackupStatus status = status_of(*loaded);

    const Identity identity = found_identity(settings, origin_of(loaded->digest));
    raft::SnapshotMeta meta = loaded->snapshot.head.meta;
    meta.configuration = identity.founders;
    auto storage = Storage::open(files, building, settings.segment_bytes.value);
    if (!storage) return Error{storage.error()};
    const SnapshotHead head{identity.cluster_id, meta};
    if (auto written = write_snapshot_file(files, building, head, *loaded->snapshot.store); !written)
        return Error{written.error()};
    if (auto begun = (*storage)->begin(identity, &meta); !begun) return Error{begun.error()};
    storage->reset();
    if (const wal::IoError error = files.rename(building, settings.data))
        return failed("rename", building, error);
    if (const wal::IoError error = files.sync_directory(parent_of(settings.data)))
        return failed("sync", parent_of(settings.data), error);
    return status;
}

}  // namespace outrider::node
