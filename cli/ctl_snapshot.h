// outrider ctl snapshot save | status | restore: backups of the quorum (add_ctl_snapshot in ctl.h). Each returns the process's exit
// code.
#pragma once

#include <string>
#include <vector>

#include "base/time.h"

namespace outrider::cli {

struct SnapshotSave {
    std::vector<std::string> endpoints;  // host:port; the first that answers
    std::string file;
    bool force = false;                           // replaces a regular file that is there
    Duration timeout = std::chrono::minutes(10);  // of all of it
};
// Writes beside the file and renames; the file is there when the backup is whole, checked and durable.
int snapshot_save(const SnapshotSave& save, bool json);

int snapshot_status(const std::string& file, bool json);

struct SnapshotRestore {
    std::string file;
    std::string config_path;  // takes data, name, peers and cluster from a node's file; else they are given
    std::string data;
    std::string name;
    std::vector<std::string> peers;  // NAME=HOST:PORT
    std::string cluster;
};
int snapshot_restore(const SnapshotRestore& restore, bool json);

}  // namespace outrider::cli
