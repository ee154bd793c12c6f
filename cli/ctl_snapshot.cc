#include "cli/ctl_snapshot.h"

#include <array>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/wal/posix_files.h"
#include "cli/ctl.h"
#include "cli/http_call.h"
#include "config/control_settings.h"
#include "config/syntax.h"
#include "control/node/backup.h"

namespace outrider::cli {
namespace {

int failed(const std::string& reason) {
    std::fprintf(stderr, "outrider ctl: %s\n", reason.c_str());
    return 1;
}

std::string first_line(const std::string& text) {
    return text.substr(0, text.find('\n'));
}

// A backup on its way into a file, line by line.
class Taking {
  public:
    Taking(wal::File& file, std::string name) : file_(file), name_(std::move(name)) {}

    bool take(int status, std::string_view piece) {
        text_.append(piece);
        if (status != 200) return text_.size() <= kRefusalMax;
        for (std::size_t end = 0; (end = text_.find('\n')) != std::string::npos;) {
            if (!take_line(std::string_view(text_).substr(0, end))) return false;
            text_.erase(0, end + 1);
        }
        return true;
    }
    bool whole() const { return any_ && remaining_ == 0; }
    const std::string& text() const { return text_; }
    const std::string& wrong() const { return wrong_; }          // with what came
    const std::string& unwritten() const { return unwritten_; }  // with the file

  private:
    static constexpr std::size_t kRefusalMax = 64 * 1024;

    bool take_line(std::string_view line) {
        auto piece = node::parse_backup_line(line);
        if (!piece) {
            wrong_ = piece.error();
            return false;
        }
        any_ = true;
        remaining_ = piece->remaining_bytes;
        for (std::string_view left = piece->bytes; !left.empty();) {
            const std::array<std::string_view, 1> pieces{left};
            const wal::File::Count count = file_.write_at(at_, pieces);
            at_ += count.bytes;
            left.remove_prefix(count.bytes);
            if (!count.error && count.bytes != 0) continue;
            unwritten_ = fmt::format("cannot write {}: {}", name_, count.error.text());
            return false;
        }
        return true;
    }

    wal::File& file_;
    const std::string name_;
    std::uint64_t at_ = 0;
    std::string text_;
    std::string wrong_;
    std::string unwritten_;
    std::uint64_t remaining_ = 0;
    bool any_ = false;
};

// What became of the question to one endpoint. A fault of ours is no endpoint's, and the next one would meet it, too.
struct Download {
    std::string endpoint_problem;
    std::string own_problem;
};

Download download(const std::string& endpoint, const std::string& name, Duration timeout) {
    const auto where = config::parse_host_port(endpoint);
    if (!where) return {where.error(), {}};
    auto opened = wal::posix_files().open(name, wal::FileSystem::OpenMode::kCreate);
    if (opened.error) return {{}, fmt::format("cannot create {}: {}", name, opened.error.text())};
    Taking taking(*opened.file, name);
    const auto status = http_call(*where,
                                  {.method = "POST",
                                   .path = "/v3/maintenance/snapshot",
                                   .body = "{}",
                                   .connect = std::chrono::seconds(5),
                                   .silence = std::chrono::seconds(60),
                                   .timeout = timeout},
                                  [&](int code, std::string_view piece) { return taking.take(code, piece); });
    if (!taking.unwritten().empty()) return {{}, taking.unwritten()};
    if (!taking.wrong().empty()) return {taking.wrong(), {}};
    if (!status) return {status.error(), {}};
    if (*status != 200) return {fmt::format("it answers {}: {}", *status, first_line(taking.text())), {}};
    if (!taking.whole()) return {"the backup was cut short", {}};
    if (const wal::IoError error = opened.file->sync_data())
        return {{}, fmt::format("cannot sync {}: {}", name, error.text())};
    return {};
}

// The file to write: `named`, or what it leads to as a symbolic link. What is there is replaced only by `force`, and only
// when it is a regular file: a rename would put one in the place of a device, a pipe or a link.
Result<std::string> target_of(const std::string& named, bool force) {
    namespace fs = std::filesystem;
    if (named == "-") return Error{"a backup is not written to standard output: give a file's name"};
    std::error_code error;
    std::string target = named;
    fs::file_status there = fs::symlink_status(named, error);
    if (fs::is_symlink(there)) {
        target = fs::canonical(named, error).string();
        if (error) return Error{named + " is a symbolic link that leads nowhere"};
        there = fs::status(target, error);
    }
    if (fs::exists(there) && !fs::is_regular_file(there))
        return Error{named + " is there and is no regular file"};
    if (fs::exists(there) && !force) return Error{named + " is there already: --force replaces it"};
    const fs::file_status part = fs::symlink_status(target + ".part", error);
    if (fs::exists(part) && !fs::is_regular_file(part))
        return Error{target + ".part is in the way: it is no regular file"};
    return target;
}

void print(const std::string& file, const node::BackupStatus& status, bool json) {
    if (json) {
        std::string escaped;
        append_json_escaped(escaped, file);
        fmt::print(
            "{{\"file\":\"{}\",\"cluster_id\":\"{}\",\"revision\":{},\"compacted\":{},\"applied_index\":{},"
            "\"keys\":{},\"leases\":{},\"bytes\":{},\"sha256\":\"{}\"}}\n",
            escaped, status.cluster_id, status.revision, status.compacted, status.applied_index, status.keys,
            status.leases, status.bytes, status.sha256);
        return;
    }
    fmt::print(
        "{}\n  cluster   {:016x}\n  revision  {}\n  compacted {}\n  keys      {}\n  leases    {}\n  bytes    "
        " {}\n  "
        "sha256    {}\n",
        file, status.cluster_id, status.revision, status.compacted, status.keys, status.leases, status.bytes,
        status.sha256);
}

std::string folder_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

Result<config::ControlSettings> settings_of(const SnapshotRestore& restore) {
    if (!restore.config_path.empty()) {
        const config::ControlLoadResult loaded = config::load_control_file(restore.config_path);
        if (!loaded.settings)
            return Error{loaded.diagnostics.empty() ? restore.config_path + " cannot be read"
                                                    : config::to_string(loaded.diagnostics.front())};
        return loaded.settings->control;
    }
    config::ControlSettings out;
    if (restore.data.empty() || restore.name.empty())
        return Error{"give the node's configuration (--config), or --data, --name and --peers"};
    out.data = restore.data;
    out.name = restore.name;
    out.cluster = restore.cluster;
    for (const std::string& peer : restore.peers) {
        const std::size_t equals = peer.find('=');
        const auto address =
            config::parse_host_port(equals == std::string::npos ? "" : peer.substr(equals + 1));
        if (!address) return Error{"--peers: '" + peer + "' is not NAME=HOST:PORT"};
        out.peers.emplace(peer.substr(0, equals), *address);
    }
    if (!out.peers.empty() && !out.peers.contains(out.name))
        return Error{"--peers does not name this node, " + out.name};
    return out;
}

}  // namespace

int snapshot_save(const SnapshotSave& save, bool json) {
    const auto target = target_of(save.file, save.force);
    if (!target) return failed("snapshot save: " + target.error());
    const std::string part = *target + ".part";
    const auto give_up = [&part](const std::string& reason) {
        std::remove(part.c_str());
        return failed("snapshot save: " + reason);
    };
    std::string problems;
    bool saved = false;
    for (std::size_t i = 0; i < save.endpoints.size() && !saved; ++i) {
        const Download done = download(save.endpoints[i], part, save.timeout);
        if (!done.own_problem.empty()) return give_up(done.own_problem);
        saved = done.endpoint_problem.empty();
        if (!saved) problems += (i == 0 ? "" : "; ") + save.endpoints[i] + ": " + done.endpoint_problem;
    }
    if (!saved) return give_up(problems);
    wal::FileSystem& files = wal::posix_files();
    const auto status = node::read_backup(files, part);
    if (!status) return give_up(status.error());
    if (const wal::IoError error = files.rename(part, *target))
        return give_up(fmt::format("cannot rename {}: {}", part, error.text()));
    if (const wal::IoError error = files.sync_directory(folder_of(*target)))
        return failed(fmt::format("snapshot save: cannot sync {}: {}", folder_of(*target), error.text()));
    print(save.file, *status, json);
    return 0;
}

int snapshot_status(const std::string& file, bool json) {
    const auto status = node::read_backup(wal::posix_files(), file);
    if (!status) return failed(status.error());
    print(file, *status, json);
    return 0;
}

int snapshot_restore(const SnapshotRestore& restore, bool json) {
    const auto settings = settings_of(restore);
    if (!settings) return failed("snapshot restore: " + settings.error());
    std::error_code ignored;
    const auto there = std::filesystem::symlink_status(settings->data, ignored);
    if (std::filesystem::exists(there) && !std::filesystem::is_directory(there))
        return failed("snapshot restore: " + settings->data + " is there and is no directory");
    const auto status = node::restore_backup(wal::posix_files(), restore.file, *settings);
    if (!status) return failed("snapshot restore: " + status.error());
    print(restore.file, *status, json);
    if (!json) fmt::print("restored to {}; start every node of the new cluster\n", settings->data);
    return 0;
}

void add_ctl_snapshot(CLI::App& ctl, const CtlOptionsPtr& options) {
    auto* snapshot = ctl.add_subcommand("snapshot", "Backups: save, look at, restore")->fallthrough();
    snapshot->require_subcommand(1);

    auto save = std::make_shared<SnapshotSave>();
    auto* save_command =
        snapshot->add_subcommand("save", "Save the state of the quorum to a file")->fallthrough();
    save_command->add_option("file", save->file, "The file to write")->required();
    save_command->add_flag("--force", save->force, "Replace the file when it is there");
    save_command->callback([save, options] {
        save->endpoints = options->endpoint_list();
        *options->code = snapshot_save(*save, options->json);
    });

    auto file = std::make_shared<std::string>();
    auto* status_command =
        snapshot->add_subcommand("status", "Check a backup and say what is in it")->fallthrough();
    status_command->add_option("file", *file, "The backup")->required();
    status_command->callback([file, options] { *options->code = snapshot_status(*file, options->json); });

    auto restore = std::make_shared<SnapshotRestore>();
    auto* restore_command =
        snapshot
            ->add_subcommand("restore", "Make the data directory of one node of a new cluster from a backup")
            ->fallthrough();
    restore_command->add_option("file", restore->file, "The backup")->required();
    restore_command->add_option("-c,--config", restore->config_path,
                                "Take data, name, peers and cluster from this configuration of the node");
    restore_command->add_option("--data", restore->data, "The directory to make");
    restore_command->add_option("--name", restore->name, "The node's name");
    restore_command->add_option("--peers", restore->peers, "All nodes, NAME=HOST:PORT")->delimiter(',');
    restore_command->add_option("--cluster", restore->cluster, "The cluster's name, if it has one");
    restore_command->callback(
        [restore, options] { *options->code = snapshot_restore(*restore, options->json); });
}

}  // namespace outrider::cli
