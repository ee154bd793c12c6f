#include "control/raft/options.h"

namespace outrider::raft {

Result<void> validate(const Options& options) {
    if (options.heartbeat <= Duration::zero()) return Error{"heartbeat must be above zero"};
    if (options.election_timeout < 2 * options.heartbeat) {
        return Error{
            "election_timeout must be at least twice the heartbeat: one lost heartbeat would depose a "
            "leader"};
    }
    if (!(options.clock_uncertainty >= 0 && options.clock_uncertainty < 0.5)) {
        return Error{"clock_uncertainty must be at least 0 and below 0.5"};
    }
    if (options.message_entries_max == 0 || options.inflight_messages_max == 0 || options.reads_max == 0) {
        return Error{"message_entries_max, inflight_messages_max and reads_max must be at least 1"};
    }
    if (options.command_bytes_max > options.uncommitted_bytes_max) {
        return Error{
            "uncommitted_bytes_max must be at least command_bytes_max: such a command could never be "
            "accepted"};
    }
    return {};
}

}  // namespace outrider::raft
