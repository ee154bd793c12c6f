#include "cli/commands.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <unistd.h>

#include "base/log.h"
#include "base/uv/loop.h"
#include "cli/admin_client.h"
#include "config/control_settings.h"
#include "config/load.h"
#include "control/node/control_process.h"
#include "proxy/server.h"

namespace outrider::cli {

namespace {
using namespace std::chrono_literals;
constexpr Duration kPoll = 100ms;

int failed(const std::string& reason) {
    std::fprintf(stderr, "outrider: %s\n", reason.c_str());
    return 1;
}

// One pause between two questions; a command has nothing else to do meanwhile.
void pause_for(Duration d) {
    uv::Loop loop;
    loop.after(d, [&] { loop.stop(); });
    loop.run();
}
}  // namespace

int run_sidecar(const std::string& config_path) {
    init_log();
    if (config::is_control_file(config_path)) {
        return failed(config_path +
                      " is of a node of the control plane; start it with: outrider control -c " +
                      config_path);
    }
    proxy::Server server(config_path);
    const std::vector<std::string> problems = server.start();
    if (!problems.empty()) {
        for (const std::string& p : problems)
            std::fprintf(stderr, "%s\n", p.c_str());
        std::fflush(nullptr);
        // Workers may be running already; there is nothing to serve.
        ::_exit(1);
    }
    return server.run();
}

int run_control(const std::string& config_path) {
    init_log();
    const config::ControlLoadResult loaded = config::load_control_file(config_path);
    if (!loaded.settings && config::load_file(config_path).settings)
        return failed(config_path + " is a sidecar's; start it with: outrider run -c " + config_path);
    for (const auto& d : loaded.diagnostics)
        std::fprintf(stderr, "%s\n", config::to_string(d).c_str());
    if (!loaded.settings) return 1;
    if (const auto level = set_log_level(loaded.settings->log_level); !level) return failed(level.error());
    return node::run_control(*loaded.settings);
}

int validate(const std::string& config_path) {
    const bool control = config::is_control_file(config_path);
    bool right = false;
    std::vector<config::Diagnostic> diagnostics;
    if (control) {
        config::ControlLoadResult loaded = config::load_control_file(config_path);
        right = loaded.settings.has_value();
        diagnostics = std::move(loaded.diagnostics);
    } else {
        config::LoadResult loaded = config::load_file(config_path);
        right = loaded.settings.has_value();
        diagnostics = std::move(loaded.diagnostics);
    }
    for (const auto& d : diagnostics) {
        std::fprintf(d.severity == config::Diagnostic::Severity::kError ? stdout : stderr, "%s\n",
                     config::to_string(d).c_str());
    }
    if (!right) return 1;
    std::printf("OK\n");
    return 0;
}

int ready(const AdminTarget& target, Duration timeout) {
    const auto address = admin_address(target);
    if (!address) return failed(address.error());
    const auto answer = admin_call(*address, "GET", "/ready", timeout);
    if (!answer) return failed("no sidecar at " + config::to_string(*address) + ": " + answer.error());
    std::fputs(answer->body.c_str(), answer->status == 200 ? stdout : stderr);
    return answer->status == 200 ? 0 : 1;
}

int drain(const AdminTarget& target, Duration timeout, Duration wait) {
    const auto address = admin_address(target);
    if (!address) return failed(address.error());
    const auto answer = admin_call(*address, "POST", "/drain", timeout);
    if (!answer) return failed("no sidecar at " + config::to_string(*address) + ": " + answer.error());
    if (answer->status != 200) return failed("drain refused: " + answer->body);
    for (Instant end = uv::read_clock() + wait; wait > 0s && uv::read_clock() < end;) {
        if (!admin_call(*address, "GET", "/live", timeout)) return 0;
        pause_for(kPoll);
    }
    return wait > 0s ? failed("still running after " + to_string(wait)) : 0;
}

int wait_and_exec(const AdminTarget& target, Duration timeout, const std::vector<std::string>& command) {
    const auto address = admin_address(target);
    if (!address) return failed(address.error());
    const Instant end = uv::read_clock() + timeout;
    std::string last = "never asked";
    for (;;) {
        const auto answer = admin_call(*address, "GET", "/ready", 1s);
        if (answer && answer->status == 200) break;
        last = answer ? answer->body : answer.error();
        if (uv::read_clock() >= end) {
            return failed("the sidecar at " + config::to_string(*address) + " is not ready after " +
                          to_string(timeout) + ": " + last);
        }
        pause_for(kPoll);
    }
    if (command.empty()) return 0;
    std::vector<char*> argv;
    for (const std::string& word : command)
        argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    ::execvp(argv[0], argv.data());
    return failed("cannot start " + command[0] + ": " + uv::error_text(-errno));
}

}  // namespace outrider::cli
