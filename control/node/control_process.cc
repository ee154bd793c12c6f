#include "control/node/control_process.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "base/log.h"
#include "base/metrics.h"
#include "base/process_metrics.h"
#include "base/scratch_file.h"
#include "base/uv/acceptor.h"
#include "base/uv/loop.h"
#include "base/wal/posix_files.h"
#include "control/node/api_server.h"
#include "control/node/identity.h"
#include "control/node/joiner.h"
#include "control/node/node.h"
#include "control/node/storage.h"
#include "control/node/timed_files.h"

#ifndef OUTRIDER_VERSION
#define OUTRIDER_VERSION "0.0.0"
#endif

namespace outrider::node {
namespace {

using namespace std::chrono_literals;

constexpr int kEndedForGood = 3;     // RestartPreventExitStatus of deploy/outrider-control.service
constexpr Duration kDrainTime = 5s;  // for answers that are under way at the end

enum Shard : unsigned { kLoop, kLog, kShards };

// How clients reach this node, as it tells the others.
std::string api_address(const config::ControlSettings& settings) {
    if (settings.api_address) return config::to_string(*settings.api_address);
    config::HostPort address = settings.api_listen;
    const bool any = address.host == "0.0.0.0" || address.host == "::";
    const auto own = settings.peers.find(settings.name);
    if (any && own != settings.peers.end()) address.host = own->second.host;
    return config::to_string(address);
}

class Process {
  public:
    explicit Process(const config::ControlNodeSettings& settings)
        : settings_(settings),
          metrics_(kShards),
          files_(wal::posix_files(), uv::read_clock,
                 [&cell = metrics_.histogram("wal_sync_seconds", "How long an fdatasync of the log took")
                              .at({}, kLog)](Duration took) { cell.observe(took); }) {}

    Result<void> start();
    int run();

  private:
    Result<std::unique_ptr<Storage>> open_storage();
    void collect_metrics();
    void on_signal(int signum);
    void stop();
    void stop_node();

    const config::ControlNodeSettings& settings_;
    uv::Loop loop_;
    Registry metrics_;
    TimedFiles files_;
    std::unique_ptr<Node> node_;
    std::unique_ptr<ApiServer> api_;
    std::unique_ptr<uv::Signals> signals_;
    bool stopping_ = false;
    bool node_stopping_ = false;
};

Result<void> addresses_are_free(const config::ControlNodeSettings& settings) {
    const auto try_one = [](const char* key, const config::HostPort& address) -> Result<void> {
        const auto at = uv::SocketAddress::to_listen(address.host, address.port);
        if (!at) return Error{fmt::format("{}: {}", key, at.error())};
        const auto fd = uv::open_listening_socket(*at, false);
        if (!fd) return Error{fmt::format("{}: {}", key, fd.error())};
        ::close(*fd);
        return {};
    };
    if (auto tried = try_one("control.api_listen", settings.control.api_listen); !tried) return tried;
    if (auto tried = try_one("control.peer_listen", settings.control.peer_listen); !tried) return tried;
    return settings.admin_listen ? try_one("admin.listen", *settings.admin_listen) : Result<void>();
}

Result<std::unique_ptr<Storage>> Process::open_storage() {
    const config::ControlSettings& control = settings_.control;
    std::error_code ignored;  // what cannot be made is told when the directory is used
    std::filesystem::create_directories(std::filesystem::path(control.data).parent_path(), ignored);
    auto storage = Storage::open(files_, control.data, control.segment_bytes.value,
                                 std::make_shared<ScratchFile>(control.data));
    if (!storage) return storage;
    Storage::Found& found = (*storage)->found();
    if (!found.state.identity) {
        // Before anything is founded: the next try may have other addresses.
        if (auto free = addresses_are_free(settings_); !free) return Error{free.error()};
        Identity identity = found_identity(control);
        if (control.join) {
            auto joined = ask_to_join(control);
            if (!joined) return Error{joined.error()};
            identity = std::move(*joined);
        }
        if (auto begun = (*storage)->begin(identity); !begun) return Error{begun.error()};
        log_info("a new data directory: node {} ({:016x}) of the cluster {:016x}, {}", identity.name,
                 identity.node.value, identity.cluster_id,
                 control.join ? "which it joins"
                              : fmt::format("founded by {}", identity.founders->members.size()));
        return storage;
    }
    raft::ConfigurationRef known = found.state.snapshot.configuration;
    for (const raft::Entry& entry : found.state.entries) {
        if (entry.configuration != nullptr) known = entry.configuration;
    }
    if (auto checked = check_identity(control, *found.state.identity, *known); !checked)
        return Error{checked.error()};
    if (found.recovery.torn)
        log_warning("the end of {} was torn by a crash: {} bytes from offset {} on were cut off ({})",
                    found.recovery.torn->file, found.recovery.torn->bytes, found.recovery.torn->offset,
                    found.recovery.torn->reason);
    log_info("node {} of the cluster {:016x}: snapshot at entry {}, {} entries behind it, term {}",
             control.name, found.state.identity->cluster_id, found.state.snapshot.index.value,
             found.state.entries.size(), found.state.hard_state.term.value);
    return storage;
}

Result<void> Process::start() {
    std::signal(SIGPIPE, SIG_IGN);  // a hang-up is an error of that connection
    uv::raise_open_files();
    auto storage = open_storage();
    if (!storage) return Error{storage.error()};
    NodeMetrics cells;
    cells.apply_seconds =
        &metrics_.histogram("control_apply_seconds", "How long the entries of one turn took to apply")
             .at({}, kLoop);
    cells.proposals =
        &metrics_.counter("control_proposals_total", "Commands that this node appended as the leader")
             .at({}, kLoop);
    cells.applied = &metrics_.counter("control_applied_total", "Entries that were applied").at({}, kLoop);
    cells.leader_changes =
        &metrics_.counter("control_role_changes_total", "Changes of role, term or leader at this node")
             .at({}, kLoop);
    node_ = std::make_unique<Node>(loop_, settings_.control, std::move(*storage), cells,
                                   [](Node::End end, const std::string& reason) {
                                       log_error("the node stops: {}", reason);
                                       std::fflush(nullptr);
                                       // Nothing that is not durable by now may leave any more, not even in good order.
                                       std::_Exit(end == Node::End::kForGood ? kEndedForGood : 1);
                                   });
    api_ = std::make_unique<ApiServer>(loop_, *node_, metrics_, settings_.control.max_connections);
    if (auto listening = api_->listen(settings_.control.api_listen, "control.api_listen", false); !listening)
        return listening;
    if (settings_.admin_listen) {
        if (auto listening = api_->listen(*settings_.admin_listen, "admin.listen", true); !listening)
            return listening;
    }
    if (auto started = node_->start(api_address(settings_.control)); !started) return started;
    collect_metrics();
    signals_ = std::make_unique<uv::Signals>(loop_, std::initializer_list<int>{SIGTERM, SIGINT},
                                             [this](int signum) { on_signal(signum); });
    log_info("outrider " OUTRIDER_VERSION " control {}: API on {}", settings_.control.name,
             api_->address_text());
    return {};
}

void Process::collect_metrics() {
    metrics_.collect(collect_process_metrics);
    metrics_.collect([this](Samples& samples) {
        const raft::Core& core = node_->core();
        const auto number = [](auto value) { return static_cast<double>(value); };
        samples.gauge("control_commit_index", "Entries known to be committed",
                      number(core.commit_index().value));
        samples.gauge("control_applied_index", "Entries applied to the key space",
                      number(node_->store().applied_index()));
        samples.gauge("control_term", "The term of consensus", number(core.term().value));
        samples.gauge("control_leader", "1 while this node leads", node_->leads() ? 1 : 0);
        samples.gauge("control_has_leader", "1 while a leader is known", node_->has_leader() ? 1 : 0);
        samples.gauge("control_members", "Members of the cluster", number(node_->members().members.size()));
        samples.gauge("control_peers_connected", "Peers with an open connection",
                      number(node_->peers().connected_count()));
        samples.gauge("control_store_bytes", "Of all keys and their history", number(node_->store().bytes()));
        samples.gauge("control_store_max_bytes", "What control_store_bytes may reach: max_store",
                      number(settings_.control.max_store.value));
        samples.gauge("control_store_keys", "Keys with history", number(node_->store().key_count()));
        samples.gauge("control_revision", "Of the key space", number(node_->store().revision().value));
        samples.gauge("control_leases", "Leases that are granted", number(node_->lease_count()));
        samples.gauge("control_sessions", "Sessions of clients that are open",
                      number(node_->store().sessions().all().size()));
        samples.gauge("control_watchers", "Watches of this node's clients", number(node_->watches().size()));
        samples.gauge("control_requests_waiting", "Requests that wait at this node",
                      number(node_->waiting()));
        samples.gauge("control_connections", "Connections of clients", number(api_->connections()));
        samples.gauge("control_disk_bytes", "Of the log's files", number(node_->storage().disk_bytes()));
        samples.gauge("build_info", "1, with the version", 1, {{"version", OUTRIDER_VERSION}});
    });
}

int Process::run() {
    loop_.run();
    return 0;
}

void Process::on_signal(int signum) {
    if (stopping_ || signum == SIGINT) {
        stopping_ = true;
        api_->kill();
        stop_node();
        return;
    }
    stop();
}

// Another leads first, so that nobody waits for an election; then what is being answered is, then the peers are told.
void Process::stop() {
    stopping_ = true;
    log_info("SIGTERM: the node stops");
    node_->hand_over([this] {
        loop_.after(kDrainTime, [this] {
            if (!node_stopping_) api_->kill();
            stop_node();
        });
        api_->drain([this] { stop_node(); });
    });
}

void Process::stop_node() {
    if (std::exchange(node_stopping_, true)) return;
    node_->close([this] {
        signals_.reset();
        // The loop lets go of what has just been closed in its next turn.
        loop_.after(1ms, [this] { loop_.stop(); });
    });
}

}  // namespace

int run_control(const config::ControlNodeSettings& settings) {
    auto process = std::make_unique<Process>(settings);
    if (const auto started = process->start(); !started) {
        std::fprintf(stderr, "outrider: %s\n", started.error().c_str());
        std::fflush(nullptr);
        std::_Exit(1);  // threads may be running already; there is nothing to serve
    }
    return process->run();
}

}  // namespace outrider::node
