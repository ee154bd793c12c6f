// What the load generator was asked to do. `--help` prints the text of load_options.cc.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <sys/types.h>

namespace outrider::bench {

// Whether requests carry an Idempotency-Key, and which.
enum class Keys : std::uint8_t {
    kNone,
    kUnique,  // never the same twice, in this process or another
    kPool,    // keys_in_pool of them in turn, the same ones in each process
};

enum class Mode : std::uint8_t {
    kLoad,  // closed loop, open loop (rate > 0) or a fixed count (requests > 0)
    kIdle,  // connections that were used once and are then kept
    kWait,  // connections whose request has no answer yet
    kDrip,  // connections whose request head is not complete yet
};

struct LoadOptions {
    Mode mode = Mode::kLoad;
    std::uint16_t port = 0;
    std::string path = "/0";
    unsigned connections = 1;
    unsigned depth = 1;            // requests outstanding on one connection
    unsigned connections_max = 0;  // open loop: opened when a request is due and all are busy
    std::string record;            // file for RequestRecord; empty: none
    double seconds = 2;
    double warmup = 0.4;
    double rate = 0;             // requests a second over all connections
    std::uint64_t requests = 0;  // stop behind that many, without a warm-up
    std::string slow_path;
    unsigned slow_every = 0;    // every so many requests ask for slow_path
    unsigned extra_fields = 0;  // header fields added to each request
    std::uint64_t body = 0;     // POST with a body of so many bytes
    bool chunked = false;       // frame that body as chunks
    std::string json;           // POST with this body instead, as JSON
    std::uint64_t numbers = 0;  // each "########" in json is a request's number modulo this; 0: left as it is
    Keys keys = Keys::kNone;
    std::uint64_t keys_in_pool = 0;
    unsigned drip_bytes = 200;   // of the head sent at once
    unsigned drip_every_ms = 0;  // then one more byte at this interval; 0 = none
    std::vector<pid_t> pids;     // whose CPU time is reported
};

// Prints the reason or the usage and ends the process (2, or 0 for --help) when it cannot be
// understood.
LoadOptions parse_load_options(int argc, char** argv);

}  // namespace outrider::bench
