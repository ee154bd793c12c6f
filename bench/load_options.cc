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
  --json TEXT            POST with this body, as application/json
  --numbers N            each ######## in that body is the request's number modulo N, as 8 hex digits (which
                         are base64 as well)
  --key unique|pool:N    an Idempotency-Key: another one in each request, or N of them in turn (the same
                         N each time this program is started); recorded answers count as "replayed"

how to load (one of)
  --seconds S            closed loop: each connection sends as soon as it has its answer (default 2)
  --rate R               open loop for --seconds: R requests a second, whether or not answers come;
                         latency is also counted from the time each request should have left, so that a
                         stall is paid for by every request behind it (no coordinated omission)
  --requests N           closed loop, ends behind N answers
  --warmup S             seconds before the measured window (default 0.4; none with --requests)
  --connections N        default 1
  --depth N              requests outstanding on one connection, closed loop only (default 1)
  --connections-max N    open loop: opens more, up to N, when a request is due and all are busy
  --record FILE          open loop: a line for each request, warm-up included: when it was due
                         (CLOCK_MONOTONIC, ns), ns from then to its answer, status
                         (0: connection lost, -1: no answer until the end)

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
void set(Number& target, std::string_view text) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), target);
    if (error != std::errc() || end != text.data() + text.size() || target < Number{}) {
        usage_error("not a number that fits here: " + std::string(text));
    }
}

void set(std::vector<pid_t>& pids, std::string_view text) {
    while (!text.empty()) {
        const std::size_t comma = text.find(',');
        set(pids.emplace_back(), text.substr(0, comma));
        if (comma == std::string_view::npos) break;
        text.remove_prefix(comma + 1);
    }
}

void set_keys(LoadOptions& options, std::string_view text) {
    constexpr std::string_view kPool = "pool:";
    if (text == "unique") {
        options.keys = Keys::kUnique;
    } else if (text.starts_with(kPool)) {
        options.keys = Keys::kPool;
        set(options.keys_in_pool, text.substr(kPool.size()));
    }
    if (options.keys == Keys::kNone || (options.keys == Keys::kPool && options.keys_in_pool == 0))
        usage_error("--key is unique or pool:N");
}

struct Option {
    const char* name;
    int has_argument;
    void (*apply)(LoadOptions&, std::string_view value);
};

using O = LoadOptions;
using Text = std::string_view;

const Option kOptions[] = {
    {"port", required_argument, [](O& o, Text value) { set(o.port, value); }},
    {"path", required_argument, [](O& o, Text value) { o.path = value; }},
    {"slow-path", required_argument, [](O& o, Text value) { o.slow_path = value; }},
    {"slow-every", required_argument, [](O& o, Text value) { set(o.slow_every, value); }},
    {"extra-fields", required_argument, [](O& o, Text value) { set(o.extra_fields, value); }},
    {"body", required_argument, [](O& o, Text value) { set(o.body, value); }},
    {"chunked", no_argument, [](O& o, Text) { o.chunked = true; }},
    {"json", required_argument, [](O& o, Text value) { o.json = value; }},
    {"numbers", required_argument, [](O& o, Text value) { set(o.numbers, value); }},
    {"key", required_argument, [](O& o, Text value) { set_keys(o, value); }},
    {"seconds", required_argument, [](O& o, Text value) { set(o.seconds, value); }},
    {"rate", required_argument, [](O& o, Text value) { set(o.rate, value); }},
    {"requests", required_argument, [](O& o, Text value) { set(o.requests, value); }},
    {"warmup", required_argument, [](O& o, Text value) { set(o.warmup, value); }},
    {"connections", required_argument, [](O& o, Text value) { set(o.connections, value); }},
    {"depth", required_argument, [](O& o, Text value) { set(o.depth, value); }},
    {"connections-max", required_argument, [](O& o, Text value) { set(o.connections_max, value); }},
    {"record", required_argument, [](O& o, Text value) { o.record = value; }},
    {"idle", no_argument, [](O& o, Text) { o.mode = Mode::kIdle; }},
    {"wait", no_argument, [](O& o, Text) { o.mode = Mode::kWait; }},
    {"drip", no_argument, [](O& o, Text) { o.mode = Mode::kDrip; }},
    {"drip-bytes", required_argument, [](O& o, Text value) { set(o.drip_bytes, value); }},
    {"drip-every", required_argument, [](O& o, Text value) { set(o.drip_every_ms, value); }},
    {"pids", required_argument, [](O& o, Text value) { set(o.pids, value); }},
    {"help", no_argument,
     [](O&, Text) {
         std::fputs(kUsage, stdout);
         std::exit(0);
     }},
};

void check(const LoadOptions& options) {
    if (options.port == 0) usage_error("--port is missing");
    if (options.connections == 0) usage_error("--connections must be at least 1");
    if (options.depth == 0 || options.depth > kDepthMax) usage_error("--depth must be 1 to 256");
    if (options.rate > 0 && (options.requests > 0 || options.depth > 1)) {
        usage_error("--rate goes with neither --requests nor --depth");
    }
    if (options.rate <= 0 && (options.connections_max > 0 || !options.record.empty())) {
        usage_error("--connections-max and --record want a --rate");
    }
    if (!options.json.empty() && options.body > 0) usage_error("--json and --body are two bodies");
    if (options.numbers > 0 && options.json.empty()) usage_error("--numbers wants --json");
    if (options.slow_path.empty() != (options.slow_every == 0)) {
        usage_error("--slow-path and --slow-every belong together");
    }
}

}  // namespace

LoadOptions parse_load_options(int argc, char** argv) {
    std::vector<option> known;
    for (const Option& o : kOptions)
        known.push_back({o.name, o.has_argument, nullptr, 0});
    known.push_back({nullptr, 0, nullptr, 0});

    LoadOptions options;
    int index = 0;
    int found = 0;
    while ((found = getopt_long(argc, argv, "", known.data(), &index)) != -1) {
        if (found == '?') std::exit(2);  // getopt has said why
        kOptions[index].apply(options, optarg == nullptr ? "" : optarg);
    }
    if (optind < argc) usage_error("unexpected argument: " + std::string(argv[optind]));
    check(options);
    return options;
}

}  // namespace outrider::bench
