// Any records in a node's log: they are refused with a reason, or make a state that holds together.
//
// The input: for each record its type and a length of two bytes, then the payload.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "control/node/log_records.h"
#include "control/node/snapshot_file.h"
#include "control/raft/core.h"

namespace {
using namespace outrider;
using namespace outrider::node;

void check(LogReplay::State state) {
    if (!state.identity) return;
    raft::LogIndex last = state.snapshot.index;
    raft::Term term;
    for (const raft::Entry& entry : state.entries) {
        require(entry.index == last + 1, "entries follow the snapshot without a gap");
        last = entry.index;
        term = entry.term;
    }
    require(state.hard_state.term >= term, "no entry is of a term that the node has not seen");
    require(state.snapshot.configuration != nullptr, "there is a configuration");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view input(reinterpret_cast<const char*>(data), size);
    SnapshotParser parser;
    if (parser.add(input)) (void)parser.finish().ok();
    LogReplay replay;
    while (input.size() >= 3) {
        const auto type = static_cast<std::uint8_t>(input[0]);
        const std::size_t want = static_cast<unsigned char>(input[1]) | static_cast<unsigned char>(input[2])
                                                                            << 8;
        input.remove_prefix(3);
        const std::string_view payload = input.substr(0, want);
        input.remove_prefix(payload.size());
        if (const auto added = replay.add(type, payload); !added) {
            require(!added.error().empty(), "a refusal has a reason");
            return 0;
        }
    }
    auto state = replay.finish();
    if (state) check(std::move(*state));
    return 0;
}
