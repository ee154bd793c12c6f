#include "cli/ctl_snapshot.h"

#include <array>
#include <cstdio>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/http/client_connection.h"
#include "base/units.h"
#include "base/uv/loop.h"
#include "base/wal/posix_files.h"
#include "cli/ctl.h"
#include "config/control_settings.h"
#include "config/syntax.h"
#include "control/node/backup.h"

namespace outrider::cli {
namespace {

int failed(const std::string& reason) {
    std::fprintf(stderr, "outrider: %s\n", reason.c_str());
    return 1;
}

// Takes the stream of one node into a file.
class Download final : public http::ClientOwner, public http::ClientHandler, private Timer {
  public:
    Download(wal::File& file, std::string name) : file_(file), name_(std::move(name)) {}

    Result<void> run(const uv::SocketAddress& address, Duration timeout) {
        connection_ = new http::ClientConnection(loop_, *this, limits_, scratch_);
        connection_->open(address, std::chrono::seconds(5));
        connection_->bind(*this, {false, false, std::chrono::seconds(60)});
        loop_.schedule(*this, timeout);
        loop_.run();
        if (!error_.empty()) return Error{error_};
        if (remaining_ != 0 || !any_) return Error{"the backup was cut short"};
        return {};
    }

  private:
    void on_connected() override {
        connection_->write_copy(
            "POST /v3/maintenance/snapshot HTTP/1.1\r\nHost: control\r\nContent-Length: 2\r\n"
            "Connection: close\r\n\r\n{}");
        connection_->request_finished();
    }
    void on_response_head(http::ResponseHead& head) override { status_ = head.status; }
    void on_response_body(std::span<const std::string_view> slices) override {
        for (const std::string_view slice : slices)
            text_.append(slice);
        for (std::size_t end = 0; error_.empty() && (end = text_.find('\n')) != std::string::npos;) {
            take(std::string_view(text_).substr(0, end));
            text_.erase(0, end + 1);
        }
        if (!error_.empty()) connection_->abandon();
    }
    void take(std::string_view line) {
        if (status_ != 200) return;
        auto piece = node::parse_backup_line(line);
        if (!piece) {
            error_ = piece.error();
            return;
        }
        any_ = true;
        remaining_ = piece->remaining_bytes;
        for (std::string_view left = piece->bytes; !left.empty();) {
            const std::array<std::string_view, 1> pieces{left};
            const wal::File::Count count = file_.write_at(at_, pieces);
            at_ += count.bytes;
            left.remove_prefix(count.bytes);
            if (!count.error && count.bytes != 0) continue;
            error_ = fmt::format("cannot write {}: {}", name_, count.error.text());
            return;
        }
    }
    void on_response_end(std::span<const http::Field>) override {
        if (status_ != 200) error_ = fmt::format("it answers {}: {}", status_, text_);
        done_ = true;
    }
    void on_failed(const http::ClientFailure& failure) override {
        if (error_.empty()) error_ = failure.reason;
    }
    void on_connection_idle(http::ClientConnection& connection) override { connection.abandon(); }
    void on_connection_gone(http::ClientConnection&) override {}
    void on_connection_closed(http::ClientConnection& connection) override {
        delete &connection;
        loop_.stop();
    }
    void on_timeout(Instant) override {
        if (done_ || !error_.empty()) return;
        error_ = "the backup did not come in time";
        connection_->abandon();
    }

    uv::Loop loop_;
    http::ParserLimits limits_;
    http::ParserScratch scratch_;
    http::ClientConnection* connection_ = nullptr;
    wal::File& file_;
    const std::string name_;
    std::uint64_t at_ = 0;
    std::string text_;
    std::string error_;
    std::uint64_t remaining_ = 0;
    int status_ = 0;
    bool any_ = false;
    bool done_ = false;
};

Result<void> download(const std::string& endpoint, const std::string& name, Duration timeout) {
    const auto where = config::parse_host_port(endpoint);
    if (!where) return Error{where.error()};
    const std::string host = where->host == "localhost" ? "127.0.0.1" : where->host;
    const auto address = uv::SocketAddress::parse(host, where->port);
    if (!address) return Error{address.error()};
    wal::FileSystem& files = wal::posix_files();
    auto opened = files.open(name, wal::FileSystem::OpenMode::kCreate);
    if (opened.error) return Error{fmt::format("cannot create {}: {}", name, opened.error.text())};
    if (auto taken = Download(*opened.file, name).run(*address, timeout); !taken) return taken;
    if (const wal::IoError error = opened.file->sync_data())
        return Error{fmt::format("cannot sync {}: {}", name, error.text())};
    return {};
}

void print(const std::string& file, const node::BackupStatus& status, bool json) {
    if (json) {
        fmt::print(
            "{{\"file\":\"{}\",\"cluster_id\":\"{}\",\"revision\":{},\"compacted\":{},\"applied_index\":{},"
            "\"keys\":{},\"leases\":{},\"bytes\":{},\"sha256\":\"{}\"}}\n",
            file, status.cluster_id, status.revision, status.compacted, status.applied_index, status.keys,
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
    const std::string part = save.file + ".part";
    std::string problem = "no endpoint is given";
    for (const std::string& endpoint : save.endpoints) {
        const auto done = download(endpoint, part, save.timeout);
        problem = done ? "" : endpoint + ": " + done.error();
        if (done) break;
    }
    if (!problem.empty()) {
        std::remove(part.c_str());
        return failed("snapshot save: " + problem);
    }
    wal::FileSystem& files = wal::posix_files();
    const auto status = node::read_backup(files, part);
    if (!status) return failed("snapshot save: " + status.error());
    if (const wal::IoError error = files.rename(part, save.file))
        return failed(fmt::format("cannot rename {}: {}", part, error.text()));
    if (const wal::IoError error = files.sync_directory(folder_of(save.file)))
        return failed(fmt::format("cannot sync {}: {}", folder_of(save.file), error.text()));
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
    const auto status = node::restore_backup(wal::posix_files(), restore.file, *settings);
    if (!status) return failed("snapshot restore: " + status.error());
    print(restore.file, *status, json);
    if (!json) fmt::print("restored to {}; start every node of the new cluster\n", settings->data);
    return 0;
}

void add_ctl_snapshot(CLI::App& ctl, const CtlOptionsPtr& options) {
    auto* snapshot = ctl.add_subcommand("snapshot", "Backups: save, look at, restore");
    snapshot->require_subcommand(1);

    auto save = std::make_shared<SnapshotSave>();
    auto* save_command = snapshot->add_subcommand("save", "Save the state of the quorum to a file");
    save_command->add_option("file", save->file, "The file to write")->required();
    save_command->callback([save, options] {
        save->endpoints = options->endpoint_list();
        *options->code = snapshot_save(*save, options->json);
    });

    auto file = std::make_shared<std::string>();
    auto* status_command = snapshot->add_subcommand("status", "Check a backup and say what is in it");
    status_command->add_option("file", *file, "The backup")->required();
    status_command->callback([file, options] { *options->code = snapshot_status(*file, options->json); });

    auto restore = std::make_shared<SnapshotRestore>();
    auto* restore_command = snapshot->add_subcommand(
        "restore", "Make the data directory of one node of a new cluster from a backup");
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
