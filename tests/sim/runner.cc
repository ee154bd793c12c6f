#include "tests/sim/runner.h"

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

#include <unistd.h>

#if defined(OUTRIDER_BUGS)
namespace outrider::raft {
extern int active_bug;
}
namespace outrider::store {
extern int active_bug;
}
#endif

namespace outrider::sim {
namespace {

struct Arguments {
    std::uint64_t first = 1, last = 100;
    double seconds = 0;  // 0: no bound
    bool trace = false, calm = false, twice = false, keep_going = false;
};

using Clock = std::chrono::steady_clock;

// For the handler of a broken require().
char running_seed[64];

void on_abort(int) {
    if (write(STDERR_FILENO, running_seed, __builtin_strlen(running_seed)) < 0) std::_Exit(2);
    std::_Exit(1);
}

unsigned long long number(std::uint64_t value) {
    return value;
}

void add(Summary& sum, Duration& virtual_time, const Summary& one) {
    virtual_time += one.ended.time_since_epoch() - std::chrono::seconds(1);
    sum.events += one.events;
    sum.steps += one.steps;
    sum.messages += one.messages;
    sum.operations += one.operations;
    sum.crashes += one.crashes;
    sum.leaders += one.leaders;
    sum.commits += one.commits;
    sum.changes += one.changes;
    sum.installs += one.installs;
    sum.lost_leaders += one.lost_leaders;
    sum.digest ^= one.digest;
}

// Whether the seed kept every promise.
bool judge(std::uint64_t seed, const Summary& one, const char* program, const Arguments& arguments,
           const Mode& mode) {
    if (one.violation) {
        std::printf("seed %llu: after %.6f s: %s\n", number(seed),
                    seconds_of(one.ended.time_since_epoch()) - 1, one.violation->c_str());
        std::printf("again, with every event: %s --seed %llu --trace\n", program, number(seed));
    } else if (arguments.twice && mode.simulate(seed, arguments.calm, false).digest != one.digest) {
        std::printf("seed %llu: the second run differs from the first\n", number(seed));
    } else {
        return true;
    }
    std::fflush(stdout);
    return false;
}

void print(const Summary& sum, std::uint64_t seeds, double real, Duration virtual_time) {
    std::printf(
        "%llu seeds in %.2f s of one core: %.0f a second; %.0f s of virtual time, %.0f times real time\n",
        number(seeds), real, static_cast<double>(seeds) / real, seconds_of(virtual_time),
        seconds_of(virtual_time) / real);
    std::printf(
        "steps %llu, messages %llu, operations %llu, commits %llu, leaders %llu, crashes %llu, changes of "
        "members %llu, snapshots installed %llu, leaders lost by connection %llu, digest %016llx\n",
        number(sum.steps), number(sum.messages), number(sum.operations), number(sum.commits),
        number(sum.leaders), number(sum.crashes), number(sum.changes), number(sum.installs),
        number(sum.lost_leaders), number(sum.digest));
}

int run(const Arguments& arguments, const char* program, const Mode& mode) {
    std::signal(SIGABRT, on_abort);
    Summary sum;
    Duration virtual_time{};
    std::uint64_t seeds = 0, failed = 0;
    const auto begun = Clock::now();
    const std::clock_t cpu_begun = std::clock();
    const auto elapsed = [begun] { return std::chrono::duration<double>(Clock::now() - begun).count(); };
    for (std::uint64_t seed = arguments.first; seed <= arguments.last; ++seed) {
        if (arguments.seconds > 0 && elapsed() > arguments.seconds) break;
        std::snprintf(running_seed, sizeof running_seed, "seed %llu: ended by a broken require()\n",
                      number(seed));
        const Summary one = mode.simulate(seed, arguments.calm, arguments.trace);
        if (!judge(seed, one, program, arguments, mode)) {
            ++failed;
            if (!arguments.keep_going) return 1;
        }
        ++seeds;
        add(sum, virtual_time, one);
    }
    // Of the processor's time: what others do on the machine is not the simulator's speed.
    const double cpu = static_cast<double>(std::clock() - cpu_begun) / CLOCKS_PER_SEC;
    print(sum, seeds, cpu, virtual_time);
    if (failed > 0) std::printf("%llu seeds broke a promise\n", number(failed));
    return failed > 0 ? 1 : 0;
}

bool set_bug([[maybe_unused]] int bug) {
#if defined(OUTRIDER_BUGS)
    raft::active_bug = store::active_bug = bug;
    return true;
#else
    return false;
#endif
}

bool parse(int argc, char** argv, Arguments& out) {
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const bool value = i + 1 < argc;
        if (word == "--trace") {
            out.trace = true;
        } else if (word == "--calm") {
            out.calm = true;
        } else if (word == "--twice") {
            out.twice = true;
        } else if (word == "--keep-going") {
            out.keep_going = true;
        } else if (word == "--seed" && value) {
            out.first = out.last = std::strtoull(argv[++i], nullptr, 10);
        } else if (word == "--seeds" && value) {
            char* dots = nullptr;
            out.first = std::strtoull(argv[++i], &dots, 10);
            if (std::string(dots).substr(0, 2) != "..") return false;
            out.last = std::strtoull(dots + 2, nullptr, 10);
        } else if (word == "--seconds" && value) {
            out.seconds = std::strtod(argv[++i], nullptr);
        } else if (word == "--bug" && value) {
            if (!set_bug(std::atoi(argv[++i]))) return false;
        } else {
            return false;
        }
    }
    return out.first <= out.last;
}

}  // namespace

int run(int argc, char** argv, const Mode& mode) {
    Arguments arguments;
    if (!parse(argc, argv, arguments)) {
        std::fprintf(stderr,
                     "usage: %s [--seeds A..B | --seed N] [--seconds S] [--keep-going] [--trace] [--calm] "
                     "[--twice]\n",
                     mode.name);
        return 2;
    }
    return run(arguments, mode.name, mode);
}

}  // namespace outrider::sim
