#include "control/raft/quorum.h"

#include "base/check.h"

namespace outrider::raft {

void Quorum::add(std::uint64_t value) {
    require(count_ < values_.size(), "a configuration has at most kMembersMax members");
    std::size_t place = count_++;
    for (; place > 0 && values_[place - 1] < value; --place) {
        values_[place] = values_[place - 1];
    }
    values_[place] = value;
}

std::uint64_t Quorum::reached() const {
    return majority_ <= count_ && majority_ > 0 ? values_[majority_ - 1] : 0;
}

}  // namespace outrider::raft
