#include "bench/load_options.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <getopt.h>

namespace outrider::bench {
namespace {

constexpr unsigned kDepthMax = 256;

constexpr const char* kUsage =
    R"(usage: outrider-bench-load --port PORT [options]

HTTP/1.1 load over kept connections to 127.0.0.1, one thread. Prints one JSON object.

what to ask for
  --path PATH            default /0
  --slow-path PATH       every so many requests ask for this instead; their latencies are kept apart
  --slow-every N
  --extra-fields N       N more header fields of 33 bytes in each request
  --body BYTES           POST with such a body
  --chunked              ... sent as chunks of 16 KiB

how to load (one of)
  --seconds S            closed loop: each connection sends as soon as it has its answer (default 2)
  --rate R               open loop for --seconds: R requests a second, whether or not answers come;
                         latency is also counted from the time each request should have left, so that a
                         stall is paid for by every request behind it (no coordinated omission)
  --requests N           closed loop, ends behind N answers
  --warmup S             seconds before the measured window (default 0.4; none with --requests)
  --connections N        default 1
  --depth N              requests outstanding on one connection, closed loop only (default 1)

connections to be held (prints READY and JSON, holds until standard input closes, prints JSON again)
  --idle                 each is used for one request and then kept
  --wait                 each has one request outstanding: give a path with a delay
  --drip                 each has sent only the front of a request head:
  --drip-bytes N         so many bytes of it (default 200)
  --drip-every MS        then one byte at this interval (default: none)

  --pids PID,PID         report the CPU time these processes used within the measured window
)";

[[noreturn]] void usage_error(const std::string& reason) {
    std::fprintf(stderr, "outrider-bench-load: %s (--help shows the options)\n", reason.c_str());
    std::exit(2);
}

template <typename Number>
Number number(std::string_view option, std::string_view text) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < Number{}) {
        usage_error("--" + std::string(option) + ": not a number: " + std::string(text));
    }
    return value;
}

std::vector<pid_t> pid_list(std::string_view text) {
    std::vector<pid_t> pids;
    while (!text.empty()) {
        const std::size_t comma = text.find(',');
        pids.push_back(number<pid_t>("pids", text.substr(0, comma)));
        if (comma == std::string_view::npos) break;
        text.remove_prefix(comma + 1);
    }
    return pids;
}

void check(const LoadOptions& options) {
    if (options.port == 0) usage_error("--port is missing");
    if (options.connections == 0) usage_error("--connections must be at least 1");
    if (options.depth == 0 || options.depth > kDepthMax) usage_error("--depth must be 1 to 256");
    if (options.rate > 0 && (options.requests > 0 || options.depth > 1)) {
        usage_error("--rate goes with neither --requests nor --depth");
    }
    if (options.slow_path.empty() != (options.slow_every == 0)) {
        usage_error("--slow-path and --slow-every belong together");
    }
}

}  // namespace

LoadOptions parse_load_options(int argc, char** argv) {
    static const option kOptions[] = {
        {"port", required_argument, nullptr, 'p'},
        {"path", required_argument, nullptr, 'u'},
        {"slow-path", required_argument, nullptr, 's'},
        {"slow-every", required_argument, nullptr, 'k'},
        {"extra-fields", required_argument, nullptr, 'x'},
        {"body", required_argument, nullptr, 'b'},
        {"chunked", no_argument, nullptr, 'c'},
        {"seconds", required_argument, nullptr, 't'},
        {"rate", required_argument, nullptr, 'r'},
        {"requests", required_argument, nullptr, 'n'},
        {"warmup", required_argument, nullptr, 'w'},
        {"connections", required_argument, nullptr, 'C'},
        {"depth", required_argument, nullptr, 'd'},
        {"idle", no_argument, nullptr, 'I'},
        {"wait", no_argument, nullptr, 'W'},
        {"drip", no_argument, nullptr, 'D'},
        {"drip-bytes", required_argument, nullptr, 'B'},
        {"drip-every", required_argument, nullptr, 'E'},
        {"pids", required_argument, nullptr, 'P'},
        {"help", no_argument, nullptr, 'h'},
        {nullptr, 0, nullptr, 0},
    };
    LoadOptions options;
    int index = 0;
    int letter = 0;
    while ((letter = getopt_long(argc, argv, "", kOptions, &index)) != -1) {
        if (letter == '?') std::exit(2);  // getopt has said why
        const std::string_view name = kOptions[index].name;
        const std::string_view value = optarg == nullptr ? "" : optarg;
        switch (letter) {
            case 'p':
                options.port = number<std::uint16_t>(name, value);
                break;
            case 'u':
                options.path = value;
                break;
            case 's':
                options.slow_path = value;
                break;
            case 'k':
                options.slow_every = number<unsigned>(name, value);
                break;
            case 'x':
                options.extra_fields = number<unsigned>(name, value);
                break;
            case 'b':
                options.body = number<std::uint64_t>(name, value);
                break;
            case 'c':
                options.chunked = true;
                break;
            case 't':
                options.seconds = number<double>(name, value);
                break;
            case 'r':
                options.rate = number<double>(name, value);
                break;
            case 'n':
                options.requests = number<std::uint64_t>(name, value);
                break;
            case 'w':
                options.warmup = number<double>(name, value);
                break;
            case 'C':
                options.connections = number<unsigned>(name, value);
                break;
            case 'd':
                options.depth = number<unsigned>(name, value);
                break;
            case 'I':
                options.mode = Mode::kIdle;
                break;
            case 'W':
                options.mode = Mode::kWait;
                break;
            case 'D':
                options.mode = Mode::kDrip;
                break;
            case 'B':
                options.drip_bytes = number<unsigned>(name, value);
                break;
            case 'E':
                options.drip_every_ms = number<unsigned>(name, value);
                break;
            case 'P':
                options.pids = pid_list(value);
                break;
            default:
                std::fputs(kUsage, stdout);
                std::exit(0);
        }
    }
    if (optind < argc) usage_error("unexpected argument: " + std::string(argv[optind]));
    check(options);
    return options;
}

}  // namespace outrider::bench
