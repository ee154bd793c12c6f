#include "control/raft/types.h"

#include <algorithm>

namespace outrider::raft {

const Member* Configuration::find(NodeId id) const {
    for (const Member& member : members) {
        if (member.id == id) return &member;
    }
    return nullptr;
}

bool Configuration::voter(NodeId id) const {
    const Member* member = find(id);
    return member != nullptr && member->voter;
}

std::size_t Configuration::voters() const {
    return static_cast<std::size_t>(
        std::count_if(members.begin(), members.end(), [](const Member& member) { return member.voter; }));
}

std::uint64_t Entry::bytes() const {
    constexpr std::uint64_t kFrame = 64;
    if (command.data != nullptr) return kFrame + command.data->size();
    if (configuration != nullptr) return kFrame + 64 * configuration->members.size();
    return kFrame;
}

}  // namespace outrider::raft
