// `outrider ctl`: talks to the quorum (or an etcd) through the coordination client, one command a process.
//
// Exit codes: 0 done, 1 failed with the reason on stderr, 2 usage. With --json what the API answered goes to stdout as it came,
// one object a line; without it, tables and sentences. A write whose outcome is not known says so, and ends with 1.
//
// Each group of commands is a file: ctl_kv.cc, ctl_watch.cc, ctl_lease.cc, ctl_member.cc, ctl_snapshot.cc.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/time.h"

namespace outrider::cli {

// What is given before or behind any of the commands.
struct CtlOptions {
    std::string endpoints;       // comma separated
    std::string timeout = "8s";  // longer than a member takes to say that it has no leader (5 s)
    bool json = false;
    int* code = nullptr;  // the process's exit code

    std::vector<std::string> endpoint_list() const;
    Duration timeout_value() const;
};
using CtlOptionsPtr = std::shared_ptr<CtlOptions>;

// Adds `ctl` with all its commands; when one of them is parsed it runs and sets `code`.
void add_ctl(CLI::App& app, int& code);

void add_ctl_kv(CLI::App& ctl, const CtlOptionsPtr& options);
void add_ctl_watch(CLI::App& ctl, const CtlOptionsPtr& options);
void add_ctl_lease(CLI::App& ctl, const CtlOptionsPtr& options);
void add_ctl_member(CLI::App& ctl, const CtlOptionsPtr& options);  // and status
void add_ctl_snapshot(CLI::App& ctl, const CtlOptionsPtr& options);

}  // namespace outrider::cli
