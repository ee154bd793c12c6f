// outrider-ledger: the application that the demonstration and the integration tests put behind the sidecar.
//
// stdout: one line "listening on http://IP:PORT" when it serves; a line a request on stderr unless --quiet.
// --journal FILE: each transfer that took effect is appended to it as one line, "REFERENCE ID FROM TO AMOUNT" (REFERENCE "-": it had
// none), before it is answered. What is there outlives a kill -9 of this process, though not the machine: nothing is synced. It is never
// read: whoever wants to know how often something took effect counts the lines.
// SIGTERM, SIGINT: stops accepting, answers what it has, exit 0; a second one, or --drain-timeout: at once.
// Exit codes: 0 clean, 1 cannot start (reason on stderr), 2 usage.
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "demo/ledger_server.h"

namespace outrider::demo {
namespace {

struct Options {
    std::string listen = "127.0.0.1:3000";
    std::uint32_t accounts = 100;
    std::int64_t initial = 100'000;
    std::string latency = "0s";
    std::string drain_timeout = "10s";
    double fail_percent = 0;
    std::string journal;
    bool quiet = false;
};

// Of what took effect. One write(2) a line in append mode: whole, and in the kernel's hands when it returns.
class Journal {
  public:
    bool open(const std::string& path) {
        file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        return file_ >= 0;
    }
    void append(std::string_view reference, const Transfer& transfer) const {
        if (file_ < 0) return;
        const std::string line =
            std::string(reference.empty() ? "-" : reference) + " " + std::to_string(transfer.id.value) + " " +
            std::to_string(transfer.from.value) + " " + std::to_string(transfer.to.value) + " " +
            std::to_string(transfer.amount.value) + "\n";
        if (::write(file_, line.data(), line.size()) == static_cast<ssize_t>(line.size())) return;
        log_error("the journal cannot be written; what takes effect would not be known");
        std::_Exit(1);
    }

  private:
    int file_ = -1;  // until the process ends
};

// "127.0.0.1:3000", "[::1]:3000".
Result<uv::SocketAddress> parse_listen(const std::string& text) {
    const Error wrong{"'" + text + "' is not an address to listen on, such as 127.0.0.1:3000 or [::1]:3000"};
    const std::size_t colon = text.rfind(':');
    if (colon == std::string::npos) return wrong;
    std::string ip = text.substr(0, colon);
    if (ip.size() >= 2 && ip.front() == '[' && ip.back() == ']') ip = ip.substr(1, ip.size() - 2);
    std::uint16_t port = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, port);
    if (error != std::errc() || stop != end) return wrong;
    auto address = uv::SocketAddress::parse(ip, port);
    return address ? std::move(address) : Result<uv::SocketAddress>(wrong);
}

std::string check_duration(const std::string& text) {
    const auto parsed = parse_duration(text);
    return parsed ? std::string() : parsed.error();
}

void describe(CLI::App& app, Options& options) {
    app.add_option("--listen", options.listen, "address and port; port 0 takes a free one")
        ->capture_default_str();
    app.add_option("--accounts", options.accounts, "number of accounts, with the ids 1 to N")
        ->check(CLI::Range(1u, Ledger::kAccountsMax))
        ->capture_default_str();
    app.add_option("--initial", options.initial, "balance of each account at the beginning, in cents")
        ->check(CLI::Range(std::int64_t{0}, Ledger::kInitialMax.value))
        ->capture_default_str();
    app.add_option("--latency", options.latency, "between a request's effect and its answer, such as 20ms")
        ->check(check_duration)
        ->capture_default_str();
    app.add_option("--drain-timeout", options.drain_timeout, "after a signal, for requests in flight")
        ->check(check_duration)
        ->capture_default_str();
    app.add_option("--fail-percent", options.fail_percent, "of requests that are answered with 503")
        ->check(CLI::Range(0.0, 100.0))
        ->capture_default_str();
    app.add_option("--journal", options.journal, "a file that each transfer's effect is appended to");
    app.add_flag("--quiet", options.quiet, "no line a request");
}

int serve(const Options& options) {
    const auto address = parse_listen(options.listen);
    if (!address) {
        std::cerr << "outrider-ledger: " << address.error() << "\n";
        return 2;
    }
    init_log();
    std::signal(SIGPIPE, SIG_IGN);  // a write to a client that left is an error of that connection
    uv::raise_open_files();
    Ledger ledger(options.accounts, {options.initial});
    Journal journal;
    if (!options.journal.empty() && !journal.open(options.journal)) {
        std::cerr << "outrider-ledger: cannot open the journal " << options.journal << "\n";
        return 1;
    }
    LedgerApi api(ledger, [&journal](std::string_view reference, const Transfer& transfer) {
        journal.append(reference, transfer);
    });
    api.controls().latency_ms = static_cast<std::uint32_t>(
        std::min<std::int64_t>(millis_of(*parse_duration(options.latency)), LedgerApi::kLatencyMax));
    api.controls().fail_percent = options.fail_percent;

    uv::Loop loop;
    LedgerServer server(loop, api, {.log_requests = !options.quiet}, uv::random_seed());
    const auto listening = server.listen(*address);
    if (!listening) {
        std::cerr << "outrider-ledger: " << listening.error() << "\n";
        return 1;
    }
    bool draining = false;
    const uv::Signals signals(loop, {SIGTERM, SIGINT}, [&](int) {
        if (draining) {
            server.kill();
            return;
        }
        draining = true;
        server.drain([&] { loop.stop(); });
        loop.after(*parse_duration(options.drain_timeout), [&] { server.kill(); });
    });
    std::cout << "listening on http://" << listening->text() << std::endl;
    loop.run();
    return 0;
}

}  // namespace
}  // namespace outrider::demo

int main(int argc, char** argv) {
    outrider::demo::Options options;
    CLI::App app("outrider-ledger: accounts and transfers over HTTP, for the demonstration of outrider");
    outrider::demo::describe(app, options);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    return outrider::demo::serve(options);
}
