// The key space with its sessions, watches and leases: see runner.h for the arguments.
#include "tests/sim/key_space.h"
#include "tests/sim/runner.h"

namespace outrider::sim {

Summary simulate_key_space(std::uint64_t seed, bool calm, bool trace) {
    Random random(seed);
    const Profile profile = calm ? Profile::calm() : Profile::drawn_key_space(random);
    KeySpace space(profile);
    return Cluster(seed, profile, space, trace).run();
}

}  // namespace outrider::sim

int main(int argc, char** argv) {
    return outrider::sim::run(argc, argv, {"sim_store", outrider::sim::simulate_key_space});
}
