// outrider: one binary, its subcommands. Exit codes: 0 clean, 1 configuration or start error, 2 usage.
#include <cstdio>

#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/admin_client.h"
#include "cli/commands.h"
#include "cli/ctl.h"
#include "cli/demo.h"

#ifndef OUTRIDER_VERSION
#define OUTRIDER_VERSION "0.0.0"
#endif

namespace {

using outrider::Duration;
namespace cli = outrider::cli;

// A CLI11 check for durations.
std::string check_duration(const std::string& text) {
    const auto parsed = outrider::parse_duration(text);
    return parsed ? std::string() : parsed.error();
}

std::string check_address(const std::string& text) {
    const auto address = cli::admin_address({text, {}});
    return address ? std::string() : address.error();
}

void add_admin_options(CLI::App& command, cli::AdminTarget& target) {
    auto* address =
        command.add_option("--admin", target.address, "Admin endpoint, host:port (default 127.0.0.1:9901)")
            ->check(check_address);
    command.add_option("-c,--config", target.config_path, "Take the admin endpoint from this configuration")
        ->excludes(address);
}

// The word that stands where a command should, and the commands that there are; empty when nothing stands there.
std::string unknown_command(const CLI::App& app) {
    const CLI::App* last = &app;
    while (!last->get_subcommands().empty())
        last = last->get_subcommands().front();
    const auto commands = last->get_subcommands([](const CLI::App*) { return true; });
    const std::vector<std::string> words = app.remaining(true);
    if (commands.empty() || words.empty() || words.front().front() == '-') return {};
    std::string path;
    for (const CLI::App* at = last; at->get_parent() != nullptr; at = at->get_parent())
        path = " " + at->get_name() + path;
    std::string names;
    for (const CLI::App* command : commands)
        names += (names.empty() ? "" : ", ") + command->get_name();
    return "\"" + words.front() + "\" is no command of outrider" + path + "; there are " + names + "\n";
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"A sidecar proxy: retries that are safe, one leader at a time."};
    app.set_version_flag("--version", OUTRIDER_VERSION);
    app.require_subcommand(1);
    int code = 0;

    std::string config_path;
    auto* run = app.add_subcommand("run", "Run the sidecar");
    run->add_option("-c,--config", config_path, "Configuration file (TOML)")->required();
    run->callback([&] { code = cli::run_sidecar(config_path); });

    auto* control = app.add_subcommand("control", "Run one node of the control plane's quorum");
    control->add_option("-c,--config", config_path, "Configuration file of the node (TOML)")->required();
    control->callback([&] { code = cli::run_control(config_path); });

    auto* validate = app.add_subcommand("validate", "Check a configuration; prints OK or every error");
    validate->add_option("-c,--config", config_path, "Configuration file (TOML)")->required();
    validate->callback([&] { code = cli::validate(config_path); });

    cli::AdminTarget target;
    std::string timeout = "2s";
    auto* ready = app.add_subcommand("ready", "Exit 0 when the sidecar is ready (for probes)");
    add_admin_options(*ready, target);
    ready->add_option("--timeout", timeout, "Wait at most this long for the answer")->check(check_duration);
    ready->callback([&] { code = cli::ready(target, *outrider::parse_duration(timeout)); });

    std::string wait = "0s";
    auto* drain = app.add_subcommand("drain", "Ask the sidecar to drain (for preStop hooks)");
    add_admin_options(*drain, target);
    drain->add_option("--timeout", timeout, "Wait at most this long for the answer")->check(check_duration);
    drain->add_option("--wait", wait, "Return when the sidecar has ended, at most after this long")
        ->check(check_duration);
    drain->callback([&] {
        code = cli::drain(target, *outrider::parse_duration(timeout), *outrider::parse_duration(wait));
    });

    std::string wait_timeout = "60s";
    std::vector<std::string> command;
    auto* wait_for =
        app.add_subcommand("wait", "Wait until the sidecar is ready, then run a command: wait -- CMD ARG…");
    add_admin_options(*wait_for, target);
    wait_for->add_option("--timeout", wait_timeout, "Give up after this long")->check(check_duration);
    wait_for->add_option("command", command, "What to run");
    wait_for->callback(
        [&] { code = cli::wait_and_exec(target, *outrider::parse_duration(wait_timeout), command); });

    cli::DemoOptions demo_options;
    demo_options.program = argv[0];
    auto* demo =
        app.add_subcommand("demo", "Run the ledger application and a sidecar on loopback until Ctrl-C");
    demo->add_option("--port", demo_options.port, "The sidecar's port (another one when taken)");
    demo->add_option("--admin-port", demo_options.admin_port, "The admin endpoint's port (likewise)");
    demo->callback([&] { code = cli::demo(demo_options); });

    cli::add_ctl(app, code);

    try {
        app.parse(argc, argv);
    } catch (const CLI::RequiredError& e) {
        const std::string unknown = unknown_command(app);
        if (unknown.empty()) return app.exit(e) == 0 ? 0 : 2;
        std::fputs(unknown.c_str(), stderr);
        return 2;
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? 0 : 2;
    }
    return code;
}
