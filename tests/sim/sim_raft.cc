// sim_raft --seeds A..B     simulates each seed; the first that breaks a promise is printed, and ends it with 1
//          --seed N         one seed; with --trace every event of it
//          --calm           three nodes and nothing that goes wrong, for the speed
//          --twice          each seed a second time, which must be the same run
// Prints seeds a second and how much faster than real time virtual time went.
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <unistd.h>

#include "tests/sim/cluster.h"
#include "tests/sim/list_clients.h"

namespace outrider::sim {
namespace {

struct Arguments {
    std::uint64_t first = 1, last = 100;
    bool trace = false, calm = false, twice = false;
};

// For the handler of a broken require().
char running_seed[64];

void on_abort(int) {
    if (write(STDERR_FILENO, running_seed, __builtin_strlen(running_seed)) < 0) std::_Exit(2);
    std::_Exit(1);
}

Summary simulate(std::uint64_t seed, const Arguments& arguments) {
    Random random(seed);
    const Profile profile = arguments.calm ? Profile::calm() : Profile::drawn(random);
    ListClients clients(profile);
    return Cluster(seed, profile, clients, arguments.trace).run();
}

int run(const Arguments& arguments) {
    std::signal(SIGABRT, on_abort);
    Summary sum;
    Duration virtual_time{};
    const auto begun = std::chrono::steady_clock::now();
    for (std::uint64_t seed = arguments.first; seed <= arguments.last; ++seed) {
        std::snprintf(running_seed, sizeof running_seed, "seed %llu: ended by a broken require()\n",
                      static_cast<unsigned long long>(seed));
        const Summary one = simulate(seed, arguments);
        if (one.violation) {
            std::printf("seed %llu: after %.6f s: %s\n", static_cast<unsigned long long>(seed),
                        seconds_of(one.ended.time_since_epoch()) - 1, one.violation->c_str());
            std::printf("again, with every event: sim_raft --seed %llu --trace\n",
                        static_cast<unsigned long long>(seed));
            return 1;
        }
        if (arguments.twice && simulate(seed, arguments).digest != one.digest) {
            std::printf("seed %llu: the second run differs from the first\n",
                        static_cast<unsigned long long>(seed));
            return 1;
        }
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
        sum.digest ^= one.digest;
    }
    const double real = seconds_of(std::chrono::steady_clock::now() - begun);
    const auto count = static_cast<double>(arguments.last - arguments.first + 1);
    const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    std::printf("%.0f seeds in %.2f s: %.0f a second; %.0f s of virtual time, %.0f times real time\n", count,
                real, count / real, seconds_of(virtual_time), seconds_of(virtual_time) / real);
    std::printf(
        "steps %llu, messages %llu, operations %llu, commits %llu, leaders %llu, crashes %llu, changes of "
        "members "
        "%llu, snapshots installed %llu, digest %016llx\n",
        number(sum.steps), number(sum.messages), number(sum.operations), number(sum.commits),
        number(sum.leaders), number(sum.crashes), number(sum.changes), number(sum.installs),
        number(sum.digest));
    return 0;
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
        } else if (word == "--seed" && value) {
            out.first = out.last = std::strtoull(argv[++i], nullptr, 10);
        } else if (word == "--seeds" && value) {
            char* dots = nullptr;
            out.first = std::strtoull(argv[++i], &dots, 10);
            if (std::string(dots).substr(0, 2) != "..") return false;
            out.last = std::strtoull(dots + 2, nullptr, 10);
        } else {
            return false;
        }
    }
    return out.first <= out.last;
}

}  // namespace
}  // namespace outrider::sim

int main(int argc, char** argv) {
    outrider::sim::Arguments arguments;
    if (!outrider::sim::parse(argc, argv, arguments)) {
        std::fprintf(stderr, "usage: sim_raft [--seeds A..B | --seed N] [--trace] [--calm] [--twice]\n");
        return 2;
    }
    return outrider::sim::run(arguments);
}
