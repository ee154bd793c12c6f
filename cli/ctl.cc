#include "cli/ctl.h"

#include "base/bytes.h"
#include "base/units.h"
#include "control/agent/client.h"

namespace outrider::cli {

namespace {

// Endpoints are written as URLs elsewhere, too; what has TLS is left for the check to refuse.
std::string_view without_scheme(std::string_view endpoint) {
    constexpr std::string_view kScheme = "http://";
    if (endpoint.substr(0, kScheme.size()) != kScheme) return endpoint;
    endpoint.remove_prefix(kScheme.size());
    if (!endpoint.empty() && endpoint.back() == '/') endpoint.remove_suffix(1);
    return endpoint;
}

}  // namespace

std::vector<std::string> CtlOptions::endpoint_list() const {
    std::vector<std::string> list;
    for_each_list_element(endpoints,
                          [&](std::string_view element) { list.emplace_back(without_scheme(element)); });
    return list;
}

Duration CtlOptions::timeout_value() const {
    return *parse_duration(timeout);
}

void add_ctl(CLI::App& app, int& code) {
    auto options = std::make_shared<CtlOptions>();
    options->code = &code;
    options->endpoints = "127.0.0.1:2379";
    auto* ctl =
        app.add_subcommand("ctl", "Talk to the quorum: keys, watches, leases, members, status, backups");
    ctl->require_subcommand(1);
    ctl->fallthrough();
    ctl->add_option("--endpoints", options->endpoints,
                    "Members to ask, host:port,… (default 127.0.0.1:2379, or $OUTRIDER_ENDPOINTS)")
        ->envname("OUTRIDER_ENDPOINTS")
        ->check([options](const std::string& text) {
            CtlOptions given;
            given.endpoints = text;
            if (text.find("https://") != std::string::npos)
                return std::string("https is not spoken: give host:port of an endpoint without TLS");
            const auto checked = agent::check_endpoints(given.endpoint_list());
            return checked ? std::string() : checked.error();
        });
    ctl->add_option("--timeout", options->timeout, "Give up after this long (default 8s)")
        ->check([](const std::string& text) {
            const auto parsed = parse_duration(text);
            if (!parsed) return parsed.error();
            return *parsed > Duration(0) ? std::string() : "a timeout is above 0";
        });
    ctl->add_flag("--json", options->json, "Print what the API answers, one JSON object a line");
    add_ctl_kv(*ctl, options);
    add_ctl_watch(*ctl, options);
    add_ctl_lease(*ctl, options);
    add_ctl_member(*ctl, options);
    add_ctl_snapshot(*ctl, options);
}

}  // namespace outrider::cli
