// outrider-bench-load: HTTP/1.1 load generator; `--help` (load_options.cc) says what it can do.
#include <csignal>

#include <sys/prctl.h>

#include "bench/load_options.h"
#include "bench/load_run.h"
#include "bench/net.h"

int main(int argc, char** argv) {
    using namespace outrider::bench;
    const LoadOptions options = parse_load_options(argc, argv);
    std::signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1);  // the default of 50 us would be measured as latency
    raise_open_files(options.connections + 64);
    return options.mode == Mode::kLoad ? run_load(options) : run_hold(options);
}
