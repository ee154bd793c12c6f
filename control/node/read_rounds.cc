#include "control/node/read_rounds.h"

#include <algorithm>
#include <utility>

namespace outrider::node {

bool ReadRounds::waiting() {
    std::erase_if(again_, [](const auto& batch) { return batch->items.empty(); });
    return !fresh_.empty() || !again_.empty();
}

void ReadRounds::ask(std::uint64_t context, Instant now) {
    if (!waiting()) return;
    if (!fresh_.empty()) {
        again_.push_back(std::make_shared<Batch>());
        again_.back()->items = std::exchange(fresh_, {});
    }
    for (const auto& batch : again_) {
        batch->asked = now;
        batch->waits = false;
        ++batch->questions;
    }
    questions_.emplace(context, std::exchange(again_, {}));
}

ReadRounds::Items ReadRounds::answered(std::uint64_t context) {
    Items out;
    const auto at = questions_.find(context);
    if (at == questions_.end()) return out;
    for (const auto& batch : at->second) {
        out.insert(out.end(), batch->items.begin(), batch->items.end());
        batch->items.clear();
    }
    questions_.erase(at);
    return out;
}

ReadRounds::Items ReadRounds::refused(std::uint64_t context) {
    Items out;
    const auto at = questions_.find(context);
    if (at == questions_.end()) return out;
    for (const auto& batch : at->second) {
        if (--batch->questions > 0 || batch->waits) continue;
        out.insert(out.end(), batch->items.begin(), batch->items.end());
        batch->items.clear();
    }
    questions_.erase(at);
    return out;
}

ReadRounds::Items ReadRounds::ask_anew(Instant now, Duration age,
                                       const std::function<bool(const Item&)>& good) {
    Items out;
    for (auto at = questions_.begin(); at != questions_.end();) {
        bool open = false;
        for (const auto& batch : at->second) {
            const bool due = !batch->items.empty() && !batch->waits && now - batch->asked >= age;
            if (due) {
                const auto bad = std::stable_partition(batch->items.begin(), batch->items.end(), good);
                out.insert(out.end(), bad, batch->items.end());
                batch->items.erase(bad, batch->items.end());
                batch->waits = !batch->items.empty();
                if (batch->waits) again_.push_back(batch);
            }
            open = open || !batch->items.empty();
        }
        at = open ? std::next(at) : questions_.erase(at);
    }
    return out;
}

}  // namespace outrider::node
