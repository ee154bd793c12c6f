// Consensus alone, on lists that clients append to: see runner.h for the arguments.
#include "tests/sim/list_clients.h"
#include "tests/sim/runner.h"

namespace outrider::sim {

Summary simulate_lists(std::uint64_t seed, bool calm, bool trace) {
    Random random(seed);
    const Profile profile = calm ? Profile::calm() : Profile::drawn(random);
    ListClients clients(profile);
    return Cluster(seed, profile, clients, trace).run();
}

}  // namespace outrider::sim

int main(int argc, char** argv) {
    return outrider::sim::run(argc, argv, {"sim_raft", outrider::sim::simulate_lists});
}
