// Backups as files: what /v3/maintenance/snapshot sends (api_backup.cc), looked at, and made into data directories again.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/wal/files.h"
#include "config/control_settings.h"

namespace outrider::node {

struct BackupStatus {
    std::uint64_t cluster_id = 0;
    std::int64_t revision = 0;
    std::int64_t compacted = 0;
    std::uint64_t applied_index = 0;
    std::uint64_t keys = 0;  // with history
    std::uint64_t leases = 0;
    std::uint64_t bytes = 0;  // of the file
    std::string sha256;       // in hexadecimal
};

// One line of the stream that brings a backup.
struct BackupPiece {
    std::string bytes;
    std::uint64_t remaining_bytes = 0;  // behind it
};
Result<BackupPiece> parse_backup_line(std::string_view line);

// Reads all of it: a backup that this accepts can be restored.
Result<BackupStatus> read_backup(wal::FileSystem& files, const std::string& file);

// Makes the data directory of one node of a new cluster that begins with the backup's state. Every node of it restores the same
// file with the same list of peers; its id is drawn from both, so it is never mistaken for the cluster that was backed up.
// The directory is built beside and renamed when it is whole and durable; one that is there already is not touched.
Result<BackupStatus> restore_backup(wal::FileSystem& files, const std::string& file,
                                    const config::ControlSettings& settings);

}  // namespace outrider::node
